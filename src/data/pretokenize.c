/* The split patterns. tokenizer.json's are made for Oniguruma; here they run on PCRE2. The two agree on most of the
 * syntax and differ in some of its meaning, so a pattern is read and rewritten first: \s \S      PCRE2's includes
 * U+180E: written out as White_Space \p{L,N,M}  another version of Unicode: with the difference added
 * (unicode_tables.h) \h \v ^ $ {,n} [a[b]] && ...   mean other things: refused, like everything that isn't known to
 * mean the same
 *   (?i:...)   both fold by Unicode (long s, Kelvin sign), but Oniguruma also folds "ss" with sharp s and "fi" with its
 * ligature: such pairs of letters are refused. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pretokenize.h"

#include "data/unicode_tables.h"
#include "data/utf8.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPLITS_MAX = 8, GROUPS_MAX = 64 };

struct pretokenizer {
	int count;
	pcre2_code *code[SPLITS_MAX];
	pcre2_match_data *match; /* one pair of offsets: where the match begins and ends */
	pcre2_match_context *limits;
	pcre2_compile_context *compile;
};

struct pretokenizer *pretokenizer_new(void)
{
	struct pretokenizer *p = favor_calloc(1, sizeof *p);
	p->match = pcre2_match_data_create(1, NULL);
	p->limits = pcre2_match_context_create(NULL);
	p->compile = pcre2_compile_context_create(NULL);
	if (!p->match || !p->limits || !p->compile)
		favor_die("out of memory: PCRE2 could not be set up");
	/* "." excludes the line feed alone, as in Oniguruma */
	pcre2_set_newline(p->compile, PCRE2_NEWLINE_LF);
	return p;
}

void pretokenizer_destroy(struct pretokenizer *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->count; i++)
		pcre2_code_free(p->code[i]);
	pcre2_match_data_free(p->match);
	pcre2_match_context_free(p->limits);
	pcre2_compile_context_free(p->compile);
	free(p);
}

/* ---- from Oniguruma's syntax to PCRE2's ---- */

struct rewriter {
	const char *pattern, *p, *end;
	char *out; /* owned */
	size_t length;
	FILE *stream;
	struct favor_error *error;
	int depth, caseless[GROUPS_MAX];
	char literal; /* the literal letter just before, for pairs that fold to one character; 0: none */
};

static int refuse(struct rewriter *r, const char *at, int n, const char *why)
{
	return favor_fail(r->error, "the pattern's \"%.*s\" at byte %td %s", n, at, at - r->pattern, why);
}

static void put_ranges(struct rewriter *r, const struct unicode_range *table, int count)
{
	for (int i = 0; i < count; i++)
		fprintf(r->stream, "\\x{%x}-\\x{%x}", table[i].first, table[i].last);
}

/* The members of \s or \p{X} at r->p (just behind the backslash), for use inside [...]. Returns 1 if it was one of
 * them; *negated for \S and \P{X}. */
static int put_property(struct rewriter *r, int *negated)
{
	if (*r->p == 's' || *r->p == 'S') {
		*negated = *r->p == 'S';
		fputs("\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}",
		      r->stream);
		r->p++;
		return 1;
	}
	if ((*r->p != 'p' && *r->p != 'P') || r->end - r->p < 4 || r->p[1] != '{' || r->p[3] != '}' ||
	    !strchr("LNM", r->p[2]))
		return 0;
	*negated = *r->p == 'P';
	fprintf(r->stream, "\\p{%c}", r->p[2]);
	if (r->p[2] == 'L')
		put_ranges(r, unicode_letters, unicode_letters_count);
	else if (r->p[2] == 'N')
		put_ranges(r, unicode_numbers, unicode_numbers_count);
	else
		put_ranges(r, unicode_marks, unicode_marks_count);
	r->p += 4;
	return 1;
}

