/* A small JSON reader for objects of numbers and arrays of strings, as strict as jansson is. */
#include "data/vocabulary_json.h"

#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

struct scan {
	const char *json, *p, *end;
	const char *origin, *what; /* for messages: the file, the member */
	struct favor_error *error;
};

static int malformed(const struct scan *s, const char *expected)
{
	int line = 1;
	for (const char *q = s->json; q < s->p; q++)
		line += *q == '\n';
	return favor_fail(s->error, "%s: line %d: %s: %s expected near \"%.*s\"", s->origin, line, s->what, expected,
	                  (int)(s->end - s->p < 20 ? s->end - s->p : 20), s->p);
}

static void skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
		s->p++;
}

/* Skips white space and one character if it is c. */
static int take(struct scan *s, char c)
{
	skip_space(s);
	if (s->p == s->end || *s->p != c)
		return 0;
	s->p++;
	return 1;
}

/* ---- finding the members ---- */

/* Skips a string, p at its opening quote. */
static void skip_string(struct scan *s)
{
	for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
		if (*s->p == '\\')
			s->p++;
	s->p = s->p < s->end ? s->p + 1 : s->end;
}

/* Skips one value of any kind. */
static void skip_value(struct scan *s)
{
	size_t depth = 0;
	skip_space(s);
	while (s->p < s->end) {
		if (*s->p == '"') {
			skip_string(s);
		} else {
			if (*s->p == '{' || *s->p == '[')
				depth++;
			else if ((*s->p == '}' || *s->p == ']') && depth)
				depth--;
			else if (!depth && strchr(",]}", *s->p)) /* behind a number, true, false or null */
				return;
			s->p++;
		}
		if (!depth && s->p < s->end && strchr("]}\"", s->p[-1]))
			return;
	}
}

/* Goes to the value of the next member of an object, p behind "{" or a value. 1 and the key (as written), or 0 at the
 * end. */
static int next_member(struct scan *s, const char **key, size_t *n)
{
	take(s, ',');
	skip_space(s);
	if (s->p == s->end || *s->p != '"')
		return 0;
	*key = s->p + 1;
	skip_string(s);
	*n = (size_t)(s->p - *key) - 1;
	if (!take(s, ':'))
		return 0;
	skip_space(s);
	return s->p < s->end;
}

static int key_is(const char *key, size_t n, const char *name)
{
	return n == strlen(name) && !memcmp(key, name, n);
}

void vocabulary_find(const char *json, size_t n, struct json_span *vocab, struct json_span *merges)
{
	struct scan s = {.json = json, .p = json, .end = json + n};
	const char *key;
	size_t key_n;
	*vocab = *merges = (struct json_span){0};
	if (!take(&s, '{'))
		return;
	while (next_member(&s, &key, &key_n)) {
		if (!key_is(key, key_n, "model") || *s.p != '{') {
			skip_value(&s);
			continue;
		}
		s.p++;
		while (next_member(&s, &key, &key_n)) {
			struct json_span *span = *s.p == '{' && key_is(key, key_n, "vocab")    ? vocab
			                         : *s.p == '[' && key_is(key, key_n, "merges") ? merges
			                                                                       : NULL;
			const char *start = s.p;
			skip_value(&s);
			if (span)
				*span = (struct json_span){(size_t)(start - json), (size_t)(s.p - json)};
		}
		return; /* what follows the model is left to jansson */
	}
}

/* ---- reading them ---- */

static int hex4(const char *p, uint32_t *c)
{
	*c = 0;
	for (int i = 0; i < 4; i++) {
		char d = p[i];
		int value = d >= '0' && d <= '9' ? d - '0' : (d | 32) >= 'a' && (d | 32) <= 'f' ? (d | 32) - 'a' + 10 : -1;
		if (value < 0)
			return -1;
		*c = *c * 16 + (uint32_t)value;
	}
	return 0;
}

/* What follows a backslash. Returns the bytes written, 0 if it is no escape. */
static int read_escape(struct scan *s, char *out)
{
	static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	const char *letter = s->p < s->end && *s->p ? strchr(letters, *s->p) : NULL;
	uint32_t c, low;
	if (letter) {
		s->p++;
		return out[0] = values[letter - letters], 1;
	}
	if (s->end - s->p < 5 || *s->p != 'u' || hex4(s->p + 1, &c))
		return 0;
	s->p += 5;
	if (c >= 0xd800 && c < 0xe000) { /* half of a pair */
		if (c >= 0xdc00 || s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || hex4(s->p + 2, &low) ||
		    low < 0xdc00 || low > 0xdfff)
			return 0;
		s->p += 6;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	return utf8_put(c, out);
}

/* A string, written to out (which has room: it is never longer than in the file). */
static int read_string(struct scan *s, char *out, size_t *n)
{
	char *to = out;
	if (!take(s, '"'))
		return malformed(s, "a string");
	while (s->p < s->end && *s->p != '"') {
		int length = utf8_length((const unsigned char *)s->p, (size_t)(s->end - s->p), NULL);
		if (!length || (unsigned char)*s->p < ' ')
			return malformed(s, "UTF-8 without control characters");
		if (*s->p == '\\') {
			s->p++;
			length = read_escape(s, to);
			if (!length)
				return malformed(s, "an escape sequence");
		} else {
			memcpy(to, s->p, (size_t)length);
			s->p += length;
		}
		to += length;
	}
	if (s->p == s->end)
		return malformed(s, "the end of a string");
	s->p++;
	*n = (size_t)(to - out);
	return 0;
}

struct entry {
	size_t text, n;
	int32_t id;
};

/* {"text": id, ...}: all entries, their texts behind one another in `texts`. */
static int read_entries(struct scan *s, char *texts, struct entry **entries, int32_t *count, int32_t *largest)
{
	int32_t capacity = 0;
	size_t used = 0;
	s->p++;
	if (take(s, '}'))
		return favor_fail(s->error, "%s: %s is empty", s->origin, s->what);
	do {
		struct entry x = {used, 0, 0};
		if (read_string(s, texts + used, &x.n))
			return -1;
		if (!take(s, ':'))
			return malformed(s, "\":\"");
		skip_space(s);
		const char *digits = s->p;
		for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && x.id < BPE_IDS_MAX; s->p++)
			x.id = 10 * x.id + (*s->p - '0');
		skip_space(s);
		if (s->p == digits || x.id >= BPE_IDS_MAX || s->p == s->end || (*s->p != ',' && *s->p != '}') ||
		    (*digits == '0' && x.id))
			return favor_fail(s->error, "%s: %s: the id of \"%.*s\" is no number from 0 to %d", s->origin, s->what,
			                  (int)(x.n < 100 ? x.n : 100), texts + x.text, BPE_IDS_MAX - 1);
		if (*count == capacity) {
			capacity = capacity ? 2 * capacity : 1024;
			*entries = favor_realloc(*entries, (size_t)capacity * sizeof **entries);
		}
		(*entries)[(*count)++] = x;
		*largest = x.id > *largest ? x.id : *largest;
		used += x.n;
	} while (take(s, ','));
	if (!take(s, '}') || s->p != s->end)
		return malformed(s, "\",\" or \"}\"");
	return 0;
}

