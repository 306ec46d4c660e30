/* machine.h -- what explains a figure: processor, file system, commit, bytes written, memory. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdint.h>

const char *machine_cpu(void);                     /* "2 x model name"; static storage  */
const char *machine_file_system(const char *path); /* "ext4", "tmpfs", ..., else a magic number; static storage */
const char *machine_commit(void);                  /* of the sources that were built    */
uint64_t machine_written_bytes(void);              /* this process sent to block devices so far; 0 if unknown */

#endif
