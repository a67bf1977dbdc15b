/* Byte-pair encoding of one word: vocabulary, merges, and a cache of words met before.
 *
 * Tokens are kept as tokenizer.json writes them, in the byte alphabet of GPT-2: each byte of the text stands as one
 * printable character ("Ġ" is the space), so "Ġthe" is the token for " the". */
#ifndef FAVOR_DATA_BPE_H
#define FAVOR_DATA_BPE_H

#include "base/error.h"
#include "data/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

enum { BPE_IDS_MAX = 1 << 24 }; /* ids are below this: a file can't make us allocate more than it is worth */

struct bpe;

/* Room for `tokens` tokens with ids below id_count (at most BPE_IDS_MAX) and `merges` merges. */
struct bpe *bpe_new(int32_t tokens, int32_t id_count, int32_t merges, int ignore_merges);
void bpe_destroy(struct bpe *b); /* NULL is allowed */

/* Adds a token with an id in [0, id_count); its text (n bytes) is borrowed and must live as long as b. -1 if the id is
 * taken or the text has one already. */
int bpe_add_token(struct bpe *b, const char *text, size_t n, int32_t id, struct favor_error *e);
/* Adds the merge of two tokens, in order of rank. All tokens were added before. -1 if one of the two or their joint
 * text is no token. */
int bpe_add_merge(struct bpe *b, const char *left, size_t left_n, const char *right, size_t right_n,
                  struct favor_error *e);

/* Id of a token by its text, -1 if there is none. */
int32_t bpe_id(const struct bpe *b, const char *text, size_t n);
/* Text of an id (borrowed), NULL if there is none. */
const char *bpe_text(const struct bpe *b, int32_t id, size_t *n);
int32_t bpe_id_count(const struct bpe *b);

/* Appends the ids of one word of n plain bytes (n < 2^31). A byte whose character is no token is left out, as
 * `tokenizers` does where the model has no unknown token. */
void bpe_encode(struct bpe *b, const char *word, size_t n, struct token_ids *ids);

/* The byte that a character of the alphabet stands for, -1 if it is outside. */
int bpe_alphabet_byte(const struct bpe *b, uint32_t character);

#endif
