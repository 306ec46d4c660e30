/* report.c -- see report.h. */
#include "base/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void report_problem(struct report *report, const char *invariant, uint64_t offset, const char *format, ...)
{
    if (report->problems++ != 0)
        return;
    int n = snprintf(report->first, sizeof report->first, "%s at 0x%" PRIx64 ": ", invariant, offset);
    if (n < 0 || (size_t)n >= sizeof report->first)
        return;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(report->first + n, sizeof report->first - (size_t)n, format, args);
    va_end(args);
}
