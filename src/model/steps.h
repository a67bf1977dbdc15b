/* Decoding step by step: each step feeds the newest token of every response and samples the next. What a step begins
 * with the one before has left in backend memory (struct slots), so steps can be queued without knowing their tokens:
 *
 *   steps_begin    which responses, each with its newest token; those that have none sample their first from their
 *                  prompt's logits: a step in itself, which waits to be collected before the others
 *   steps_queue    embed -> layers -> head -> sample -> what the next step begins with; the tokens are on their way to
 *                  the host
 *   steps_collect  the tokens of the oldest step that was not collected
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
	int32_t token;             /* its newest, not fed yet; -1: it has none, and its first is sampled of */
	int32_t prompt;            /* that row of steps_begin's `first` */
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
	struct sampled *sampled;     /* [POSTS + 1, slots], by steps in turns; last the first tokens */
	uint64_t post[POSTS], first_post;
	int32_t room;               /* slots that these have memory for */
	int64_t rows;               /* slots that a step of this session may have at most */
	int32_t firsts;             /* responses, the last ones, whose first tokens were not collected yet */
	uint64_t queued, collected; /* steps since steps_begin */
	uint64_t told;              /* the step at which attention was last told of the segments */
};

void steps_init(struct steps *s, struct session *session);
void steps_free(struct steps *s);
/* All steps must have been collected, or are given up. n >= 1. Responses without a token come last; first[prompts, vocab]:
 * backend memory, the logits of their prompts' last rows, read before what is queued next; TENSOR_NONE if there are none. */
void steps_begin(struct steps *s, const struct step_rules *rules, const struct step_response *responses, int32_t n,
                 struct tensor first);
/* At most POSTS may be queued and not collected. run's arena is not used. 1: the tick says to give up. */
int steps_queue(struct steps *s, const struct run *run);
/* out[n], waits for that step alone. First tokens: token -1 for the responses that had one. */
void steps_collect(struct steps *s, struct sampled *out);
/* Steps that were not collected never will be. */
static inline void steps_drop(struct steps *s)
{
	s->collected = s->queued;
	s->firsts = 0;
}
static inline int32_t steps_waiting(const struct steps *s)
{
	return (int32_t)(s->queued - s->collected) + (s->firsts > 0);
}
/* Backend memory of steps of up to n responses at positions below `positions`: for the memory plan. */
int64_t steps_bytes(const struct backend *b, const struct model_config *c, int64_t n, int64_t positions);

#endif
