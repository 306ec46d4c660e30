/* report.c -- see report.h. */
#include "base/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static uint64_t hash_text(const char *text) /* FNV-1a */
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return hash;
}

static bool is_believed(struct report_looks *looks, uint64_t problem)
{
    unsigned now = looks->looks % 2, before = now ^ 1;
    bool found = looks->looks == 1;
    for (unsigned i = 0; !found && i < looks->counts[before]; i++)
        found = looks->problems[before][i] == problem;
    if (!found || looks->counts[now] == REPORT_LOOKS_PROBLEMS_MAX)
        return false;
    looks->problems[now][looks->counts[now]++] = problem;
    return true;
}

void report_look(struct report *report, struct report_looks *looks)
{
    looks->looks++;
    looks->counts[looks->looks % 2] = 0;
    *report = (struct report){.looks = looks};
}

void report_problem(struct report *report, const char *invariant, uint64_t offset, const char *format, ...)
{
    char text[REPORT_TEXT_BYTES];
    if (report->problems != 0 && report->looks == NULL) {
        report->problems++;
        return;
    }
    int n = snprintf(text, sizeof text, "%s at 0x%" PRIx64 ": ", invariant, offset);
    if (n >= 0 && (size_t)n < sizeof text) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(text + n, sizeof text - (size_t)n, format, args);
        va_end(args);
    }
    if (report->looks != NULL && !is_believed(report->looks, hash_text(text)))
        return;
    if (report->problems++ == 0)
        memcpy(report->first, text, sizeof report->first);
}

void report_unable(struct report *report, int code)
{
    if (report->unable == 0)
        report->unable = code;
}

void report_add(struct report *report, const struct report *found)
{
    if (found->problems != 0 && report->problems == 0)
        memcpy(report->first, found->first, sizeof report->first);
    report_unable(report, found->unable);
    report->problems += found->problems;
    report->blocks += found->blocks;
    report->pages += found->pages;
}
