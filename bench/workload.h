/* What bench_roofline and bench_gpu have in common: numbers from the command line, and a group's prompt of drawn tokens and
 * pixels. */
#ifndef FAVOR_BENCH_WORKLOAD_H
#define FAVOR_BENCH_WORKLOAD_H

#include "base/error.h"
#include "base/image_input.h"
#include "model/model.h"

/* --NAME VALUE. The first of these that is not NULL says what it is: a whole number from least to most; one of the words (NULL
 * at their end; NULL: any text), borrowed from argv; no value, sets *flag. */
struct bench_option {
	const char *name;
	int *number, least, most;
	const char **text;
	const char *const *words;
	int *flag;
};
#define BENCH_NUMBER(name_, number_, least_, most_) {.name = (name_), .number = (number_), .least = (least_), .most = (most_)}
/* options end with a name that is NULL. -1 with `usage` on stderr, after what is wrong. */
int bench_parse(int argc, char **argv, const struct bench_option *options, const char *usage);

struct bench_prompt {
	int32_t count;
	int32_t *ids, *plain; /* [count], owned: with the image's tokens in the middle, and text in their place */
	struct image_input image; /* no image: a grid of 0 */
	float *patches; /* owned */
};
/* `text` tokens and those of an image of `image` x `image` pixels (0: none), for responses of `response` tokens. The same
 * numbers each time. -1: pixels that are no whole patches, or more tokens than the model has positions. Free in any case. */
int bench_prompt_make(struct bench_prompt *p, const struct model_config *c, int text, int image, int response,
                      struct favor_error *e);
void bench_prompt_free(struct bench_prompt *p);

#endif
