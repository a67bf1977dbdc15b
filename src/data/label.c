/* The normal form of labels and answers.
 *
 *   bytes -> code points, white space collapsed -> NFD -> full case folding, NFD again -> NFC -> bytes
 *
 * utf8proc gives the tables. Its own utf8proc_map sorts combining marks by insertion, which takes quadratic time on a
 * megabyte of marks; a response can be just that, so the runs are bounded here as in Unicode's Stream-Safe Text Format
 * (UAX #15): after 30 marks in a row a COMBINING GRAPHEME JOINER is put in. No real text has such runs. */
#include "data/label.h"

#include "base/error.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { REPLACEMENT = 0xFFFD, GRAPHEME_JOINER = 0x034F, MARKS_MAX = 30 };

int utf8_is_space(int32_t p)
{
	return (p >= 0x09 && p <= 0x0D) || p == 0x20 || p == 0x85 || p == 0xA0 || p == 0x1680 ||
	       (p >= 0x2000 && p <= 0x200A) || p == 0x2028 || p == 0x2029 || p == 0x202F || p == 0x205F || p == 0x3000;
}

size_t utf8_char(const char *s, size_t n, int32_t *point)
{
	if ((unsigned char)s[0] < 0x80) {
		*point = (unsigned char)s[0];
		return 1;
	}
	/* four bytes are enough for one character; utf8proc's length is signed */
	utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s, n < 4 ? (utf8proc_ssize_t)n : 4, point);
	if (used > 0)
		return (size_t)used;
	*point = -1;
	return 1;
}

int utf8_valid(const char *s, size_t n)
{
	int32_t point = 0;
	for (size_t i = 0; i < n && point >= 0;)
		i += utf8_char(s + i, n - i, &point);
	return point >= 0;
}

