/* The learner on the tiny golden model: its gradient against finite differences of its loss, and what must not change
 * it: how the step is cut into micro-batches, recomputation, a reference that is the model itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../tiny.h"
#include "backend/ops.h"
#include "learner/learner.h"

#include <math.h>

enum { GROUPS = TINY_PROMPTS, G = 3 };

/* A step's worth of groups, with advantages. The CPU backend's memory is the host's, so weights and gradients are read
 * in place. */
struct fixture {
	struct tiny tiny;
	struct learner_options options;
	struct learner learner;
	struct group *groups[GROUPS];
	float values[GROUPS][G];
	const float *advantages[GROUPS];
	struct loss_step step;
};

static void roll(struct fixture *f)
{
	static const int32_t counts[GROUPS] = {G, G, G, G};
	struct rollout r;
	rollout_init(&r, f->tiny.model, f->tiny.tokenizer);
	r.max_tokens = 9;
	r.stop[r.stop_count++] = 72; /* some end early */
	tiny_roll(&f->tiny, &r, 0, GROUPS, counts, f->groups);
	rollout_free(&r);
	f->step.tokens = 0;
	for (int i = 0; i < GROUPS; i++)
		f->step.tokens += f->groups[i]->start[G];
}

/* As learner `place` of `learners`, sharded if there are several. */
static void fixture_open_as(struct fixture *f, enum vision_mode vision, int place, int learners)
{
	static const float values[GROUPS][G] = {
		{1.1f, -0.4f, -0.7f}, {-0.5f, 1.2f, -0.7f}, {0.2f, 0.6f, -0.8f}, {-1, 1, 0}};
	memset(f, 0, sizeof *f);
	tiny_open(&f->tiny, backend_cpu_new(2));
	f->options = (struct learner_options){.lr = 1e-3f, .adam_beta1 = 0.9f, .adam_beta2 = 0.999f, .adam_eps = 1e-8f};
	f->options.shard = learners > 1;
	learner_init(&f->learner, f->tiny.model, &f->options, vision, place, learners);
	f->step = (struct loss_step){
		.type = LOSS_GRPO, .clip_low = 0.2f, .clip_high = 0.2f, .sequences = GROUPS * G, .max_tokens = 9};
	roll(f);
	for (int i = 0; i < GROUPS; i++) {
		memcpy(f->values[i], values[i], sizeof f->values[i]);
		f->advantages[i] = f->values[i];
	}
}

static void fixture_open(struct fixture *f, enum vision_mode vision)
{
	fixture_open_as(f, vision, 0, 1);
}

static double step(struct learner *l, float lr)
{
	double squares[SLICE_PARTS];
	learner_squares(l, squares);
	return learner_step(l, lr, squares);
}

static void fixture_close(struct fixture *f)
{
	for (int i = 0; i < GROUPS; i++)
		group_destroy(f->groups[i]);
	learner_free(&f->learner);
	tiny_close(&f->tiny);
}

/* Gradient of the step into learner.gradient, micro groups at a time. */
static struct loss_sums gradient(struct fixture *f, int micro)
{
	struct loss_sums sums = {0};
	struct favor_error e = {""};
	learner_zero(&f->learner);
	for (int at = 0; at < GROUPS; at += micro) {
		const int n = GROUPS - at < micro ? GROUPS - at : micro;
		if (learner_groups(&f->learner, n, f->groups + at, f->tiny.prompts + at, f->advantages + at,
		                   f->options.mask_truncated, &f->step, &sums, &e))
			fail_msg("%s", e.message);
	}
	return sums;
}

static float *copy(const float *x, int64_t n)
{
	float *y = favor_malloc((size_t)n * sizeof *y);
	memcpy(y, x, (size_t)n * sizeof *y);
	return y;
}

/* max |a - b| / max |b| */
static double relative(const float *a, const float *b, int64_t n)
{
	double difference = 0, size = 0;
	for (int64_t i = 0; i < n; i++) {
		difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
		size = fmax(size, fabs((double)b[i]));
	}
	return difference / size;
}

