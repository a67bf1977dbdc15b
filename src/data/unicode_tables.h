/* Where Unicode in the `tokenizers` library differs from the Unicode of PCRE2 and utf8proc
 * (tools/make_unicode_tables.py). Token ids are to be equal to that library's, so its versions rule: newer than PCRE2's
 * in patterns, older than utf8proc's in NFC. */
#ifndef FAVOR_DATA_UNICODE_TABLES_H
#define FAVOR_DATA_UNICODE_TABLES_H

#include <stdint.h>

struct unicode_range {
	uint32_t first, last;
};

/* In order, not overlapping. */
extern const struct unicode_range unicode_letters[];
extern const int unicode_letters_count;
extern const struct unicode_range unicode_numbers[];
extern const int unicode_numbers_count;
extern const struct unicode_range unicode_marks[];
extern const int unicode_marks_count;
extern const struct unicode_range unicode_inert[];
extern const int unicode_inert_count;

static inline int unicode_in(const struct unicode_range *table, int count, uint32_t c)
{
	int low = 0, high = count;
	while (low < high) {
		int mid = (low + high) / 2;
		if (c > table[mid].last)
			low = mid + 1;
		else
			high = mid;
	}
	return low < count && c >= table[low].first;
}

#endif
