/* Record -> prompt: chat template, tokens with image tokens expanded, patches. Rollout and learner both come through
 * here, so that they see the same prompt (invariant 5). */
#ifndef FAVOR_DATA_ENCODE_H
#define FAVOR_DATA_ENCODE_H

#include "base/error.h"
#include "base/image_input.h"
#include "data/dataset.h"
#include "data/image.h"
#include "data/tokenizer.h"

#include <stdint.h>

struct encoder {
	struct tokenizer *tokenizer;      /* borrowed */
	struct image_settings settings;   /* max_pixels of the configuration applied */
	int32_t image_token;              /* id of <|image_pad|>: from config.json */
	const char *system;               /* NULL: no system turn; borrowed */
	const char *prompt;               /* data.prompt; borrowed */
	const struct class_list *classes; /* borrowed; may be NULL */
};

struct prompt {
	struct token_ids ids;
	struct patches *images; /* [image_count], owned */
	struct image_input *inputs; /* [image_count], views of images; owned array */
	int32_t image_count;
	char *text; /* the user's text, without template; owned */
};

/* The user turn of n images and a text. raw: text is taken as it is, without template (an image then stands where
 * <|image_pad|> stands in it). -1 with a message that names the file. p must be zeroed or freed. */
int encode_prompt(const struct encoder *en, const char *const *images, int32_t n, const char *text, int raw,
                  struct prompt *p, struct favor_error *e);
/* A record's prompt: its own problem, or the prompt template with the class list. augment_seed >= 0: crop, flip and
 * colour noise drawn from it (SFT). */
int encode_record(const struct encoder *en, const struct record *r, int64_t augment_seed, struct prompt *p,
                  struct favor_error *e);
/* The response to learn in SFT, ending in stop_token. */
int encode_target(const struct encoder *en, const struct record *r, int32_t stop_token, struct token_ids *ids,
                  struct favor_error *e);
/* Tokens of the record's prompt and patches of its images, without decoding pixels: for the memory plan. */
int encode_size(const struct encoder *en, const struct record *r, int32_t *tokens, int64_t *patches,
                struct favor_error *e);
void prompt_free(struct prompt *p);

#endif