size_t utf8_mark(const char *s, size_t n)
{
	return n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

char *utf8_trim(const char *s, size_t n)
{
	size_t first = n, end = n;
	int32_t point;
	for (size_t i = 0, used; i < n; i += used) {
		used = utf8_char(s + i, n - i, &point);
		if (utf8_is_space(point))
			continue;
		if (first == n)
			first = i;
		end = i + used;
	}
	size_t length = end - first;
	char *out = favor_malloc(length + 1);
	memcpy(out, s + first, length);
	out[length] = '\0';
	return out;
}

const char *utf8_short(const char *s, char out[UTF8_SHORT])
{
	size_t n = strlen(s), length = 0;
	int32_t point;
	for (size_t i = 0, used; i < n; i += used) {
		used = utf8_char(s + i, n - i, &point);
		if (length + used + 4 > UTF8_SHORT) {
			memcpy(out + length, "...", 3);
			length += 3;
			break;
		}
		if (point < 0x20 || point == 0x7F) {
			out[length++] = '?';
		} else {
			memcpy(out + length, s + i, used);
			length += used;
		}
	}
	out[length] = '\0';
	return out;
}

struct points {
	int32_t *at;
	size_t count, capacity;
	int marks; /* combining marks at the end, in a row */
};

static void push(struct points *p, int32_t point)
{
	if (p->count == p->capacity) {
		p->capacity = p->capacity ? 2 * p->capacity : 64;
		p->at = favor_realloc(p->at, p->capacity * sizeof *p->at);
	}
	p->at[p->count++] = point;
}

static int combining_class(int32_t point)
{
	return utf8proc_get_property(point)->combining_class;
}

/* Canonical order: a mark moves before marks of a higher class, never over a base character nor over its equals. */
static void push_ordered(struct points *p, int32_t point)
{
	int class = combining_class(point);
	if (class == 0) {
		p->marks = 0;
		push(p, point);
		return;
	}
	if (p->marks == MARKS_MAX) {
		push(p, GRAPHEME_JOINER);
		p->marks = 0;
	}
	push(p, point);
	size_t i = p->count - 1;
	for (int k = 0; k < p->marks && combining_class(p->at[i - 1]) > class; k++, i--)
		p->at[i] = p->at[i - 1];
	p->at[i] = point;
	p->marks++;
}

/* Canonical decomposition of every point (case folded too if asked), in canonical order. */
static struct points decompose(const struct points *in, int options)
{
	struct points out = {0};
	for (size_t i = 0; i < in->count; i++) {
		utf8proc_int32_t parts[32];
		int boundary = 0;
		utf8proc_ssize_t n = utf8proc_decompose_char(in->at[i], parts, 32, (utf8proc_option_t)options, &boundary);
		if (n < 0 || n > 32) {
			push_ordered(&out, in->at[i]); /* not in Unicode's tables: nothing decomposes to more than 18 */
			continue;
		}
		for (utf8proc_ssize_t k = 0; k < n; k++)
			push_ordered(&out, parts[k]);
	}
	return out;
}

/* One space for runs of white space and '_', none at the ends. Sets *ascii if all of it is. */
static struct points collapse(const char *s, size_t n, int *ascii)
{
	struct points p = {0};
	int32_t point;
	int pending = 0;
	*ascii = 1;
	for (size_t i = 0; i < n;) {
		i += utf8_char(s + i, n - i, &point);
		if (point == '_' || utf8_is_space(point)) {
			pending = p.count > 0;
			continue;
		}
		if (pending)
			push(&p, ' ');
		pending = 0;
		push(&p, point <= 0 ? REPLACEMENT : point);
		*ascii &= point > 0 && point < 0x80;
	}
	return p;
}

char *label_normalise(const char *s, size_t n)
{
	int ascii;
	struct points text = collapse(s, n, &ascii);
	if (ascii) {
		char *out = favor_malloc(text.count + 1);
		for (size_t i = 0; i < text.count; i++)
			out[i] = (char)(text.at[i] >= 'A' && text.at[i] <= 'Z' ? text.at[i] + 32 : text.at[i]);
		out[text.count] = '\0';
		free(text.at);
		return out;
	}
	/* Unicode's canonical caseless match: decomposed before it is folded, since folding looks at single points */
	struct points plain = decompose(&text, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
	struct points folded = decompose(&plain, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD);
	utf8proc_ssize_t count = utf8proc_normalize_utf32(folded.at, (utf8proc_ssize_t)folded.count,
	                                                  (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
	if (count < 0)
		favor_die("utf8proc: %s", utf8proc_errmsg(count));
	char *out = favor_malloc(4 * (size_t)count + 1);
	size_t length = 0;
	for (utf8proc_ssize_t i = 0; i < count; i++)
		length += (size_t)utf8proc_encode_char(folded.at[i], (utf8proc_uint8_t *)out + length);
	out[length] = '\0';
	free(text.at);
	free(plain.at);
	free(folded.at);
	return out;
}

int label_is_blank(const char *s)
{
	size_t n = strlen(s);
	int32_t point;
	for (size_t i = 0; i < n;) {
		i += utf8_char(s + i, n - i, &point);
		if (point != '_' && !utf8_is_space(point))
			return 0;
	}
	return 1;
}

/* Levenshtein's distance in bytes; texts are cut at EDIT_MAX, which is enough to tell labels apart. */
enum { EDIT_MAX = 200 };

static int edit_distance(const char *a, const char *b)
{
	int row[EDIT_MAX + 1];
	int n = (int)strnlen(a, EDIT_MAX), m = (int)strnlen(b, EDIT_MAX);
	for (int j = 0; j <= m; j++)
		row[j] = j;
	for (int i = 1; i <= n; i++) {
		int diagonal = row[0];
		row[0] = i;
		for (int j = 1; j <= m; j++) {
			int best = diagonal + (a[i - 1] != b[j - 1]);
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[m];
}

int32_t label_nearest(const char *label, char *const *names, int32_t count)
{
	char *wanted = label_normalise(label, strlen(label));
	int32_t nearest = -1;
	int least = 0;
	for (int32_t i = 0; i < count; i++) {
		char *name = label_normalise(names[i], strlen(names[i]));
		int distance = edit_distance(wanted, name);
		if (nearest < 0 || distance < least) {
			nearest = i;
			least = distance;
		}
		free(name);
	}
	free(wanted);
	return nearest;
}

/* Slot of the key, or the free slot where it belongs. Capacity is a power of two and never full. */
static int32_t slot(const struct label_map *m, const char *key)
{
	uint32_t mask = (uint32_t)m->capacity - 1;
	uint32_t i = (uint32_t)hash_mix(hash_bytes(HASH_START, key, strlen(key))) & mask;
	while (m->keys[i] && strcmp(m->keys[i], key) != 0)
		i = (i + 1) & mask;
	return (int32_t)i;
}

int32_t label_map_get(const struct label_map *m, const char *key)
{
	if (m->count == 0)
		return -1;
	int32_t i = slot(m, key);
	return m->keys[i] ? m->values[i] : -1;
}

static void grow(struct label_map *m)
{
	if (m->capacity > INT32_MAX / 2)
		favor_die("out of memory: more than %d different labels", INT32_MAX / 2);
	struct label_map bigger = {.capacity = m->capacity ? 2 * m->capacity : 64, .count = m->count};
	bigger.keys = favor_calloc((size_t)bigger.capacity, sizeof *bigger.keys);
	bigger.values = favor_calloc((size_t)bigger.capacity, sizeof *bigger.values);
	for (int32_t i = 0; i < m->capacity; i++) {
		if (!m->keys[i])
			continue;
		int32_t at = slot(&bigger, m->keys[i]);
		bigger.keys[at] = m->keys[i];
		bigger.values[at] = m->values[i];
	}
	free(m->keys);
	free(m->values);
	*m = bigger;
}

void label_map_put(struct label_map *m, const char *key, int32_t value)
{
	if (m->count >= m->capacity / 2)
		grow(m);
	int32_t i = slot(m, key);
	if (!m->keys[i]) {
		m->keys[i] = favor_strdup(key);
		m->count++;
	}
	m->values[i] = value;
}

void label_map_free(struct label_map *m)
{
	for (int32_t i = 0; i < m->capacity; i++)
		free(m->keys[i]);
	free(m->keys);
	free(m->values);
	*m = (struct label_map){0};
}