/* Moves the weights away from a reference, and the recorded log-probabilities so that ratios are 1, e^0.4 and e^-0.4:
 * clipping and the KL term are at work, and no ratio stands near the corners at 0.8 and 1.2. */
static void off_policy(struct fixture *f)
{
	struct model *m = f->tiny.model;
	f->step.beta = f->options.beta = 0.3f;
	learner_set_reference(&f->learner);
	for (int64_t i = 0; i < m->params.total; i++)
		m->block[i] *= 1 + 0.02f * sinf((float)i);
	model_changed(m);
	for (int i = 0; i < GROUPS; i++)
		group_destroy(f->groups[i]);
	roll(f);
	for (int i = 0; i < GROUPS; i++)
		for (int32_t k = 0; k < f->groups[i]->start[G]; k++)
			f->groups[i]->logp[k] += 0.4f * (float)((i + k) % 3 - 1);
}

static void test_finite_differences(void **state)
{
	(void)state;
	static const char *const names[] = {"visual.patch_embed.proj.weight",
	                                    "visual.blocks.0.norm1.bias",
	                                    "visual.blocks.1.attn.qkv.weight",
	                                    "visual.blocks.1.mlp.fc2.bias",
	                                    "visual.merger.mlp.0.weight",
	                                    "visual.merger.mlp.2.bias",
	                                    "model.embed_tokens.weight",
	                                    "model.layers.0.self_attn.q_proj.weight",
	                                    "model.layers.0.self_attn.v_proj.bias",
	                                    "model.layers.1.self_attn.o_proj.weight",
	                                    "model.layers.1.mlp.gate_proj.weight",
	                                    "model.layers.1.mlp.down_proj.weight",
	                                    "model.layers.1.input_layernorm.weight",
	                                    "model.norm.weight"};
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	off_policy(&f);
	struct model *m = f.tiny.model;
	struct loss_sums sums = gradient(&f, GROUPS);
	assert_true(sums.clip_low > 0 && sums.clip_high > 0 && sums.kl > 0.01);
	float *g = copy(f.learner.gradient, m->params.total);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const struct param *p = NULL;
		for (int k = 0; k < m->params.count; k++)
			if (!strcmp(m->params.params[k].name, names[i]))
				p = &m->params.params[k];
		assert_non_null(p);
		/* along the tensor's own gradient, where the loss moves most: dL/dh = |g| */
		float *w = copy(m->block + p->offset, p->count);
		double norm = 0;
		for (int64_t k = 0; k < p->count; k++)
			norm += (double)g[p->offset + k] * (double)g[p->offset + k];
		norm = sqrt(norm);
		assert_true(norm > 1e-4);
		/* float32's noise in the loss is about 1e-6: a step that moves the loss by 5e-4 to either side */
		const double h = fmin(5e-4 / norm, 0.01);
		double loss[2];
		for (int side = 0; side < 2; side++) {
			for (int64_t k = 0; k < p->count; k++)
				m->block[p->offset + k] = (float)((double)w[k] + (side ? -h : h) * (double)g[p->offset + k] / norm);
			model_changed(m);
			loss[side] = gradient(&f, GROUPS).loss;
		}
		memcpy(m->block + p->offset, w, (size_t)p->count * sizeof *w);
		model_changed(m);
		free(w);
		const double slope = (loss[0] - loss[1]) / (2 * h);
		if (!(fabs(slope - norm) < 0.005 * norm))
			fail_msg("%s: the loss rises by %.6g, its gradient says %.6g", names[i], slope, norm);
	}
	free(g);
	fixture_close(&f);
}

