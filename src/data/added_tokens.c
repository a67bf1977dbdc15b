/* The search for added tokens, with the rules of `tokenizers`: leftmost-longest, matches don't overlap, and a match
 * that is dropped because it is no single word still hides those inside it. */
#include "data/added_tokens.h"

#include "base/error.h"
#include "data/unicode_tables.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int by_first_byte_then_length(const void *a, const void *b)
{
	const struct added_token *x = *(const struct added_token *const *)a, *y = *(const struct added_token *const *)b;
	int difference = (int)(unsigned char)x->text[0] - (int)(unsigned char)y->text[0];
	return difference ? difference : (x->n < y->n) - (x->n > y->n);
}

void added_set_build(struct added_set *s, const struct added_token *tokens, int count, int normalised)
{
	s->tokens = favor_malloc((size_t)count * sizeof *s->tokens);
	for (int i = 0; i < count; i++)
		if (!tokens[i].normalised == !normalised)
			s->tokens[s->count++] = &tokens[i];
	if (s->count)
		qsort(s->tokens, (size_t)s->count, sizeof *s->tokens, by_first_byte_then_length);
	for (int byte = 0, i = 0; byte <= 256; byte++) {
		while (i < s->count && (unsigned char)s->tokens[i]->text[0] < byte)
			i++;
		s->first[byte] = i;
	}
}

void added_set_free(struct added_set *s)
{
	free(s->tokens);
	*s = (struct added_set){0};
}

/* The character that ends at text + n > text. */
static uint32_t last_character(const char *text, size_t n)
{
	const char *p = text + n - 1;
	while ((*p & 0xc0) == 0x80)
		p--;
	return utf8_next(&p);
}

/* White_Space */
static int is_space(uint32_t c)
{
	return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
	       c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* \w of Unicode (UTS 18): alphabetic, marks, decimal digits, connectors, joiners. */
static int is_word(uint32_t c)
{
	if (c == 0x200c || c == 0x200d)
		return 1;
	/* symbols that are alphabetic: circled, squared and parenthesised letters */
	if ((c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
	    (c >= 0x1f170 && c <= 0x1f189))
		return 1;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return 1;
	case UTF8PROC_CATEGORY_CN: /* maybe assigned after utf8proc was made; the numbers among them are decimal digits */
		return unicode_in(unicode_letters, unicode_letters_count, c) ||
		       unicode_in(unicode_numbers, unicode_numbers_count, c) ||
		       unicode_in(unicode_marks, unicode_marks_count, c);
	default:
		return 0;
	}
}

static const struct added_token *longest_at(const struct added_set *s, const char *text, size_t n)
{
	unsigned char byte = (unsigned char)text[0];
	for (int i = s->first[byte]; i < s->first[byte + 1]; i++)
		if (s->tokens[i]->n <= n && !memcmp(s->tokens[i]->text, text, s->tokens[i]->n))
			return s->tokens[i];
	return NULL;
}

int added_set_find(const struct added_set *s, const char *text, size_t n, size_t *search, size_t taken,
                   struct added_match *m)
{
	if (!s->count)
		return 0;
	for (size_t i = *search; i < n;) {
		const struct added_token *t = longest_at(s, text + i, n - i);
		if (!t) {
			i++;
			continue;
		}
		size_t start = i, stop = i + t->n;
		*search = i = stop;
		if (t->single_word) {
			const char *after = text + stop;
			if ((start > 0 && is_word(last_character(text, start))) || (stop < n && is_word(utf8_next(&after))))
				continue;
		}
		if (t->lstrip) {
			size_t from = start;
			while (from > 0 && is_space(last_character(text, from)))
				for (from--; (text[from] & 0xc0) == 0x80;)
					from--;
			start = from > taken ? from : taken;
		}
		if (t->rstrip)
			for (const char *p = text + stop; p < text + n && is_space(utf8_next(&p));)
				stop = (size_t)(p - text);
		*m = (struct added_match){t, start, stop};
		return 1;
	}
	*search = n;
	return 0;
}
