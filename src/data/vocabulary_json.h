/* The two large members of tokenizer.json, model.vocab and model.merges: 150,000 entries each in Qwen2-VL's. They are
 * read straight from the text, because a tree of jansson values for them takes ten times as long and 100 MB; all the
 * rest goes through jansson. */
#ifndef FAVOR_DATA_VOCABULARY_JSON_H
#define FAVOR_DATA_VOCABULARY_JSON_H

#include "base/error.h"
#include "data/bpe.h"

#include <stddef.h>

/* Bytes of the text; stop = 0: the member is not there, or not an object (vocab) or array (merges). */
struct json_span {
	size_t start, stop;
};

/* Finds both in the text of a tokenizer.json. Only brackets and strings are looked at: the text may be malformed. */
void vocabulary_find(const char *json, size_t n, struct json_span *vocab, struct json_span *merges);

/* Reads both spans of the text. Returns the model, and in *texts the memory that it borrows (owned by the caller, to be
 * freed after it), in *count the number of tokens. NULL on error; the message names the origin and the entry. */
struct bpe *vocabulary_read(const char *json, struct json_span vocab, struct json_span merges, int ignore_merges,
                            const char *origin, char **texts, int32_t *count, struct favor_error *e);

#endif