/* Invariant 3 inside a rank. */
static void test_micro_batches(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	off_policy(&f);
	const int64_t total = f.tiny.model->params.total;
	struct loss_sums want = gradient(&f, GROUPS);
	float *whole = copy(f.learner.gradient, total);
	for (int micro = 1; micro < GROUPS; micro++) {
		struct loss_sums sums = gradient(&f, micro);
		double r = relative(f.learner.gradient, whole, total);
		print_message("micro-batches of %d: gradient differs by %.2g relative\n", micro, r);
		assert_true(r < 1e-6);
		/* the same float32 values, summed in double */
		assert_true(fabs(sums.loss - want.loss) <= 1e-12 * fabs(want.loss));
		assert_true(fabs(sums.kl - want.kl) <= 1e-12 * want.kl);
		assert_true(sums.tokens == want.tokens && sums.sequences == want.sequences && sums.ratio_max == want.ratio_max);
	}
	free(whole);
	fixture_close(&f);
}

static void roll_anew(struct fixture *f)
{
	for (int i = 0; i < GROUPS; i++)
		group_destroy(f->groups[i]);
	roll(f);
}

/* Two steps; the weights. */
static float *stepped(int lends, int recompute)
{
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	f.options.recompute = recompute;
	if (lends)
		learner_lend(&f.learner);
	for (int i = 0; i < 2; i++) {
		roll_anew(&f);
		assert_int_equal(f.learner.lent, lends);
		gradient(&f, GROUPS);
		assert_false(f.learner.lent);
		step(&f.learner, 1e-3f);
	}
	/* no group of this learner's in the step: its gradient is 0, not what lay in its memory */
	roll_anew(&f);
	learner_zero(&f.learner);
	learner_gradient_ready(&f.learner);
	for (int64_t i = 0; i < f.learner.count; i++)
		assert_true(f.learner.gradient[f.learner.first + i] == 0);
	float *w = copy(f.tiny.model->block, f.tiny.model->params.total);
	fixture_close(&f);
	return w;
}

/* The same two steps by two learners that keep a half of the moments each, and give each other the weights that they have
 * stepped. Each has the whole gradient, as if it had been summed. */
static float *stepped_sharded(int lends)
{
	struct fixture f[2];
	for (int i = 0; i < 2; i++) {
		fixture_open_as(&f[i], VISION_FULL, i, 2);
		if (lends)
			learner_lend(&f[i].learner);
	}
	for (int k = 0; k < 2; k++) {
		double squares[SLICE_PARTS] = {0}, mine[SLICE_PARTS];
		for (int i = 0; i < 2; i++) {
			roll_anew(&f[i]);
			assert_int_equal(f[i].learner.lent, lends);
			gradient(&f[i], GROUPS);
			learner_squares(&f[i].learner, mine);
			for (int p = 0; p < SLICE_PARTS; p++)
				squares[p] += mine[p];
		}
		for (int i = 0; i < 2; i++)
			learner_step(&f[i].learner, 1e-3f, squares);
		for (int i = 0; i < 2; i++) {
			const struct learner *other = &f[1 - i].learner;
			memcpy(f[i].tiny.model->block + other->own_first, other->model->block + other->own_first,
			       (size_t)other->own_count * sizeof(float));
			model_changed(f[i].tiny.model);
		}
	}
	const int64_t total = f[0].tiny.model->params.total;
	assert_memory_equal(f[0].tiny.model->block, f[1].tiny.model->block, (size_t)total * sizeof(float));
	float *w = copy(f[0].tiny.model->block, total);
	fixture_close(&f[0]);
	fixture_close(&f[1]);
	return w;
}

/* Lent or not, with layers made again while the memory is taken back, on one learner or sharded over two: the same bits. */
static void test_lend(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const size_t bytes = (size_t)f.tiny.model->params.total * sizeof(float);
	float *kept = stepped(0, 0);
	assert_memory_not_equal(kept, f.tiny.model->block, bytes);
	float *const others[] = {stepped(1, 0), stepped(1, 1), stepped_sharded(0), stepped_sharded(1)};
	for (int i = 0; i < 4; i++) {
		assert_memory_equal(kept, others[i], bytes);
		free(others[i]);
	}
	fixture_close(&f);
	free(kept);
}