/* Escapes that stand for one character in both: control letters and ASCII punctuation. */
static int plain_escape(char c)
{
	return c && (strchr("nrtf", c) ||
	             (c > ' ' && c < 127 && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z')));
}

/* One [...], r->p behind its "[". */
static int rewrite_class(struct rewriter *r)
{
	const char *open = r->p - 1;
	int negated, empty = 1;
	fputc('[', r->stream);
	if (r->p < r->end && *r->p == '^')
		fputc(*r->p++, r->stream);
	for (; r->p < r->end && *r->p != ']'; empty = 0) {
		const char *at = r->p;
		if (*at == '[')
			return refuse(r, at, 1, "inside [...] is not supported");
		if (*at == '&' && r->end - at > 1 && at[1] == '&')
			return refuse(r, at, 2, "inside [...] is not supported");
		if (r->caseless[r->depth] && (unsigned char)*at >= 0x80)
			return refuse(r, at, (int)(r->end - at > 4 ? 4 : r->end - at), "inside (?i:...) is not supported");
		if (*at != '\\') {
			fputc(*r->p++, r->stream);
			continue;
		}
		r->p++;
		if (r->p < r->end && plain_escape(*r->p)) {
			fputc('\\', r->stream);
			fputc(*r->p++, r->stream);
		} else if (r->p == r->end || *r->p == 'S' || *r->p == 'P' || !put_property(r, &negated)) {
			return refuse(r, at, r->end - at > 1 ? 2 : 1,
			              "inside [...] is not supported (\\s, \\p{L}, \\p{N}, \\p{M} are)");
		}
	}
	if (r->p == r->end || empty)
		return refuse(r, open, 1, empty ? "is an empty class" : "is not closed");
	fputc(*r->p++, r->stream);
	return 0;
}

/* "(" and what follows it, r->p behind it. */
static int rewrite_group(struct rewriter *r)
{
	static const char *const known[] = {"?:", "?=", "?!", "?<=", "?<!", "?>", "?i:"};
	const char *open = r->p - 1;
	int caseless = r->caseless[r->depth];
	if (r->depth + 1 == GROUPS_MAX)
		return refuse(r, open, 1, "opens too many groups");
	fputc('(', r->stream);
	if (r->p < r->end && *r->p == '?') {
		size_t k = 0, n = 0;
		for (; k < sizeof known / sizeof *known; k++) {
			n = strlen(known[k]);
			if ((size_t)(r->end - r->p) >= n && !memcmp(r->p, known[k], n))
				break;
		}
		if (k == sizeof known / sizeof *known)
			return refuse(r, open, (int)(r->end - open > 4 ? 4 : r->end - open), "opens a group that is not supported");
		caseless |= known[k][1] == 'i';
		fwrite(r->p, 1, n, r->stream);
		r->p += n;
	}
	r->caseless[++r->depth] = caseless;
	return 0;
}

/* {n}, {n,}, {n,m}, r->p at the "{". */
static int rewrite_interval(struct rewriter *r)
{
	const char *q = r->p + 1;
	int digits = 0, comma = 0;
	while (q < r->end && ((*q >= '0' && *q <= '9') || (*q == ',' && digits && !comma))) {
		comma |= *q == ',';
		digits += *q != ',';
		q++;
	}
	if (!digits || q == r->end || *q != '}')
		return refuse(r, r->p, 1, "opens no {n}, {n,} or {n,m}");
	q++;
	if (q < r->end && (*q == '+' || (*q == '?' && !comma)))
		return refuse(r, r->p, (int)(q + 1 - r->p), "means another thing to PCRE2");
	fwrite(r->p, 1, (size_t)(q - r->p), r->stream);
	r->p = q;
	return 0;
}

static int rewrite_literal(struct rewriter *r)
{
	char c = *r->p;
	if (r->caseless[r->depth]) {
		static const char *const folding[] = {"ss", "st", "ff", "fi", "fl"};
		char letter = (char)(c | 32);
		for (size_t k = 0; k < sizeof folding / sizeof *folding; k++)
			if (r->literal == folding[k][0] && letter == folding[k][1])
				return refuse(r, r->p - 1, 2, "inside (?i:...) folds with one character in Oniguruma: not supported");
		if ((unsigned char)c >= 0x80)
			return refuse(r, r->p, (int)(r->end - r->p > 4 ? 4 : r->end - r->p), "inside (?i:...) is not supported");
		r->literal = letter;
	}
	fputc(c, r->stream);
	r->p++;
	return 0;
}

static int rewrite(struct rewriter *r)
{
	while (r->p < r->end) {
		const char *at = r->p;
		int negated;
		if (strchr("\\[()|?*+{.^$", *at) || !*at)
			r->literal = 0;
		switch (*at) {
		case '\\':
			r->p++;
			if (r->p < r->end && plain_escape(*r->p)) {
				fputc('\\', r->stream);
				fputc(*r->p++, r->stream);
				break;
			}
			negated = r->p < r->end && (*r->p == 'S' || *r->p == 'P');
			fputs(negated ? "[^" : "[", r->stream);
			if (r->p == r->end || !put_property(r, &negated))
				return refuse(r, at, r->end - at > 1 ? 2 : 1,
				              "is not supported (\\s, \\S, \\p{L}, \\p{N}, \\p{M}, \\P{...} are)");
			fputc(']', r->stream);
			break;
		case '[':
			r->p++;
			if (rewrite_class(r))
				return -1;
			break;
		case '(':
			r->p++;
			if (rewrite_group(r))
				return -1;
			break;
		case ')':
			if (!r->depth)
				return refuse(r, at, 1, "closes no group");
			r->depth--;
			fputc(*r->p++, r->stream);
			break;
		case '{':
			if (rewrite_interval(r))
				return -1;
			break;
		case '^':
		case '$':
			return refuse(r, at, 1, "means another thing to PCRE2");
		case '|':
		case '?':
		case '*':
		case '+':
		case '.':
			fputc(*r->p++, r->stream);
			break;
		case '\0':
			return refuse(r, at, 0, "is a NUL character");
		default:
			if (rewrite_literal(r))
				return -1;
		}
	}
	return 0;
}

int pretokenizer_add(struct pretokenizer *p, const char *pattern, size_t n, struct favor_error *e)
{
	struct rewriter r = {.pattern = pattern, .p = pattern, .end = pattern + n, .error = e};
	int result = -1;
	if (p->count == SPLITS_MAX)
		return favor_fail(e, "more than %d splits", SPLITS_MAX);
	r.stream = open_memstream(&r.out, &r.length);
	if (!r.stream)
		favor_die("out of memory: the pattern could not be rewritten");
	result = rewrite(&r);
	if (fclose(r.stream))
		favor_die("out of memory: the pattern could not be rewritten");
	if (result)
		goto done;
	int code = 0;
	PCRE2_SIZE offset = 0;
	p->code[p->count] = pcre2_compile((PCRE2_SPTR)r.out, r.length, PCRE2_UTF | PCRE2_UCP, &code, &offset, p->compile);
	if (!p->code[p->count]) {
		char why[256] = "";
		pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
		result = favor_fail(e, "the pattern can't be compiled: %s (at \"%.20s\")", why, r.out + offset);
		goto done;
	}
	/* without a JIT (another CPU, a system that forbids it) pcre2_match interprets: slower, the same matches */
	pcre2_jit_compile(p->code[p->count], PCRE2_JIT_COMPLETE);
	p->count++;
done:
	free(r.out);
	return result;
}

/* ---- splitting ---- */

struct run {
	struct pretokenizer *p;
	void (*piece)(void *context, const char *text, size_t n);
	void *context;
	struct favor_error *error;
};

/* The next match at or behind `from`: 1 and *start, *stop; 0 if there is none; -1 if PCRE2 gave up. */
static int find(struct run *run, const pcre2_code *code, const char *text, size_t n, size_t from, size_t *start,
                size_t *stop)
{
	/* the text was checked to be UTF-8; PCRE2 would check the rest of it at every match */
	uint32_t options = PCRE2_NO_UTF_CHECK;
	int rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, options, run->p->match, run->p->limits);
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
		rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, options | PCRE2_NO_JIT, run->p->match, run->p->limits);
	if (rc == PCRE2_ERROR_NOMATCH)
		return 0;
	if (rc < 0) {
		char why[256] = "";
		pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
		return favor_fail(run->error, "the split pattern gave up at byte %zu of %zu: %s", from, n, why);
	}
	const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(run->p->match);
	*start = offsets[0];
	*stop = offsets[1];
	return 1;
}

