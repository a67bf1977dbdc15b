/* Packs groups into one batch, runs the pass, turns log-probabilities into gradients, steps. See learner.h. */
#include "learner/learner.h"

#include "backend/ops.h"
#include "base/clock.h"
#include "model/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *zeroed(struct backend *b, int64_t n)
{
	float *p = op_alloc(b, (size_t)(n ? n : 1) * sizeof *p); /* more learners than parts: some have no slice */
	op_zero(b, p, (size_t)n * sizeof *p);
	return p;
}

/* Which of the weights are trainable, and which of these learner `place` of `learners` steps. */
static void find_ranges(struct learner *l, const struct model *m, int place, int learners)
{
	l->first = l->vision ? 0 : m->params.vision_total;
	l->count = m->params.total - l->first;
	l->sharded = l->options->shard && learners > 1;
	const int64_t from = l->sharded ? slice_start(l->count, learners, place) : 0,
	              to = l->sharded ? slice_start(l->count, learners, place + 1) : l->count;
	l->own_first = l->first + from;
	l->own_count = to - from;
}

void learner_init(struct learner *l, struct model *m, const struct learner_options *o, enum vision_mode vision, int place,
                  int learners)
{
	*l = (struct learner){.model = m, .options = o, .vision = vision == VISION_FULL};
	find_ranges(l, m, place, learners);
	l->gradient = zeroed(m->backend, m->params.total);
	l->exp_avg = zeroed(m->backend, l->own_count);
	l->exp_avg_sq = zeroed(m->backend, l->own_count);
	l->squares = op_alloc(m->backend, SLICE_PARTS * sizeof *l->squares);
	l->ranges = favor_malloc((size_t)m->params.count * sizeof *l->ranges);
	weights_bind(&l->grad, &m->config, l->gradient);
	run_arena_init(&l->arena, m->backend);
}

static void drop_reference(struct learner *l)
{
	if (!l->reference)
		return;
	weights_unbind(&l->reference->w);
	op_release(l->model->backend, l->reference->block);
	free(l->reference);
	l->reference = NULL;
}

void learner_free(struct learner *l)
{
	drop_reference(l);
	if (l->lent)
		op_lend(l->model->backend, NULL, 0);
	op_release(l->model->backend, l->gradient);
	op_release(l->model->backend, l->exp_avg);
	op_release(l->model->backend, l->exp_avg_sq);
	op_release(l->model->backend, l->squares);
	if (l->sum)
		op_release(l->model->backend, l->sum);
	free(l->ranges);
	weights_unbind(&l->grad);
	arena_free(&l->arena);
}

void learner_set_reference(struct learner *l)
{
	struct model *m = l->model;
	const int64_t n = m->params.total;
	drop_reference(l);
	/* shares config and parameter list with the model; only the block is its own */
	struct model *reference = favor_malloc(sizeof *reference);
	*reference = *m;
	reference->features = NULL;
	reference->block = op_alloc(m->backend, (size_t)n * sizeof(float));
	op_cast(m->backend, tensor_of(reference->block, 1, n), tensor_of(m->block, 1, n));
	weights_bind(&reference->w, &reference->config, reference->block);
	l->reference = reference;
}

void learner_share_features(struct learner *l)
{
	enum { PIECE = 1 << 20 }; /* elements; of towers that may be large the host sees a piece at a time */
	const struct model *m = l->model;
	if (!l->reference)
		return;
	float *pieces = favor_malloc(2 * PIECE * sizeof *pieces);
	int same = 1;
	for (int64_t at = 0, n; same && at < m->params.vision_total; at += n) {
		n = m->params.vision_total - at < PIECE ? m->params.vision_total - at : PIECE;
		op_download(m->backend, pieces, m->block + at, (size_t)n * sizeof *pieces);
		op_download(m->backend, pieces + PIECE, l->reference->block + at, (size_t)n * sizeof *pieces);
		same = !memcmp(pieces, pieces + PIECE, (size_t)n * sizeof *pieces);
	}
	free(pieces);
	l->reference->features = same ? m->features : NULL;
}

void learner_keep_sum(struct learner *l)
{
	l->sum = zeroed(l->model->backend, l->model->params.total);
}

void learner_lend(struct learner *l)
{
	l->lends = l->lent = 1;
	op_lend(l->model->backend, l->gradient, (size_t)l->model->params.total * sizeof(float));
}

void learner_gradient_ready(struct learner *l)
{
	if (!l->lent)
		return;
	l->lent = 0;
	op_lend(l->model->backend, NULL, 0);
	learner_zero_gradient(l);
}

