/* Byte-level BPE from a Hugging Face tokenizer.json: NFC normaliser, the split pattern (PCRE2, Unicode properties),
 * added tokens, byte alphabet. Equal to the `tokenizers` library id for id. Read-only after opening; not thread-safe
 * (scratch). */
#ifndef FAVOR_DATA_TOKENIZER_H
#define FAVOR_DATA_TOKENIZER_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* Growable ids; zero-initialise, free with token_ids_free. */
struct token_ids {
	int32_t *ids;
	int32_t count, capacity;
};
void token_ids_push(struct token_ids *t, int32_t id);
void token_ids_free(struct token_ids *t);

/* folder/tokenizer.json. A component that is not supported (another model, normaliser, pre-tokeniser) is an error that
 * names it. NULL on error. */
struct tokenizer *tokenizer_open(const char *folder, struct favor_error *e);
/* The same from text (a checkpoint holds the file's text); origin stands in messages. */
struct tokenizer *tokenizer_parse(const char *json, size_t n, const char *origin, struct favor_error *e);
void tokenizer_destroy(struct tokenizer *t);
/* The text of tokenizer.json as read (borrowed), for checkpoints and export. */
const char *tokenizer_json(const struct tokenizer *t, size_t *n);

/* Appends the ids of n bytes of text. Added tokens in the text are recognised (as `tokenizers` encode does) if
 * added_tokens, else treated as plain text. Invalid UTF-8 is an error that names the byte offset. */
int tokenizer_encode(struct tokenizer *t, const char *text, size_t n, int added_tokens, struct token_ids *ids,
                     struct favor_error *e);
/* Text of the ids as a new NUL-terminated string (owned by the caller): bytes joined, invalid UTF-8 replaced by U+FFFD
 * as `tokenizers` decode does; special added tokens left out if skip_special. *n (may be NULL) = its length: the text
 * may hold NULs. Unknown ids give nothing. */
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int32_t count, int skip_special, size_t *n);
/* Id of a token by its text (added tokens first, then the vocabulary), -1 if there is none. */
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
int32_t tokenizer_vocab_size(const struct tokenizer *t); /* largest id + 1 */

#endif
