/* Rollout: groups from prompts. Image and prompt are computed once; the G responses share the prompt's keys and values
 * and decode together in one batch, with those of other groups given in the same call. */
#ifndef FAVOR_ROLLOUT_ROLLOUT_H
#define FAVOR_ROLLOUT_ROLLOUT_H

#include "backend/backend.h"
#include "base/group.h"
#include "base/rng.h"
#include "data/encode.h"
#include "model/model.h"
#include "model/session.h"

struct rollout {
	struct model *model;               /* borrowed */
	const struct tokenizer *tokenizer; /* borrowed */
	struct session session;
	struct arena arena; /* backend memory, owned */
	struct sampling sampling;
	int32_t max_tokens;
	int32_t stop[64], stop_count;
	uint64_t seed;
	enum rng_domain domain;
	int (*tick)(void *arg); /* called between layers; may be NULL. Not 0: give up */
	void *tick_arg;
};

/* What a group is for. */
struct rollout_request {
	const struct prompt *prompt; /* borrowed */
	uint64_t index;
	int64_t step;
	uint32_t record;
	int32_t responses; /* G */
};

void rollout_init(struct rollout *r, struct model *m, const struct tokenizer *t);
void rollout_free(struct rollout *r);
/* n groups at once, owned by the caller. Random draws depend on (seed, domain, index, response, position) alone. -1: a
 * prompt that does not fit the model (message without the file's name), or more responses and tokens than can be
 * indexed; then no group is returned. 1: the tick says to give up; no group is returned either. */
int rollout_groups(struct rollout *r, const struct rollout_request *requests, int32_t n, struct group **groups,
                   struct favor_error *e);
/* Backend memory that a call for so many groups takes at most: for the memory plan. */
int64_t rollout_bytes(const struct backend *b, const struct model_config *c, int64_t prompt_tokens, int64_t patches,
                      int32_t responses, int32_t max_tokens, int32_t groups);

#endif
