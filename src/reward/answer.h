/* Where the answer stands in a response: the rules of tags, private to the reward room. */
#ifndef FAVOR_REWARD_ANSWER_H
#define FAVOR_REWARD_ANSWER_H

#include <stddef.h>

/* 1 and the place of what stands between the tags of the final answer (it may be blank), or 0 if there is no final
 * answer. Linear time. */
int answer_find(const char *text, size_t n, size_t *start, size_t *length);

enum tag { TAG_NONE, TAG_THINK, TAG_THINK_END, TAG_ANSWER, TAG_ANSWER_END };
/* The next of the four tags at or after *at, exactly as written there; *at becomes its first byte. TAG_NONE at the end
 * (*at = n). */
enum tag tag_next(const char *text, size_t n, size_t *at);
size_t tag_length(enum tag t);

#endif