void learner_zero_gradient(struct learner *l)
{
	if (l->lent) /* it will be, when it is taken back */
		return;
	op_zero(l->model->backend, l->gradient + l->first, (size_t)l->count * sizeof(float));
}

void learner_zero(struct learner *l)
{
	learner_zero_gradient(l);
	if (l->sum)
		op_zero(l->model->backend, l->sum + l->first, (size_t)l->count * sizeof(float));
	l->forward_seconds = l->backward_seconds = 0;
}

/* The prompt's rows and images into the batch. */
static int add_prompt(struct batch *b, const struct prompt *p, struct prefix *prefix, struct favor_error *e)
{
	return batch_add_prompt(b, p->ids.ids, p->ids.count, p->inputs, p->image_count, prefix, e);
}

/* dL/dlogp of every target of the groups, in packing order. */
static void group_losses(int n, struct group *const *groups, const float *const *advantages, int mask_truncated,
                         const struct loss_step *step, const float *logp, const float *ref, const float *entropy,
                         float *g, struct loss_sums *sums)
{
	int64_t at = 0;
	for (int i = 0; i < n; i++) {
		const struct group *q = groups[i];
		for (int32_t k = 0; k < q->responses; k++) {
			const int32_t from = q->start[k], tokens = q->start[k + 1] - from;
			const int mask = !(mask_truncated && q->finish[k] == FINISH_LENGTH);
			loss_sequence(step, tokens, logp + at, q->logp + from, ref ? ref + at : NULL, entropy + at,
			              advantages[i][k], mask, g + at, sums);
			at += tokens;
		}
	}
}

int learner_groups(struct learner *l, int n, struct group *const *groups, const struct prompt *prompts,
                   const float *const *advantages, int mask_truncated, const struct loss_step *step,
                   struct loss_sums *sums, struct favor_error *e)
{
	int result = -1;
	const struct run run = {l->model->backend, &l->arena, l->tick, l->tick_arg};
	struct arena_mark mark = arena_mark(&l->arena);
	struct batch b;
	struct pass pass = {0};
	float *values = NULL;
	batch_init(&b, &l->model->config);
	for (int i = 0; i < n; i++) {
		struct prefix prefix;
		if (add_prompt(&b, &prompts[i], &prefix, e))
			goto done;
		for (int32_t k = 0; k < groups[i]->responses; k++)
			if (batch_add_response(&b, &prefix, groups[i]->token_ids + groups[i]->start[k],
			                       groups[i]->start[k + 1] - groups[i]->start[k], e))
				goto done;
	}
	values = favor_malloc((size_t)b.targets * 4 * sizeof *values);
	float *logp = values, *entropy = logp + b.targets, *g = entropy + b.targets, *ref = NULL;
	const float temperature = groups[0]->temperature;
	double begin = clock_seconds();
	if (l->reference) {
		ref = g + b.targets;
		result = pass_forward(&pass, &run, l->reference, &b, temperature, 0, 0, 0, ref, NULL);
		if (result)
			goto done;
		pass_end(&pass);
		arena_reset(&l->arena, mark);
	}
	result = pass_forward(&pass, &run, l->model, &b, temperature, 1, l->options->recompute, l->vision, logp, entropy);
	if (result)
		goto done;
	double middle = clock_seconds();
	group_losses(n, groups, advantages, mask_truncated, step, logp, ref, entropy, g, sums);
	learner_gradient_ready(l);
	pass.ready = l->ready;
	pass.ready_arg = l->ready_arg;
	result = pass_backward(&pass, g, &l->grad);
	op_sync(l->model->backend);
	l->forward_seconds += middle - begin;
	l->backward_seconds += clock_seconds() - middle;
done:
	pass_end(&pass);
	free(values);
	batch_free(&b);
	arena_reset(&l->arena, mark);
	return result;
}

