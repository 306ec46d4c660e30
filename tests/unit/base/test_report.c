/* test_report.c -- which problems are counted, and which are believed. */
#include <criterion/criterion.h>

#include <string.h>

#include "base/report.h"

Test(report, counts_all_and_keeps_the_first_text)
{
    struct report report = {0};
    report_problem(&report, "A1", 0x1000, "%d of %d", 3, 4);
    report_problem(&report, "A2", 0x2000, "another");
    cr_assert_eq(report.problems, 2);
    cr_assert_str_eq(report.first, "A1 at 0x1000: 3 of 4");
}

Test(report, a_text_too_long_is_cut)
{
    struct report report = {0};
    char text[2 * REPORT_TEXT_BYTES];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    report_problem(&report, "A1", 0, "%s", text);
    cr_assert_eq(strlen(report.first), REPORT_TEXT_BYTES - 1);
}

/* Somebody else's steps differ from look to look; damage stays, also behind them. */
Test(report, what_every_look_found_is_believed)
{
    struct report report;
    struct report_looks looks = {0};
    for (int look = 0; look < 10; look++) {
        report_look(&report, &looks);
        report_problem(&report, "A4", 0x1000, "busy bits %d", look);
        report_problem(&report, "A5", 0x2000, "damaged");
        if (look < 5)
            report_problem(&report, "A6", 0x3000, "gone after a while");
    }
    cr_assert_eq(report.problems, 1);
    cr_assert_str_eq(report.first, "A5 at 0x2000: damaged");
}

Test(report, what_one_look_did_not_find_is_not_believed)
{
    struct report report;
    struct report_looks looks = {0};
    for (int look = 0; look < 4; look++) {
        report_look(&report, &looks);
        if (look != 2)
            report_problem(&report, "A4", 0x1000, "busy bits");
    }
    cr_assert_eq(report.problems, 0);
}

Test(report, more_problems_than_are_kept_are_not_lost)
{
    struct report report;
    struct report_looks looks = {0};
    for (int look = 0; look < 3; look++) {
        report_look(&report, &looks);
        for (uint64_t i = 0; i < 2 * REPORT_LOOKS_PROBLEMS_MAX; i++)
            report_problem(&report, "A4", i, "damaged");
    }
    cr_assert_eq(report.problems, REPORT_LOOKS_PROBLEMS_MAX);
}
