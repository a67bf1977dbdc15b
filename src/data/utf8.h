/* UTF-8, strictly as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef FAVOR_DATA_UTF8_H
#define FAVOR_DATA_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at s (n >= 1 bytes are there). 0 if it is invalid; *bad (may be NULL) is then the number of
 * bytes that one U+FFFD replaces: the longest start of a valid character, at least 1 (Unicode 3.9, "maximal subpart").
 */
static inline int utf8_length(const unsigned char *s, size_t n, int *bad)
{
	int length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	int have = 1;
	if (length > 1 && n > 1) {
		unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
		unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
		if (s[1] >= low && s[1] <= high)
			for (have = 2; have < length && (size_t)have < n && (s[have] & 0xc0) == 0x80;)
				have++;
	}
	if (length && have == length)
		return length;
	if (bad)
		*bad = have;
	return 0;
}

/* The character at s, which is valid; *p moves behind it. */
static inline uint32_t utf8_next(const char **p)
{
	const unsigned char *s = (const unsigned char *)*p;
	if (s[0] < 0x80)
		return (*p)++, s[0];
	if (s[0] < 0xe0)
		return *p += 2, (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
	if (s[0] < 0xf0)
		return *p += 3, (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
	return *p += 4,
	       (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

/* Writes c (at most U+10FFFF) and returns its bytes. */
static inline int utf8_put(uint32_t c, char *out)
{
	if (c < 0x80)
		return out[0] = (char)c, 1;
	if (c < 0x800)
		return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f)), 2;
	if (c < 0x10000)
		return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)),
		       out[2] = (char)(0x80 | (c & 0x3f)), 3;
	out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	return out[2] = (char)(0x80 | (c >> 6 & 0x3f)), out[3] = (char)(0x80 | (c & 0x3f)), 4;
}

#endif
