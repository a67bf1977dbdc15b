/* Rollout: groups from prompts. Image and prompt are computed once; the G responses share the prompt's keys and values.
 * All responses under way, of whichever groups, decode in one batch; where responses have ended and there is room for a
 * whole group, the next one begins. */
#ifndef FAVOR_ROLLOUT_ROLLOUT_H
#define FAVOR_ROLLOUT_ROLLOUT_H

#include "backend/backend.h"
#include "base/group.h"
#include "base/rng.h"
#include "data/encode.h"
#include "model/model.h"
#include "model/session.h"
#include "model/steps.h"

struct rollout {
	struct model *model;               /* borrowed */
	const struct tokenizer *tokenizer; /* borrowed */
	struct session session;
	struct steps steps; /* of the session; its address is taken, so a rollout is not copied */
	struct arena arena; /* backend memory, owned */
	struct tensor first; /* [prompts, vocab]: logits of each prompt's last row; backend memory, owned, grows */
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
	int32_t responses; /* G, at least 1 */
	int32_t source;    /* the source's own: which of its prompts this is */
};

void rollout_init(struct rollout *r, struct model *m, const struct tokenizer *t);
void rollout_free(struct rollout *r);
/* What decodes together at most: places for the responses of so many groups, each of up to `responses` responses behind
 * a prompt of up to `prompt_tokens`. */
struct rollout_room {
	int32_t groups, responses, prompt_tokens;
};
/* Where requests come from and groups go to. */
struct rollout_source {
	/* The next request. 1: here it is; 0: none now; -1: none any more. busy: responses are under way, so it must not
	 * wait; else it waits, and does not say 0. room: groups that there is room for, this one included. */
	int (*next)(void *arg, int busy, int32_t room, struct rollout_request *q);
	/* Each request that next gave comes back once, with its group (owned by who takes it) as soon as all its responses
	 * have ended; or with NULL: dropped. Its prompt is not used any more. */
	void (*done)(void *arg, const struct rollout_request *q, struct group *group);
	void *arg;
};
/* Rolls out until the source has none any more and all have ended. Random draws depend on (seed, domain, index, response,
 * position) alone. -1: a prompt that does not fit the model (message without the file's name) or the room, or more rows of
 * keys and values than can be indexed. 1: the tick says to give up. Either way what is under way is dropped. */
int rollout_run(struct rollout *r, const struct rollout_room *room, const struct rollout_source *source,
                struct favor_error *e);
/* Requests that may be out at once with that room. */
int32_t rollout_groups_most(const struct rollout_room *room);
/* n groups, owned by the caller, with room for all of them; on -1 and 1 no group is returned. */
int rollout_groups(struct rollout *r, const struct rollout_request *requests, int32_t n, struct group **groups,
                   struct favor_error *e);
/* Backend memory that a run with that room takes at most: for the memory plan. */
int64_t rollout_bytes(const struct backend *b, const struct model_config *c, const struct rollout_room *room,
                      int64_t patches, int32_t max_tokens);

#endif