static void test_recompute(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	off_policy(&f);
	const int64_t total = f.tiny.model->params.total;
	struct loss_sums want = gradient(&f, 2);
	float *kept = copy(f.learner.gradient, total);
	f.options.recompute = 1;
	struct loss_sums sums = gradient(&f, 2);
	assert_memory_equal(kept, f.learner.gradient, (size_t)total * sizeof *kept);
	assert_memory_equal(&sums, &want, sizeof sums);
	free(kept);
	fixture_close(&f);
}

/* A frozen tower: no gradient, no moments, no step, no decay there; elsewhere the same gradient. */
static void test_frozen(void **state)
{
	(void)state;
	struct fixture full, frozen;
	fixture_open(&full, VISION_FULL);
	fixture_open(&frozen, VISION_FROZEN);
	const struct param_list *p = &frozen.tiny.model->params;
	const int64_t vision = p->vision_total, rest = p->total - vision;
	gradient(&full, 2);
	gradient(&frozen, 2);
	assert_int_equal(frozen.learner.first, vision);
	assert_int_equal(frozen.learner.count, rest);
	assert_memory_equal(full.learner.gradient + vision, frozen.learner.gradient + vision, (size_t)rest * sizeof(float));
	float *before = copy(frozen.tiny.model->block, p->total);
	frozen.options.weight_decay = 0.1f;
	for (int i = 0; i < 3; i++)
		assert_true(step(&frozen.learner, 1e-2f) > 0);
	for (int64_t i = 0; i < vision; i++)
		assert_true(frozen.learner.gradient[i] == 0);
	assert_true(frozen.learner.own_first == vision && frozen.learner.own_count == rest); /* no moments for the tower */
	assert_memory_equal(before, frozen.tiny.model->block, (size_t)vision * sizeof(float));
	assert_true(relative(frozen.tiny.model->block + vision, before + vision, rest) > 1e-3);
	/* the whole model's norm counts the tower too */
	double squares_frozen;
	op_sum_squares(frozen.tiny.backend, &squares_frozen, frozen.learner.gradient, (const int64_t[]){vision, p->total}, 1);
	assert_true(step(&full.learner, 0) > sqrt(squares_frozen));
	free(before);
	fixture_close(&full);
	fixture_close(&frozen);
}

/* While the reference is the model, the KL term is exactly nothing; and one forward makes every ratio exactly 1
 * (invariant 5). */
static void test_reference(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const int64_t total = f.tiny.model->params.total;
	struct loss_sums plain = gradient(&f, 2);
	float *without = copy(f.learner.gradient, total);
	assert_null(f.learner.reference);
	assert_true(plain.kl == 0 && plain.difference_sum == 0 && plain.difference_max == 0 && plain.ratio_max == 1);
	f.step.beta = f.options.beta = 5;
	learner_set_reference(&f.learner);
	struct loss_sums sums = gradient(&f, 2);
	assert_true(sums.kl == 0 && sums.loss == plain.loss);
	assert_memory_equal(without, f.learner.gradient, (size_t)total * sizeof *without);

	/* after a step they differ; the reference stays */
	const struct model *reference = f.learner.reference;
	float *block = copy(reference->block, total);
	assert_true(step(&f.learner, 1e-3f) > 0);
	sums = gradient(&f, 2);
	assert_true(sums.kl > 0);
	assert_memory_equal(block, reference->block, (size_t)total * sizeof *block);
	learner_set_reference(&f.learner); /* a new one is the model as it is now */
	sums = gradient(&f, 2);
	assert_true(sums.kl == 0);
	free(block);
	free(without);
	fixture_close(&f);
}

