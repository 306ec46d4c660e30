/* row.c -- one line a result, for people or as CSV; progress on a terminal. */
#include "bench/support/row.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/support/machine.h"

static bool as_csv;
static const char *file_system = "none";

void row_begin(bool csv, const char *directory)
{
    as_csv = csv;
    if (directory != NULL)
        file_system = machine_file_system(directory);
    if (csv)
        printf(
            "bench,impl,processes,threads,n,unit,median,min,max,p99,p999,longest,written_B_per_op,faults,ratios,check,"
            "remark,commit,fs,"
            "cpu\n");
    else
        printf("# commit %s, %s, %s\n", machine_commit(), file_system, machine_cpu());
}

static void print_csv(const struct row *row)
{
    printf("%s,%s,%u,%u,%" PRIu64 ",%s,%.2f,%.2f,%.2f,", row->bench, row->peer, row->processes, row->threads, row->n,
           row->unit, row->median, row->low, row->high);
    if (row->p99 > 0)
        printf("%.2f", row->p99);
    printf(",");
    if (row->p999 > 0)
        printf("%.2f", row->p999);
    printf(",");
    if (row->p999 > 0)
        printf("%.2f", row->most);
    printf(",");
    if (row->written_per_op >= 0)
        printf("%.1f", row->written_per_op);
    printf(",");
    if (row->has_faults)
        printf("%.0f", row->faults);
    printf(",");
    for (unsigned i = 0; i < ROW_RATIOS && row->ratios[i].to != NULL; i++)
        printf("%s%s=%.3f", i == 0 ? "" : ";", row->ratios[i].to, row->ratios[i].ratio);
    printf(",%s,%s,%s,%s,\"%s\"\n", row->verified ? "ok" : "FAILED", row->remark == NULL ? "" : row->remark,
           machine_commit(), file_system, machine_cpu());
}

static void print_text(const struct row *row)
{
    char workers[32] = "";
    if (row->processes > 1)
        snprintf(workers, sizeof workers, "%up x %ut", row->processes, row->threads);
    else if (row->threads > 0)
        snprintf(workers, sizeof workers, "%ut", row->threads);
    printf("%-21s %-22s %-8s %10.1f %-6s [%.1f .. %.1f]", row->bench, row->peer, workers, row->median, row->unit,
           row->low, row->high);
    if (row->p99 > 0)
        printf("  p99 %.1f", row->p99);
    if (row->p999 > 0)
        printf("  p99.9 %.1f  max %.1f", row->p999, row->most);
    if (row->written_per_op >= 0)
        printf("  %.0f B written/op", row->written_per_op);
    if (row->has_faults)
        printf("  %6.0f faults", row->faults);
    for (unsigned i = 0; i < ROW_RATIOS && row->ratios[i].to != NULL; i++)
        printf("  %.2f x %s", row->ratios[i].ratio, row->ratios[i].to);
    if (row->remark != NULL)
        printf("  (%s)", row->remark);
    printf("%s\n", row->verified ? "" : "  DATA WRONG");
}

void row_print(const struct row *row)
{
    progress("%s", "");
    if (as_csv)
        print_csv(row);
    else
        print_text(row);
    fflush(stdout);
}

void row_note(const char *format, ...)
{
    progress("%s", "");
    printf("# ");
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

void progress(const char *format, ...)
{
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K");
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fflush(stderr);
}
