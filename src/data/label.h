/* Labels as text: the one normal form that class lists, aliases and rewards compare, a map keyed by it, the nearest of
 * a list for messages, and the UTF-8 helpers that the data set readers share. Pure functions of text. */
#ifndef FAVOR_DATA_LABEL_H
#define FAVOR_DATA_LABEL_H

#include <stddef.h>
#include <stdint.h>

/* 1 if the code point has Unicode's White_Space property. */
int utf8_is_space(int32_t point);
/* Reads one character of n > 0 bytes: returns its length in bytes; *point = -1 (and length 1) where the bytes are no
 * UTF-8. */
size_t utf8_char(const char *s, size_t n, int32_t *point);
int utf8_valid(const char *s, size_t n);
/* Bytes of the byte order mark that a text begins with, which some editors write: 3, or 0 if there is none. */
size_t utf8_mark(const char *s, size_t n);
/* Without white space at both ends. New string, owned by the caller. */
char *utf8_trim(const char *s, size_t n);
/* At most `limit` bytes of s for a message, cut between characters, with "..." if cut; control characters become '?'.
 * Returns `out`. */
enum { UTF8_SHORT = 84 };
const char *utf8_short(const char *s, char out[UTF8_SHORT]);

/* The normal form: runs of white space and '_' are one space, none at the ends; full case folding; NFC. Look-alikes
 * stay what they are: no compatibility mapping, no punctuation stripped. NUL and each byte that is no UTF-8 become
 * U+FFFD. Linear time on any input. New string, owned by the caller. */
char *label_normalise(const char *s, size_t n);
/* 1 if the normal form is empty. */
int label_is_blank(const char *s);

/* Index of the name that is nearest to the label by edit distance of their normal forms; -1 if count is 0. */
int32_t label_nearest(const char *label, char *const *names, int32_t count);

/* Text to a number >= 0. Zero-initialise; owns its keys. */
struct label_map {
	char **keys;     /* [capacity], NULL = free */
	int32_t *values; /* [capacity] */
	int32_t capacity, count;
};
int32_t label_map_get(const struct label_map *m, const char *key); /* -1 if absent */
void label_map_put(struct label_map *m, const char *key,
                   int32_t value); /* copies the key; a key that is there gets the new value */
void label_map_free(struct label_map *m);

#endif