/* The reference takes the policy's features while both have the same tower; the gradient is the same without any. */
static void test_features(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FROZEN);
	struct model *m = f.tiny.model;
	f.step.beta = f.options.beta = 0.3f;
	learner_set_reference(&f.learner);
	for (int64_t i = m->params.vision_total; i < m->params.total; i++)
		m->block[i] *= 1 + 0.02f * sinf((float)i);
	model_changed(m);
	struct loss_sums want = gradient(&f, 2);
	float *without = copy(f.learner.gradient, m->params.total);
	model_keep_features(m, 1 << 20);
	learner_share_features(&f.learner);
	assert_non_null(m->features);
	assert_true(f.learner.reference->features == m->features);
	for (int i = 0; i < 2; i++) {
		struct loss_sums sums = gradient(&f, 2);
		assert_memory_equal(&sums, &want, sizeof sums);
		assert_memory_equal(without, f.learner.gradient, (size_t)m->params.total * sizeof *without);
		assert_int_equal(feature_cache_count(m->features), 3); /* the prompts' images */
	}
	float *const of_tower[] = {f.learner.reference->block, f.learner.reference->block + m->params.vision_total - 1};
	for (int i = 0; i < 2; i++) {
		const float was = *of_tower[i];
		*of_tower[i] += 1;
		learner_share_features(&f.learner);
		assert_null(f.learner.reference->features);
		*of_tower[i] = was;
		learner_share_features(&f.learner);
		assert_non_null(f.learner.reference->features);
	}
	free(without);
	fixture_close(&f);
}

/* The difference to the rollout's log-probabilities, each token counted once. */
static void test_difference(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	for (int i = 0; i < GROUPS; i++)
		for (int32_t k = 0; k < f.groups[i]->start[G]; k++)
			f.groups[i]->logp[k] -= 0.125f;
	struct loss_sums sums = gradient(&f, 2);
	assert_true(fabs(sums.difference_sum / sums.tokens - 0.125) < 1e-5);
	assert_true(fabs(sums.difference_max - 0.125) < 1e-5);
	fixture_close(&f);
}

/* A masked response moves nothing, whatever its advantage; its sequence still counts. */
static void test_mask(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const int64_t total = f.tiny.model->params.total;
	int cut = 0, ended = 0;
	for (int i = 0; i < GROUPS; i++)
		for (int k = 0; k < G; k++)
			*(f.groups[i]->finish[k] == FINISH_LENGTH ? &cut : &ended) += 1;
	assert_true(cut > 0 && ended > 0);
	f.options.mask_truncated = 1;
	struct loss_sums sums = gradient(&f, 2);
	float *g = copy(f.learner.gradient, total);
	assert_true(sums.sequences == GROUPS * G && sums.tokens < (double)f.step.tokens);
	for (int i = 0; i < GROUPS; i++)
		for (int k = 0; k < G; k++)
			if (f.groups[i]->finish[k] == FINISH_LENGTH)
				f.values[i][k] *= -100;
	gradient(&f, 2);
	assert_memory_equal(g, f.learner.gradient, (size_t)total * sizeof *g);
	for (int i = 0; i < GROUPS; i++)
		for (int k = 0; k < G; k++)
			f.groups[i]->finish[k] = FINISH_LENGTH;
	gradient(&f, 2);
	for (int64_t i = 0; i < total; i++)
		assert_true(f.learner.gradient[i] == 0);
	free(g);
	fixture_close(&f);
}

/* With A = 1 on policy, dapo's gradient is that of -sum logp / tokens: SFT on the same responses has the same bits. */
static void test_sft(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const int64_t total = f.tiny.model->params.total;
	int64_t tokens = 0;
	struct example examples[GROUPS];
	struct token_ids targets[GROUPS];
	for (int i = 0; i < GROUPS; i++) { /* of each group the first response */
		struct group *g = f.groups[i];
		targets[i] = (struct token_ids){g->token_ids, g->start[1], g->start[1]};
		examples[i] = (struct example){&f.tiny.prompts[i], &targets[i]};
		tokens += g->start[1];
		g->responses = 1;
		f.values[i][0] = 1;
	}
	f.step.type = LOSS_DAPO;
	f.step.tokens = tokens;
	gradient(&f, GROUPS);
	float *g = copy(f.learner.gradient, total);
	struct loss_sums sums = {0};
	struct favor_error e = {""};
	learner_zero(&f.learner);
	assert_int_equal(learner_examples(&f.learner, GROUPS, examples, tokens, &sums, &e), 0);
	assert_memory_equal(g, f.learner.gradient, (size_t)total * sizeof *g);
	double logp = 0;
	for (int i = 0; i < GROUPS; i++)
		for (int32_t k = 0; k < targets[i].count; k++)
			logp += (double)f.groups[i]->logp[k];
	assert_true(fabs(sums.loss + logp / (double)tokens) < 1e-9);
	assert_true(sums.tokens == (double)tokens && sums.sequences == GROUPS);
	for (int i = 0; i < GROUPS; i++)
		f.groups[i]->responses = G; /* as it was made: for its destruction */
	free(g);
	fixture_close(&f);
}

