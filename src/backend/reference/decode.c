/* Decoding step by step where memory is the host's: an op has run when it returns, so nothing is recorded and what is
 * posted has come. The CPU backend has these too. */
#include "backend/reference/reference.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

uint64_t ref_post(struct backend *b, void *to, const void *from, size_t bytes)
{
	(void)b;
	memcpy(to, from, bytes);
	return 0;
}

void ref_collect(struct backend *b, uint64_t number)
{
	(void)b, (void)number;
}

enum replay ref_replay(struct backend *b, const void *key, size_t bytes)
{
	(void)b, (void)key, (void)bytes;
	return REPLAY_RUN;
}

void ref_recorded(struct backend *b)
{
	(void)b;
}

static int is_stop(const struct slots *s, int32_t token)
{
	for (int32_t i = 0; i < s->stop_count; i++)
		if (s->stop[i] == token)
			return 1;
	return 0;
}

void ref_advance(struct backend *b, const struct slots *s, struct tensor logits, const struct sampling *how)
{
	double *u = favor_malloc((size_t)s->count * sizeof *u);
	for (int32_t i = 0; i < s->count; i++)
		u[i] = s->left[i] > 0
		           ? rng_uniform(s->seed, (enum rng_domain)s->domain, s->index[i], s->response[i], s->drawn[i])
		           : 0;
	b->ops.sample(b, s->sampled, logits, u, how);
	for (int32_t i = 0; i < s->count; i++) {
		if (s->left[i] <= 0) {
			s->sampled[i].token = -1;
		} else {
			s->drawn[i]++;
			s->left[i] = is_stop(s, s->sampled[i].token) ? 0 : s->left[i] - 1;
		}
		if (s->left[i] > 0) {
			s->token[i] = s->sampled[i].token;
			s->row[i]++;
			s->position[i]++;
			s->segments[i].kv_len++;
		} else {
			s->token[i] = s->row[i] = -1;
		}
	}
	free(u);
}