int learner_examples(struct learner *l, int n, const struct example *examples, int64_t step_tokens,
                     struct loss_sums *sums, struct favor_error *e)
{
	int result = -1;
	const struct run run = {l->model->backend, &l->arena, l->tick, l->tick_arg};
	struct arena_mark mark = arena_mark(&l->arena);
	struct batch b;
	struct pass pass = {0};
	float *values = NULL;
	batch_init(&b, &l->model->config);
	for (int i = 0; i < n; i++) {
		struct prefix prefix;
		if (add_prompt(&b, examples[i].prompt, &prefix, e) ||
		    batch_add_response(&b, &prefix, examples[i].target->ids, examples[i].target->count, e))
			goto done;
	}
	values = favor_malloc((size_t)b.targets * 3 * sizeof *values);
	float *logp = values, *entropy = logp + b.targets, *g = entropy + b.targets;
	double begin = clock_seconds();
	result = pass_forward(&pass, &run, l->model, &b, 1.0f, 1, l->options->recompute, l->vision, logp, entropy);
	if (result)
		goto done;
	double middle = clock_seconds();
	for (int32_t i = 0; i < b.targets; i++) { /* L = -sum_t logp_t / tokens of the step */
		g[i] = (float)(-1.0 / (double)step_tokens);
		sums->loss -= (double)logp[i] / (double)step_tokens;
		sums->entropy += (double)entropy[i];
	}
	sums->tokens += b.targets;
	sums->sequences += n;
	learner_gradient_ready(l);
	pass.ready = l->ready;
	pass.ready_arg = l->ready_arg;
	result = pass_backward(&pass, g, &l->grad);
	op_sync(l->model->backend);
	l->forward_seconds += middle - begin;
	l->backward_seconds += clock_seconds() - middle;
done:
	pass_end(&pass);
	free(values);
	batch_free(&b);
	arena_reset(&l->arena, mark);
	return result;
}

static const float *summed_gradient(const struct learner *l)
{
	return l->sum ? l->sum : l->gradient;
}

void learner_squares(const struct learner *l, double squares[SLICE_PARTS])
{
	struct backend *b = l->model->backend;
	const int64_t own_end = l->own_first + l->own_count;
	int64_t bounds[SLICE_PARTS + 1];
	int first = 0, end = 0; /* the parts that this learner steps: a slice has whole ones */
	for (int i = 0; i <= SLICE_PARTS; i++) {
		bounds[i] = l->first + slice_part(l->count, i);
		first += bounds[i] < l->own_first;
		end = bounds[i] <= own_end ? i : end;
	}
	op_zero(b, l->squares, SLICE_PARTS * sizeof *l->squares);
	op_sum_squares(b, l->squares + first, summed_gradient(l), bounds + first, end - first);
	op_download(b, squares, l->squares, SLICE_PARTS * sizeof *l->squares);
}

/* This learner's part into l->ranges, counted from its first; neighbours that decay alike are one range. Returns how
 * many. */
static int cut_ranges(struct learner *l)
{
	const struct param_list *p = &l->model->params;
	const int64_t end = l->own_first + l->own_count;
	int count = 0;
	for (int i = 0; i < p->count;) {
		int64_t from = p->params[i].offset, to = from;
		const int decay = p->params[i].decay;
		for (; i < p->count && p->params[i].decay == decay; i++)
			to += p->params[i].count;
		from = from < l->own_first ? l->own_first : from;
		to = to < end ? to : end;
		if (to > from)
			l->ranges[count++] =
				(struct adamw_range){from - l->own_first, to - from, decay ? l->options->weight_decay : 0};
	}
	return count;
}

double learner_step(struct learner *l, float lr, const double squares[SLICE_PARTS])
{
	const struct learner_options *o = l->options;
	struct backend *b = l->model->backend;
	const struct adamw how = {.lr = lr,
	                          .beta1 = o->adam_beta1,
	                          .beta2 = o->adam_beta2,
	                          .eps = o->adam_eps,
	                          .max_norm = o->max_grad_norm,
	                          .step = l->step + 1};
	double sum = 0;
	for (int i = 0; i < SLICE_PARTS; i++)
		sum += squares[i];
	if (isfinite(sum)) {
		op_upload(b, l->squares, &sum, sizeof sum);
		op_adamw(b, l->model->block + l->own_first, summed_gradient(l) + l->own_first, l->exp_avg, l->exp_avg_sq,
		         l->ranges, cut_ranges(l), l->squares, &how);
		if (!l->sharded)
			model_changed(l->model);
		l->step++;
		l->model->version++;
	}
	if (l->lends)
		learner_lend(l);
	return sqrt(sum);
}

int64_t learner_fixed_bytes(const struct model *m, const struct learner_options *o, enum vision_mode vision, int place,
                            int learners, int keeps_sum)
{
	struct learner l = {.options = o, .vision = vision == VISION_FULL};
	find_ranges(&l, m, place, learners);
	return (int64_t)sizeof(float) * (m->params.total * (1 + (o->beta > 0) + (keeps_sum != 0)) + 2 * l.own_count);
}