/* Decoupled decay pulls matrices towards 0 and leaves norms and biases alone. */
static void test_decay(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const struct model *m = f.tiny.model;
	float *before = copy(m->block, m->params.total);
	const uint64_t version = m->version;
	f.options.weight_decay = 0.5f;
	learner_zero(&f.learner); /* nothing but decay: w -= lr * decay * w */
	assert_true(step(&f.learner, 0.1f) == 0);
	for (int i = 0; i < m->params.count; i++) {
		const struct param *p = &m->params.params[i];
		assert_int_equal(p->decay, p->ndim > 1);
		for (int64_t k = p->offset; k < p->offset + p->count; k++) {
			const double want = p->ndim > 1 ? 0.95 * (double)before[k] : (double)before[k];
			if (!(fabs((double)m->block[k] - want) <= (p->ndim > 1 ? 2e-7 * fabs(want) : 0)))
				fail_msg("%s: %.9g became %.9g, not %.9g", p->name, (double)before[k], (double)m->block[k], want);
		}
	}
	assert_int_equal(m->version, version + 1);
	assert_int_equal(f.learner.step, 1);
	free(before);
	fixture_close(&f);
}

/* Learners that each keep a slice of the moments step, together and to the bit, as one that keeps all: with decay, with
 * clipping, a frozen tower, numbers of learners that don't divide. */
static void check_sharded(enum vision_mode vision, int learners)
{
	struct fixture whole, one;
	double squares[SLICE_PARTS] = {0}, mine[SLICE_PARTS];
	enum { STEPS = 2 };
	fixture_open(&whole, vision);
	struct model *m = whole.tiny.model;
	const int64_t total = m->params.total;
	whole.options.weight_decay = 0.1f;
	gradient(&whole, 2);
	float *g = copy(whole.learner.gradient, total), *before = copy(m->block, total);
	learner_squares(&whole.learner, squares);
	double norm = 0;
	for (int i = 0; i < SLICE_PARTS; i++)
		norm += squares[i];
	whole.options.max_grad_norm = (float)(sqrt(norm) / 4);
	for (int i = 0; i < STEPS; i++)
		norm = step(&whole.learner, 1e-2f);
	int64_t kept = 0, bytes = 0;
	double seen[SLICE_PARTS] = {0};
	for (int place = 0; place < learners; place++) {
		fixture_open_as(&one, vision, place, learners);
		struct learner *l = &one.learner;
		const int64_t own = l->own_first, n = l->own_count;
		one.options.weight_decay = whole.options.weight_decay;
		one.options.max_grad_norm = whole.options.max_grad_norm;
		assert_int_equal(own, l->first + kept);
		kept += n;
		bytes += learner_fixed_bytes(m, &one.options, vision, place, learners, 0);
		/* of the others' slices nothing is known, and nothing wanted */
		for (int64_t i = 0; i < total; i++)
			l->gradient[i] = i >= own && i < own + n ? g[i] : NAN;
		learner_squares(l, mine);
		for (int i = 0; i < SLICE_PARTS; i++)
			seen[i] += mine[i];
		for (int i = 0; i < STEPS; i++)
			assert_true(learner_step(l, 1e-2f, squares) == norm);
		assert_memory_equal(l->exp_avg, whole.learner.exp_avg + (own - whole.learner.own_first), (size_t)n * sizeof *g);
		assert_memory_equal(l->exp_avg_sq, whole.learner.exp_avg_sq + (own - whole.learner.own_first),
		                    (size_t)n * sizeof *g);
		const float *block = one.tiny.model->block;
		assert_memory_equal(block + own, m->block + own, (size_t)n * sizeof *g);
		assert_memory_equal(block, before, (size_t)own * sizeof *g);
		assert_memory_equal(block + own + n, before + own + n, (size_t)(total - own - n) * sizeof *g);
		fixture_close(&one);
	}
	assert_memory_equal(seen, squares, sizeof seen);
	assert_int_equal(kept, whole.learner.count);
	assert_int_equal(bytes, (int64_t)sizeof(float) * (learners * total + 2 * whole.learner.count));
	assert_true(relative(m->block + whole.learner.first, before + whole.learner.first, whole.learner.count) > 1e-3);
	free(g);
	free(before);
	fixture_close(&whole);
}