/* At least as many merges as there are: what looks like the start of one. */
static size_t count_merges(const char *p, const char *end)
{
	size_t brackets = 0, quotes = 0;
	for (; p < end; p++) {
		brackets += *p == '[';
		quotes += *p == '"';
	}
	return brackets > quotes / 4 ? brackets : quotes / 2;
}

/* [["a", "b"], ...] or ["a b", ...]; `text` has room for the longest. */
static int read_merges(struct scan *s, char *text, struct bpe *b)
{
	s->p++;
	if (take(s, ']') && s->p == s->end)
		return 0;
	int i = 0;
	do {
		size_t left_n, right_n;
		char *right;
		if (take(s, '[')) {
			if (read_string(s, text, &left_n))
				return -1;
			right = text + left_n;
			if (!take(s, ',') || read_string(s, right, &right_n) || !take(s, ']'))
				return favor_fail(s->error, "%s: %s[%d] is no pair of strings", s->origin, s->what, i);
		} else {
			size_t n;
			skip_space(s);
			if (s->p < s->end && *s->p != '"')
				return favor_fail(s->error, "%s: %s[%d] is neither \"a b\" nor [\"a\", \"b\"]", s->origin, s->what, i);
			if (read_string(s, text, &n))
				return -1;
			if (n >= 8 && !memcmp(text, "#version", 8))
				continue;
			char *space = memchr(text, ' ', n);
			if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - text)))
				return favor_fail(s->error, "%s: %s[%d] \"%.*s\" is not two tokens and one space", s->origin, s->what,
				                  i, (int)n, text);
			left_n = (size_t)(space - text);
			right = space + 1;
			right_n = n - left_n - 1;
		}
		if (bpe_add_merge(b, text, left_n, right, right_n, s->error))
			return favor_fail_prefix(s->error, "%s: %s[%d]", s->origin, s->what, i);
	} while (i++, take(s, ','));
	if (!take(s, ']') || s->p != s->end)
		return malformed(s, "\",\" or \"]\"");
	return 0;
}

struct bpe *vocabulary_read(const char *json, struct json_span vocab, struct json_span merges, int ignore_merges,
                            const char *origin, char **texts, int32_t *count, struct favor_error *e)
{
	struct scan s = {json, json + vocab.start, json + vocab.stop, origin, "model.vocab", e};
	struct scan m = {json, json + merges.start, json + merges.stop, origin, "model.merges", e};
	struct entry *entries = NULL;
	int32_t largest = 0;
	char *merge_text = NULL;
	struct bpe *b = NULL;
	int result = -1;

	*count = 0;
	*texts = favor_malloc(vocab.stop - vocab.start);
	if (read_entries(&s, *texts, &entries, count, &largest))
		goto done;
	if ((size_t)largest > 64 * (size_t)*count + 65536) { /* the tables by id would be almost empty */
		favor_fail(e, "%s: model.vocab has %d tokens but an id of %d", origin, *count, largest);
		goto done;
	}
	size_t merge_count = count_merges(m.p, m.end);
	if (merge_count > 16 * (size_t)*count + 65536) { /* known files have up to 3 a token */
		favor_fail(e, "%s: model.merges has some %zu entries for %d tokens", origin, merge_count, *count);
		goto done;
	}
	b = bpe_new(*count, largest + 1, (int32_t)merge_count, ignore_merges);
	for (int32_t i = 0; i < *count; i++)
		if (bpe_add_token(b, *texts + entries[i].text, entries[i].n, entries[i].id, e)) {
			favor_fail_prefix(e, "%s: model.vocab", origin);
			goto done;
		}
	merge_text = favor_malloc(merges.stop - merges.start);
	result = read_merges(&m, merge_text, b);
done:
	free(entries);
	free(merge_text);
	if (result) {
		bpe_destroy(b);
		free(*texts);
		*texts = NULL;
		b = NULL;
	}
	return b;
}
