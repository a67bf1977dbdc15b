/* Cuts text into the words that BPE works on: the Split patterns of tokenizer.json, one after the other. */
#ifndef FAVOR_DATA_PRETOKENIZE_H
#define FAVOR_DATA_PRETOKENIZE_H

#include "base/error.h"

#include <stddef.h>

struct pretokenizer;

/* The split of GPT-2 that ByteLevel does with use_regex: true. */
#define PRETOKENIZE_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct pretokenizer *pretokenizer_new(void);
void pretokenizer_destroy(struct pretokenizer *p); /* NULL is allowed */

/* Adds one split by a pattern in Oniguruma's (Ruby's) syntax, which is what tokenizer.json means. Pieces of the split
 * before are cut further. A construct that PCRE2 reads in another way, or that nobody needed so far, is an error that
 * names it. */
int pretokenizer_add(struct pretokenizer *p, const char *pattern, size_t n, struct favor_error *e);

/* Calls piece(context, ...) for each piece of the text (valid UTF-8), in order; they are not empty and cover all of it,
 * matches and what stands between them ("Isolated"). -1 if the pattern's matching gives up (a limit of PCRE2). */
int pretokenizer_run(struct pretokenizer *p, const char *text, size_t n,
                     void (*piece)(void *context, const char *text, size_t n), void *context, struct favor_error *e);

#endif