static int split(struct run *run, int level, const char *text, size_t n)
{
	if (n == 0)
		return 0;
	if (level == run->p->count)
		return run->piece(run->context, text, n), 0;
	/* An empty match cuts too, but not just behind the match before it: then the search goes on one character later. */
	size_t from = 0, done = 0, start, stop;
	int matched = 0;
	while (from <= n) {
		int rc = find(run, run->p->code[level], text, n, from, &start, &stop);
		if (rc < 0)
			return -1;
		if (!rc)
			break;
		if (start == stop && matched && start == done) {
			const char *next = text + from;
			if (from == n)
				break;
			utf8_next(&next);
			from = (size_t)(next - text);
			continue;
		}
		if (split(run, level + 1, text + done, start - done) || split(run, level + 1, text + start, stop - start))
			return -1;
		matched = 1;
		done = from = stop;
	}
	return split(run, level + 1, text + done, n - done);
}

int pretokenizer_run(struct pretokenizer *p, const char *text, size_t n,
                     void (*piece)(void *context, const char *text, size_t n), void *context, struct favor_error *e)
{
	struct run run = {p, piece, context, e};
	/* Matching may cost what an honest pattern costs, which grows with the text: a word of megabytes must not meet a limit
	 * made for smaller texts, and a pattern that backtracks without end is stopped after seconds. */
	const size_t per_byte = n < 1000000 ? n : 1000000;
	pcre2_set_match_limit(p->limits, (uint32_t)(20000000 + 1000 * per_byte));
	pcre2_set_depth_limit(p->limits, (uint32_t)(1000000 + 100 * per_byte));
	pcre2_set_heap_limit(p->limits, (uint32_t)(100000 + per_byte)); /* KiB */
	return split(&run, 0, text, n);
}
