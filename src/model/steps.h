/* Decoding step by step: each step feeds the newest token of every response and samples the next. What a step begins
 * with the one before has left in backend memory (struct slots), so steps can be queued without knowing their tokens:
 *
 *   steps_begin    which responses, each with its newest token
 *   steps_queue    embed -> layers -> head -> sample -> what the next step begins with; the tokens are on their way to
 * the host steps_collect  the tokens of the oldest step that was not collected
 *
 * A response ends in its slot with a stop token or its last token; steps after that give it token -1 and change none of
 * its rows. The bits of the others don't depend on it (backend.h). Where the backend records steps, all that have the
 * same number of slots are replays of one recording. */
#ifndef FAVOR_MODEL_STEPS_H
#define FAVOR_MODEL_STEPS_H

#include "base/rng.h"
#include "model/session.h"

/* How tokens are drawn, and which end a response. */
struct step_rules {
	struct sampling how;
	uint64_t seed;
	enum rng_domain domain;
	const int32_t *stop; /* [stop_count], host; borrowed by steps_begin */
	int32_t stop_count;
};
/* A response that goes on. */
struct step_response {
	struct timeline *timeline; /* borrowed until the next steps_begin; its length counts on as steps are collected */
	int32_t token;             /* its newest, not fed yet */
	int32_t left;              /* tokens that it may still get, at least 1 */
	uint64_t index;            /* its draws are of (seed, domain, index, response, drawn); drawn: tokens that it has */
	uint32_t response, drawn;
};

struct steps {
	struct session *session; /* borrowed */
	struct arena arena;      /* of steps alone, so that their addresses repeat; owned */
	struct tensor cos, sin; /* [positions, head_dim / 2]: rotations of the positions 0, 1, ...; backend memory, owned */
	int32_t count;          /* responses; the slots behind them rest */
	struct sampling how;
	struct slots slots;
	struct tensor logits;        /* [slots, vocab] of the newest step */
	struct timeline **timelines; /* [count]; owned, as what follows */
	struct segment *segments;    /* [slots], as of the first step */
	int32_t *most;               /* [slots] to how many own keys each can come */
	struct sampled *sampled;     /* [POSTS, slots], by steps in turns */
	uint64_t post[POSTS];
	int32_t room;               /* slots that these have memory for */
	uint64_t queued, collected; /* steps since steps_begin */
	uint64_t told;              /* the step at which attention was last told of the segments */
};

void steps_init(struct steps *s, struct session *session);
void steps_free(struct steps *s);
/* All steps must have been collected, or are given up. n >= 1 */
void steps_begin(struct steps *s, const struct step_rules *rules, const struct step_response *responses, int32_t n);
/* At most POSTS may be queued and not collected. run's arena is not used. 1: the tick says to give up. */
int steps_queue(struct steps *s, const struct run *run);
/* out[n], waits for that step alone. */
void steps_collect(struct steps *s, struct sampled *out);
/* Steps that were not collected never will be. */
static inline void steps_drop(struct steps *s)
{
	s->collected = s->queued;
}
static inline int32_t steps_waiting(const struct steps *s)
{
	return (int32_t)(s->queued - s->collected);
}
/* Backend memory of steps of up to n responses at positions below `positions`: for the memory plan. */
int64_t steps_bytes(const struct backend *b, const struct model_config *c, int64_t n, int64_t positions);

#endif
