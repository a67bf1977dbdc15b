/* String building for run files and the report. Called within the report room only. */
#include "report/text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

static void reserve(struct text *t, size_t more)
{
	if (t->capacity - t->n > more) /* one byte stays for the NUL */
		return;
	size_t capacity = t->capacity ? t->capacity : 256;
	while (capacity - t->n <= more)
		capacity *= 2;
	t->data = favor_realloc(t->data, capacity);
	t->capacity = capacity;
}

void text_bytes(struct text *t, const void *data, size_t n)
{
	reserve(t, n);
	if (n > 0)
		memcpy(t->data + t->n, data, n);
	t->n += n;
	t->data[t->n] = 0;
}

void text_add(struct text *t, const char *s)
{
	text_bytes(t, s, strlen(s));
}

void text_vformat(struct text *t, const char *format, va_list args)
{
	va_list again;
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	if (n >= 0) {
		reserve(t, (size_t)n);
		vsnprintf(t->data + t->n, (size_t)n + 1, format, again);
		t->n += (size_t)n;
	}
	va_end(again);
}

void text_format(struct text *t, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	text_vformat(t, format, args);
	va_end(args);
}

void text_double(struct text *t, double x)
{
	char s[40];
	if (!isfinite(x)) {
		text_add(t, "null");
		return;
	}
	if (fabs(x) < 1e15 && x == floor(x)) { /* not 1e+03 */
		text_format(t, "%.0f", x);
		return;
	}
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(s, sizeof s, "%.*g", digits, x);
		if (strtod(s, NULL) == x)
			break;
	}
	text_add(t, s);
}

void text_float(struct text *t, float x)
{
	char s[40];
	if (!isfinite(x)) {
		text_add(t, "null");
		return;
	}
	if (fabsf(x) < 1e7f && x == floorf(x)) {
		text_format(t, "%.0f", (double)x);
		return;
	}
	for (int digits = 1; digits <= 9; digits++) {
		snprintf(s, sizeof s, "%.*g", digits, (double)x);
		if (strtof(s, NULL) == x)
			break;
	}
	text_add(t, s);
}

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* Length of the valid UTF-8 character at s, 0 if there is none. */
static size_t character(const char *s, size_t n)
{
	utf8proc_int32_t code;
	utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s, n > 4 ? 4 : (utf8proc_ssize_t)n, &code);
	return used > 0 ? (size_t)used : 0;
}

void text_json_string(struct text *t, const char *s)
{
	text_add(t, "\"");
	for (size_t n = s ? strlen(s) : 0, i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		size_t used = 1;
		if (c == '"' || c == '\\')
			text_format(t, "\\%c", c);
		else if (c == '\n')
			text_add(t, "\\n");
		else if (c == '\t')
			text_add(t, "\\t");
		else if (c < 0x20 || c == 0x7f)
			text_format(t, "\\u%04x", c);
		else if ((used = character(s + i, n - i)) > 0)
			text_bytes(t, s + i, used);
		else {
			text_add(t, replacement);
			used = 1;
		}
		i += used;
	}
	text_add(t, "\"");
}

void text_html(struct text *t, const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)s[i];
		size_t used = 1;
		switch (c) {
		case '&':
			text_add(t, "&amp;");
			break;
		case '<':
			text_add(t, "&lt;");
			break;
		case '>':
			text_add(t, "&gt;");
			break;
		case '"':
			text_add(t, "&quot;");
			break;
		case '\'':
			text_add(t, "&#39;");
			break;
		default:
			used = character(s + i, n - i);
			if (used == 0 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
				text_add(t, replacement);
				used = 1;
			} else {
				text_bytes(t, s + i, used);
			}
		}
		i += used;
	}
}

void text_base64(struct text *t, const void *data, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = data;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
		                i + 2 < n ? digits[v & 63] : '='};
		text_bytes(t, four, 4);
	}
}

int text_write_file(const struct text *t, const char *path, struct favor_error *e)
{
	char *temporary = favor_format("%s.tmp", path);
	int result = -1;
	FILE *f = fopen(temporary, "we");
	if (!f) {
		favor_fail(e, "%s: can't make it: %s", temporary, strerror(errno));
		goto done;
	}
	int written = fwrite(t->data, 1, t->n, f) == t->n && fflush(f) == 0 && fsync(fileno(f)) == 0;
	int why = errno;
	if (fclose(f) != 0 && written) {
		written = 0;
		why = errno;
	}
	if (!written || rename(temporary, path) != 0) {
		favor_fail(e, "%s: can't write it: %s", path, strerror(written ? errno : why));
		unlink(temporary);
		goto done;
	}
	result = 0;
done:
	free(temporary);
	return result;
}

void text_free(struct text *t)
{
	free(t->data);
	*t = (struct text){0};
}
