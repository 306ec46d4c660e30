/*
 * output.c -- see output.h.
 *
 * Names come out of files that anybody may have written.  For a terminal, control characters (an escape sequence can
 * retitle a window or worse) are written as \xNN.  For JSON, bytes that are not UTF-8 become U+FFFD, because a JSON
 * text that is not UTF-8 is none.
 */
#include "output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- JSON ---- */

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF), 0 if none. */
static unsigned utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    unsigned length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) /* also stops at the end of the string */
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

static void json_quote(const char *value)
{
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0';) {
        unsigned length = utf8_length(p);
        if (length == 0) {
            fputs("\\ufffd", stdout);
            p++;
        } else if (*p == '"' || *p == '\\') {
            printf("\\%c", *p++);
        } else if (*p < 0x20 || *p == 0x7f) {
            printf("\\u%04x", *p++);
        } else {
            fwrite(p, 1, length, stdout);
            p += length;
        }
    }
    putchar('"');
}

static void json_lead(struct json *json, const char *key)
{
    if (json->filled[json->depth])
        fputs(",", stdout);
    json->filled[json->depth] = true;
    if (json->depth > 0)
        printf("\n%*s", (int)json->depth * 2, "");
    if (key != NULL) {
        json_quote(key);
        fputs(": ", stdout);
    }
}

void json_begin(struct json *json, const char *key, char bracket)
{
    json_lead(json, key);
    putchar(bracket);
    if (json->depth + 1 < JSON_DEPTH_MAX)
        json->depth++;
    json->filled[json->depth] = false;
}

void json_end(struct json *json, char bracket)
{
    bool filled = json->filled[json->depth];
    json->depth--;
    if (filled)
        printf("\n%*s", (int)json->depth * 2, "");
    putchar(bracket);
    if (json->depth == 0)
        putchar('\n');
}

void json_text(struct json *json, const char *key, const char *value)
{
    json_lead(json, key);
    if (value == NULL)
        fputs("null", stdout);
    else
        json_quote(value);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
    json_lead(json, key);
    printf("%" PRIu64, value);
}

void json_flag(struct json *json, const char *key, bool value)
{
    json_lead(json, key);
    fputs(value ? "true" : "false", stdout);
}

void json_hex(struct json *json, const char *key, uint64_t value)
{
    json_lead(json, key);
    printf("\"0x%" PRIx64 "\"", value);
}

void json_time(struct json *json, const char *key, time_t value)
{
    struct tm parts;
    char text[OUTPUT_TEXT_BYTES];
    if (value == 0 || gmtime_r(&value, &parts) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        json_text(json, key, NULL);
    else
        json_text(json, key, text);
}

/* ---- text ---- */

bool output_begins_with(const char *sentence, const char *name)
{
    size_t length = strlen(name);
    return strncmp(sentence, name, length) == 0 && (sentence[length] == ':' || sentence[length] == ' ');
}

void output_safe(const char *value)
{
    output_safe_to(stdout, value);
}

void output_safe_to(FILE *to, const char *value)
{
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0';) {
        unsigned length = utf8_length(p);
        bool control = length == 0 || *p < 0x20 || *p == 0x7f || *p == '\\' || (*p == 0xc2 && p[1] < 0xa0);
        if (length == 0)
            length = 1;
        for (unsigned i = 0; i < length; i++)
            if (control)
                fprintf(to, "\\x%02x", p[i]);
            else
                putc(p[i], to);
        p += length;
    }
}

const char *output_bytes(char *buffer, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, OUTPUT_TEXT_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}

const char *output_time(char *buffer, time_t when)
{
    struct tm parts;
    if (when == 0 || localtime_r(&when, &parts) == NULL ||
        strftime(buffer, OUTPUT_TEXT_BYTES, "%Y-%m-%d %H:%M:%S", &parts) == 0)
        strcpy(buffer, "never");
    return buffer;
}

const char *output_mode(char *buffer, unsigned mode)
{
    static const char letters[] = "rwxrwxrwx";
    buffer[0] = '-';
    for (unsigned i = 0; i < 9; i++)
        buffer[i + 1] = (mode & (0400u >> i)) != 0 ? letters[i] : '-';
    buffer[10] = '\0';
    return buffer;
}
