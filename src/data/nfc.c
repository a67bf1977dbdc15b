/* NFC on top of utf8proc. Most text holds nothing to normalise, so the text is cut at "plain" characters: those that
 * never compose with what stands before them, never move and never decompose. Only the stretches
 *
 *     [one plain character] [others]+          up to the next plain character
 *
 * are decomposed, ordered and composed. Characters that the `tokenizers` library doesn't know (unicode_inert) are plain
 * and end a stretch on both sides. utf8proc's own ordering is quadratic in a run of marks, ours is not. */
#include "data/nfc.h"

#include "base/error.h"
#include "data/unicode_tables.h"
#include "data/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum plain { OTHER, PLAIN, INERT };

/* Below U+0300 all is plain: precomposed letters are in NFC, and no mark stands there. */
static enum plain plainness(uint32_t c)
{
	if (c < 0x300 || (c >= 0x3400 && c < 0xa000) || (c >= 0xac00 && c < 0xd7a4))
		return PLAIN; /* CJK ideographs; Hangul syllables only take marks that follow them */
	if (c == 0x11a7)
		return INERT; /* one before the first trailing Jamo: utf8proc 2.8 takes it for one and drops it */
	if (c >= 0x1100 && c < 0x1200)
		return OTHER; /* conjoining Jamo */
	if (unicode_in(unicode_inert, unicode_inert_count, c))
		return INERT;
	const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
	switch (p->category) {
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
		return OTHER;
	}
	int canonical = p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0;
	return p->combining_class || canonical ? OTHER : PLAIN;
}

static int combining_class(int32_t c)
{
	return utf8proc_get_property(c)->combining_class;
}

/* Canonical ordering of one run of marks: stable by class. Insertion while it is short, else counting by class. */
static void order_marks(int32_t *marks, size_t n)
{
	if (n <= 32) {
		for (size_t i = 1; i < n; i++) {
			int32_t c = marks[i];
			int class = combining_class(c);
			size_t k = i;
			for (; k > 0 && combining_class(marks[k - 1]) > class; k--)
				marks[k] = marks[k - 1];
			marks[k] = c;
		}
		return;
	}
	size_t start[257] = {0};
	for (size_t i = 0; i < n; i++)
		start[combining_class(marks[i]) + 1]++;
	for (int k = 0; k < 256; k++)
		start[k + 1] += start[k];
	int32_t *sorted = favor_malloc(n * sizeof *sorted);
	for (size_t i = 0; i < n; i++)
		sorted[start[combining_class(marks[i])]++] = marks[i];
	memcpy(marks, sorted, n * sizeof *sorted);
	free(sorted);
}

static void append(struct nfc_text *out, const char *text, size_t n)
{
	if (n > out->capacity - out->length) {
		size_t capacity = out->capacity * 2 > out->length + n ? out->capacity * 2 : out->length + n;
		out->text = favor_realloc(out->text, capacity);
		out->capacity = capacity;
	}
	if (n)
		memcpy(out->text + out->length, text, n);
	out->length += n;
}

/* One stretch, n > 0 bytes. */
static void normalise_stretch(const char *text, size_t n, struct nfc_text *out)
{
	size_t count = 0, capacity = 64;
	int32_t small[64], *c = small;
	for (const char *p = text; p < text + n;) {
		if (capacity - count < 8) { /* the longest canonical decomposition is 4 */
			int32_t *larger = favor_malloc(2 * capacity * sizeof *c);
			memcpy(larger, c, count * sizeof *c);
			if (c != small)
				free(c);
			c = larger;
			capacity *= 2;
		}
		int unused = 0;
		utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)utf8_next(&p), c + count, 8,
		                                             UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &unused);
		if (k < 0 || k > 8)
			favor_die("utf8proc_decompose_char: %s",
			          k < 0 ? utf8proc_errmsg(k) : "a decomposition of more than 8 characters");
		count += (size_t)k;
	}
	for (size_t i = 0; i < count;) {
		size_t first = i;
		while (i < count && combining_class(c[i]))
			i++;
		order_marks(c + first, i - first);
		i += i == first;
	}
	utf8proc_ssize_t length = utf8proc_normalize_utf32(c, (utf8proc_ssize_t)count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
	if (length < 0)
		favor_die("utf8proc_normalize_utf32: %s", utf8proc_errmsg(length));
	for (utf8proc_ssize_t i = 0; i < length; i++) {
		char bytes[4];
		append(out, bytes, (size_t)utf8_put((uint32_t)c[i], bytes));
	}
	if (c != small)
		free(c);
}

int nfc_normalise(const char *text, size_t n, struct nfc_text *out)
{
	const char *p = text, *end = text + n;
	const char *copied = NULL; /* input up to here is in out; NULL: no stretch so far */
	const char *before = NULL; /* the plain character just before p, that marks may compose with */
	while (p < end) {
		uint64_t eight;
		if (end - p >= 8 && (memcpy(&eight, p, 8), !(eight & 0x8080808080808080ull))) {
			p += 8;
			before = p - 1;
			continue;
		}
		const char *at = p;
		enum plain plain = plainness(utf8_next(&p));
		if (plain != OTHER) {
			before = plain == PLAIN ? at : NULL;
			continue;
		}
		const char *first = before ? before : at, *next = p;
		while (next < end) {
			const char *q = next;
			if (plainness(utf8_next(&q)) != OTHER)
				break;
			next = q;
		}
		if (!copied) {
			out->length = 0;
			copied = text;
		}
		append(out, copied, (size_t)(first - copied));
		normalise_stretch(first, (size_t)(next - first), out);
		copied = p = next;
		before = NULL;
	}
	if (!copied)
		return 0;
	append(out, copied, (size_t)(end - copied));
	return 1;
}
