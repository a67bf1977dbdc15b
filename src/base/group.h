/* The group: one prompt (image + text) with its G sampled responses. It is the unit that rollout makes, reward scores,
 * learner learns from; dispatch, digest and checkpoint count it. The image itself does not travel: `record` names it.
 *
 *   token_ids:            [ response 0 | response 1 | ... | response G-1 ]     response i = [start[i], start[i + 1])
 *   logp, sampling_logp:  one float per token, in the same order */
#ifndef FAVOR_BASE_GROUP_H
#define FAVOR_BASE_GROUP_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* a stop token was sampled (it is the last token) | max_tokens reached */
enum finish { FINISH_STOP = 0, FINISH_LENGTH = 1 };

enum { GROUP_MAX_REWARDS = 8 };

struct group {
	uint64_t index;          /* sample id: position in the run's endless order of prompts; never reused */
	int64_t step;            /* optimiser step that it is for */
	uint32_t record;         /* row in the data set */
	uint64_t policy_version; /* version of the weights that sampled it */
	float temperature;       /* of the sampling; the learner's log-probabilities use the same */
	int32_t prompt_tokens;   /* length of the prompt, image tokens included */
	int32_t responses;       /* G */
	int32_t *start;          /* [G + 1] */
	int32_t *token_ids;      /* [start[G]], the stop token included */
	float *logp;             /* [start[G]], log softmax(logits / temperature) of the token */
	float *sampling_logp;    /* [start[G]], under the distribution really drawn from (top-k, top-p, min-p applied) */
	float *entropy;          /* [start[G]], of softmax(logits / temperature), in nats */
	uint8_t *finish;         /* [G], enum finish */
	char **text; /* [G], decoded without the stop token; UTF-8 (invalid bytes and NULs as U+FFFD); NUL-terminated */
	int32_t reward_count;   /* 0 until scored */
	float *rewards;         /* [reward_count, G], unweighted, by reward */
	float *reward;          /* [G], weighted sum */
	uint8_t *answered;      /* [G]: 0 = no answer could be extracted */
	char **answer;          /* [G]: the extracted answer, normalised; "" if none */
	double rollout_seconds; /* time that its making took, for the metrics; not part of the digest */
	int32_t rollout_rank;   /* who made it; not part of the digest */
};

/* All arrays allocated (zeroed) for G responses and `tokens` response tokens in sum. text/answer entries start NULL. */
struct group *group_new(int32_t responses, int32_t tokens);
void group_destroy(struct group *g); /* NULL is allowed */
/* Allocates `rewards` for `count` rewards (rewards, reward, answered, answer are there from then on). */
void group_set_rewards(struct group *g, int32_t count);

/* Wire format: one flat little-endian buffer, the same on all ranks. pack: the caller owns *data (free). unpack checks
 * every length against n before it allocates; -1 with a message on a malformed buffer. */
void group_pack(const struct group *g, void **data, size_t *n);
struct group *group_unpack(const void *data, size_t n, struct favor_error *e); /* NULL on error */

/* Hash of index, record, policy version, tokens and the bits of logp and sampling_logp (rewards too once scored).
 * Digests of many groups are added modulo 2^64, so the sum does not depend on order or ranks. */
uint64_t group_digest(const struct group *g);

#endif
