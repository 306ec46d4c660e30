/*
 * output.h -- printing for people and for programs.  JSON is valid whatever bytes a name holds; text for people never
 * passes a control character on to the terminal.
 */
#ifndef STEAD_TOOLS_OUTPUT_H
#define STEAD_TOOLS_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define JSON_DEPTH_MAX 8
#define OUTPUT_TEXT_BYTES 64

/* ---- JSON, on stdout: begin with zeroes, pass NULL keys inside arrays ---- */
struct json {
    unsigned depth;
    bool filled[JSON_DEPTH_MAX]; /* something stands before the next value of this level */
};
void json_begin(struct json *json, const char *key, char bracket);     /* '{' or '[' */
void json_end(struct json *json, char bracket);                        /* '}' or ']'; the last one ends the line */
void json_text(struct json *json, const char *key, const char *value); /* NULL prints null */
void json_number(struct json *json, const char *key, uint64_t value);
void json_flag(struct json *json, const char *key, bool value);
void json_hex(struct json *json, const char *key, uint64_t value); /* as text: "0x..." */
void json_time(struct json *json, const char *key, time_t value);  /* RFC 3339 in UTC, null for 0 */

/* ---- text ---- */
/* value with every control character and backslash written as an escape. */
void output_safe(const char *value);                             /* on stdout */
bool output_begins_with(const char *sentence, const char *name); /* the name as a word: it need not be put before it */
void output_safe_to(FILE *to, const char *value);
/* "1.5 MiB"; buffer of OUTPUT_TEXT_BYTES. */
const char *output_bytes(char *buffer, uint64_t bytes);
/* "2026-01-31 23:59:59" in local time, "never" for 0. */
const char *output_time(char *buffer, time_t when);
/* "-rw-r--r--" */
const char *output_mode(char *buffer, unsigned mode);

#endif
