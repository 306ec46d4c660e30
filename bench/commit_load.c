/*
 * commit_load.c -- new objects in bulk, one commit: pages beyond the committed end are written once, straight to the
 * file, so that the device sees about as many bytes as there are, not twice as many.  Beside LMDB, one transaction,
 * keys appended.
 */
#include "bench/commit.h"

#include <stdio.h>

#include "bench/support/row.h"
#include "bench/support/series.h"

enum { OBJECT_BYTES = 1024 };

int commit_load(const struct commit_options *o)
{
    const struct load_peer *const peers[] = {&load_stead, &load_lmdb};
    const unsigned count = o->only_stead ? 1 : 2, rounds = o->rounds < 3 ? o->rounds : 3;
    struct series mib_s[2] = {0}, ratio = {0};
    double written[2] = {0};
    uint64_t bytes = o->load_mib << 20;
    int rc = 0;
    for (unsigned round = 0; rc == 0 && bytes > 0 && round < rounds; round++) {
        double seconds[2] = {0};
        for (unsigned p = 0; rc == 0 && p < count; p++) {
            struct load_result result;
            char path[4200];
            snprintf(path, sizeof path, "%s/load-%s", o->scratch, peers[p]->name);
            progress("load: round %u of %u: %s", round + 1, rounds, peers[p]->name);
            rc = peers[p]->load(path, bytes, OBJECT_BYTES, &result);
            if (rc == 0 && round + 1 == rounds)
                rc = peers[p]->verify(path, bytes, OBJECT_BYTES);
            if (rc != 0)
                row_note("%s: load: %s", peers[p]->name, peer_error_text(rc));
            remove(path);
            if (rc != 0)
                break;
            seconds[p] = (double)(result.fill_ns + result.commit_ns + result.close_ns) * 1e-9;
            series_add(&mib_s[p], (double)o->load_mib / seconds[p]);
            written[p] = (double)result.written_bytes;
            row_note("load %s: fill %.2f s, commit %.2f s, close %.2f s, %.3f bytes written a byte loaded",
                     peers[p]->name, (double)result.fill_ns * 1e-9, (double)result.commit_ns * 1e-9,
                     (double)result.close_ns * 1e-9, (double)result.written_bytes / (double)bytes);
        }
        if (rc == 0 && count == 2)
            series_add(&ratio, seconds[0] / seconds[1]);
    }
    for (unsigned p = 0; rc == 0 && bytes > 0 && p < count; p++) {
        struct row row = {.bench = "load",
                          .peer = peers[p]->name,
                          .processes = 1,
                          .threads = 1,
                          .n = bytes / OBJECT_BYTES,
                          .unit = "MiB/s",
                          .median = series_median(&mib_s[p]),
                          .low = series_quantile(&mib_s[p], 0),
                          .high = series_quantile(&mib_s[p], 1),
                          .written_per_op = written[p] / (double)(bytes / OBJECT_BYTES),
                          .verified = true};
        if (p == 0 && count == 2) {
            row.ratios[0].to = "lmdb's time";
            row.ratios[0].ratio = series_median(&ratio);
        }
        row_print(&row);
    }
    series_release(&mib_s[0]);
    series_release(&mib_s[1]);
    series_release(&ratio);
    return rc;
}
