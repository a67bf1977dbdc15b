/* Added tokens: texts such as <|im_start|> that are found in the input as a whole and become one id each, before any
 * pattern or merge sees them. */
#ifndef FAVOR_DATA_ADDED_TOKENS_H
#define FAVOR_DATA_ADDED_TOKENS_H

#include <stddef.h>
#include <stdint.h>

struct added_token {
	char *text; /* owned; what is searched for: the content, in NFC if the token is normalised */
	size_t n;
	char *content; /* owned; as in the file */
	size_t content_n;
	int32_t id;
	int special, lstrip, rstrip, single_word, normalised;
};

/* A set that is searched at once; zero-initialise. Borrows its tokens. */
struct added_set {
	int count;
	const struct added_token **tokens; /* owned array, by first byte, then longest first */
	int first[257];                    /* tokens that start with byte x: [first[x], first[x + 1]) */
};

/* Takes those of the tokens whose normalised flag is as given. */
void added_set_build(struct added_set *s, const struct added_token *tokens, int count, int normalised);
void added_set_free(struct added_set *s);

struct added_match {
	const struct added_token *token;
	size_t start, stop; /* bytes that it takes, white space included where the token strips it */
};

/* The next token at or behind *search: the leftmost, of those the longest. 1 and *m, or 0. *search is where the next
 * call goes on; taken = the stop of the match before (0 at first), which lstrip doesn't go back over. */
int added_set_find(const struct added_set *s, const char *text, size_t n, size_t *search, size_t taken,
                   struct added_match *m);

#endif