static void test_sharded(void **state)
{
	(void)state;
	check_sharded(VISION_FULL, 2);
	check_sharded(VISION_FULL, 7);
	check_sharded(VISION_FROZEN, 3);
	/* more than there are parts: some have nothing to step */
	struct fixture f;
	fixture_open_as(&f, VISION_FROZEN, 0, 1000);
	assert_int_equal(f.learner.own_count, 0);
	gradient(&f, 2);
	assert_true(step(&f.learner, 1e-2f) == 0);
	fixture_close(&f);
}

/* The norm before clipping is returned; clipping scales what AdamW's moments see; a gradient that is no number steps
 * nothing. */
static void test_clipping(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, VISION_FULL);
	const struct model *m = f.tiny.model;
	const int64_t total = m->params.total;
	gradient(&f, 2);
	float *g = copy(f.learner.gradient, total), *before = copy(m->block, total);
	double norm = 0;
	for (int64_t i = 0; i < total; i++)
		norm += (double)g[i] * (double)g[i];
	norm = sqrt(norm);
	const float kept = f.learner.gradient[total / 2];
	f.learner.gradient[total / 2] = NAN;
	assert_true(isnan(step(&f.learner, 0.1f)));
	f.learner.gradient[total / 2] = INFINITY;
	assert_false(isfinite(step(&f.learner, 0.1f)));
	assert_memory_equal(before, m->block, (size_t)total * sizeof *before);
	assert_true(f.learner.step == 0 && m->version == 0);
	f.learner.gradient[total / 2] = kept;
	f.options.max_grad_norm = (float)(norm / 4);
	assert_true(fabs(step(&f.learner, 1e-3f) - norm) < 1e-9 * norm);
	for (int64_t i = 0; i < total; i++) /* m = (1 - beta1) g / 4 */
		assert_true(fabs((double)f.learner.exp_avg[i] - 0.025 * (double)g[i]) <= 1e-5 * fabs((double)g[i]) + 1e-12);
	free(g);
	free(before);
	fixture_close(&f);
}

static void test_refused(void **state)
{
	(void)state;
	struct fixture f;
	struct loss_sums sums = {0};
	struct favor_error e = {""};
	fixture_open(&f, VISION_FULL);
	const int32_t kept = f.groups[1]->token_ids[0];
	f.groups[1]->token_ids[0] = f.tiny.model->config.vocab_size;
	assert_int_equal(learner_groups(&f.learner, 2, f.groups, f.tiny.prompts, f.advantages, 0, &f.step, &sums, &e), -1);
	assert_non_null(strstr(e.message, "vocabulary"));
	f.groups[1]->token_ids[0] = kept;
	gradient(&f, 2); /* and goes on working */
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finite_differences),
		cmocka_unit_test(test_micro_batches),
		cmocka_unit_test(test_lend), cmocka_unit_test(test_recompute), cmocka_unit_test(test_features),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_difference),
		cmocka_unit_test(test_mask),
		cmocka_unit_test(test_sft),
		cmocka_unit_test(test_decay), cmocka_unit_test(test_sharded),
		cmocka_unit_test(test_clipping),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
