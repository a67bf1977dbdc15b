/* Gradients and weights between ranks. MPI reads and writes host memory; where the backend's is another, blocks pass through
 * copies on the host, made once, unless the ranks' devices have a way of their own (teams.c). */
#include "app/exchange.h"
#include "app/trainer.h"

#include "backend/ops.h"

#include <stdlib.h>
#include <string.h>

static int direct(const struct trainer *t)
{
	return t->s.backend->in_host_memory;
}

/* The host's copy of a block like the weights'. */
static float *host_block(struct trainer *t, int which)
{
	if (!t->host_blocks[which])
		t->host_blocks[which] = favor_malloc((size_t)t->s.assets.model->params.total * sizeof(float));
	return t->host_blocks[which];
}

int64_t exchange_bytes(const struct setup *s)
{
	const struct world *w = s->world;
	const struct config *c = &s->config;
	const struct model *m = s->assets.model;
	const int learns = world_plays(w, ROLE_LEARNER), learners = world_role_count(w, ROLE_LEARNER),
	          mpi = c->comm.transport != TRANSPORT_NCCL, ordered = learns && c->comm.reproducible;
	if (!m || s->backend->in_host_memory)
		return 0;
	const int sums = ordered || (mpi && learns && learners > 1),
	          published = mpi && c->method == METHOD_GRPO && learners < world_size(w) && (world_is_leader(w) || !learns);
	return ((sums || published) + ordered) * m->params.total * (int64_t)sizeof(float);
}

void exchange_free(struct trainer *t)
{
	free(t->host_blocks[0]);
	free(t->host_blocks[1]);
}

/* What this learner steps, of the trainable range's copy on the host. */
static void upload_own(struct trainer *t, float *to, const float *host)
{
	const int64_t at = t->learner.own_first - t->learner.first;
	op_upload(t->s.backend, to + at, host + at, (size_t)t->learner.own_count * sizeof *host);
}

void exchange_sum_gradients(struct trainer *t)
{
	struct learner *l = &t->learner;
	struct world *w = t->s.world;
	float *gradient = l->gradient + l->first;
	if (world_role_count(w, ROLE_LEARNER) == 1)
		return;
	if (t->teams.gradients) {
		teams_sum_gradients(&t->teams);
		return;
	}
	float *x = direct(t) ? gradient : host_block(t, 0);
	if (direct(t))
		op_sync(t->s.backend);
	else
		op_download(t->s.backend, x, gradient, (size_t)l->count * sizeof *x);
	if (l->sharded)
		world_sum_slices(w, x, l->count);
	else
		world_sum_gradients(w, x, l->count);
	if (!direct(t))
		upload_own(t, gradient, x);
}

void exchange_zero_sum(struct trainer *t)
{
	if (t->learner.sum && !direct(t))
		memset(host_block(t, 1), 0, (size_t)t->learner.count * sizeof(float));
}

void exchange_add_in_order(struct trainer *t, int first, int count)
{
	struct learner *l = &t->learner;
	float *gradient = l->gradient + l->first, *sum = l->sum + l->first;
	if (!direct(t)) {
		float *host = host_block(t, 0);
		op_download(t->s.backend, host, gradient, (size_t)l->count * sizeof *host);
		gradient = host;
		sum = host_block(t, 1);
	}
	world_add_in_order(t->s.world, sum, gradient, l->count, first, count);
}

void exchange_share_sum(struct trainer *t)
{
	struct learner *l = &t->learner;
	float *sum = direct(t) ? l->sum + l->first : host_block(t, 1);
	if (!l->sharded)
		world_share_slices(t->s.world, sum, l->count);
	if (!direct(t))
		upload_own(t, l->sum + l->first, sum);
}

void exchange_share_weights(struct trainer *t)
{
	struct learner *l = &t->learner;
	float *weights = l->model->block + l->first;
	const int64_t own = l->own_first - l->first;
	if (!l->sharded)
		return;
	if (t->teams.gradients) {
		teams_share_weights(&t->teams);
	} else if (direct(t)) {
		op_sync(t->s.backend);
		world_share_slices(t->s.world, weights, l->count);
	} else {
		float *host = host_block(t, 0);
		op_download(t->s.backend, host + own, weights + own, (size_t)l->own_count * sizeof *host);
		world_share_slices(t->s.world, host, l->count);
		op_upload(t->s.backend, weights, host, (size_t)l->count * sizeof *host);
	}
	model_changed(l->model);
}

void exchange_publish(struct trainer *t, uint64_t *version, int *stop)
{
	struct world *w = t->s.world;
	struct model *m = t->s.assets.model;
	/* weights go to ranks that roll out and don't learn */
	const int travel = !t->teams.weights && world_role_count(w, ROLE_LEARNER) < world_size(w), takes = travel && t->rolls && !t->learns;
	const int copies = m && !direct(t) && travel && (takes || t->leads);
	const size_t bytes = m ? (size_t)m->params.total * sizeof(float) : 0;
	float *weights = copies ? host_block(t, 0) : m ? m->block : NULL;
	if (copies && t->leads && !*stop)
		op_download(t->s.backend, weights, m->block, bytes);
	if (!t->teams.weights)
		world_publish(w, weights, m ? m->params.total : 0, version, stop);
	else if (world_announce(w, m->params.total, version, stop))
		teams_publish(&t->teams, m->block, m->params.total);
	if (*stop || !m || t->learns)
		return;
	if (copies)
		op_upload(t->s.backend, m->block, weights, bytes);
	m->version = *version;
	model_changed(m);
}
