/* A growing string, and the ways in which text and numbers get into JSON and HTML. Everything that a model, a data set
 * or a file wrote goes through text_json_string or text_html: they alone decide what is safe. */
#ifndef FAVOR_REPORT_TEXT_H
#define FAVOR_REPORT_TEXT_H

#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>

/* Zeroed is empty. data is NUL-terminated once something was added; owned, text_free. */
struct text {
	char *data;
	size_t n, capacity;
};

void text_bytes(struct text *t, const void *data, size_t n);
void text_add(struct text *t, const char *s);
void text_format(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vformat(struct text *t, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* The shortest decimal number that parses back to the same double (float), in JSON; "null" for NaN and infinities. */
void text_double(struct text *t, double x);
void text_float(struct text *t, float x);
/* "..." with its quotes. Bytes that are no UTF-8 become U+FFFD, so that every JSON reader takes it. NULL gives "". */
void text_json_string(struct text *t, const char *s);
/* Escaped for HTML text and for attribute values in either kind of quotes. Bytes that are no UTF-8 and control
 * characters that HTML has no place for become U+FFFD. */
void text_html(struct text *t, const char *s, size_t n);
void text_base64(struct text *t, const void *data, size_t n);
/* Atomically: through path.tmp and a rename. -1 with a message; then path is as it was. */
int text_write_file(const struct text *t, const char *path, struct favor_error *e);
void text_free(struct text *t);

#endif
