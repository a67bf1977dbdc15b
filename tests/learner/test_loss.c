/* Advantages, loss, gradient and loss metrics against TRL's own trainer (tools/golden_loss.py), the gradient against
 * finite differences, and that the loss does not depend on how a step is cut up. */
#include "learner/advantage.h"
#include "learner/loss.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_SEQUENCES = 16, MAX_TOKENS = 128 };

struct golden {
	json_t *root;
	int sequences, group, max_tokens, tokens;
	float clip_low, clip_high;
	int length[MAX_SEQUENCES], truncated[MAX_SEQUENCES], start[MAX_SEQUENCES + 1];
	float reward[MAX_SEQUENCES], logp[MAX_TOKENS], old[MAX_TOKENS], ref[MAX_TOKENS], entropy[MAX_TOKENS];
};

static double number(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);
	assert_true(json_is_number(v));
	return json_number_value(v);
}

static void floats(const json_t *o, const char *key, float *out, size_t n)
{
	json_t *a = json_object_get(o, key);
	assert_int_equal(json_array_size(a), n);
	for (size_t i = 0; i < n; i++)
		out[i] = (float)json_number_value(json_array_get(a, i));
}

static int setup(void **state)
{
	static struct golden q;
	char path[1024];
	snprintf(path, sizeof path, "%s/learner/loss.json", getenv("FAVOR_GOLDEN"));
	json_error_t why;
	q.root = json_load_file(path, 0, &why);
	if (!q.root) {
		fprintf(stderr, "%s:%d: %s\n", path, why.line, why.text);
		return -1;
	}
	json_t *lengths = json_object_get(q.root, "lengths");
	q.sequences = (int)json_array_size(lengths);
	assert_in_range(q.sequences, 1, MAX_SEQUENCES);
	for (int i = 0; i < q.sequences; i++) {
		q.length[i] = (int)json_integer_value(json_array_get(lengths, (size_t)i));
		q.truncated[i] = json_is_true(json_array_get(json_object_get(q.root, "truncated"), (size_t)i));
		q.start[i + 1] = q.start[i] + q.length[i];
	}
	q.tokens = q.start[q.sequences];
	assert_in_range(q.tokens, 1, MAX_TOKENS);
	q.group = (int)number(q.root, "group");
	q.max_tokens = (int)number(q.root, "max_tokens");
	q.clip_low = (float)number(q.root, "clip_low");
	q.clip_high = (float)number(q.root, "clip_high");
	floats(q.root, "reward", q.reward, (size_t)q.sequences);
	floats(q.root, "logp", q.logp, (size_t)q.tokens);
	floats(q.root, "old", q.old, (size_t)q.tokens);
	floats(q.root, "ref", q.ref, (size_t)q.tokens);
	floats(q.root, "entropy", q.entropy, (size_t)q.tokens);
	*state = &q;
	return 0;
}

static int teardown(void **state)
{
	struct golden *q = *state;
	if (q)
		json_decref(q->root);
	return 0;
}

/* One case of the file as the learner would set it up. */
struct setting {
	struct loss_step step;
	int mask_truncated, has_ref;
	float advantage[MAX_SEQUENCES];
	double frac_zero_std;
};

static struct setting setting_of(const struct golden *q, const json_t *c)
{
	struct setting s = {0};
	const char *type = json_string_value(json_object_get(c, "loss_type"));
	s.step.type = !strcmp(type, "grpo") ? LOSS_GRPO : !strcmp(type, "dr_grpo") ? LOSS_DR_GRPO : LOSS_DAPO;
	s.step.clip_low = q->clip_low;
	s.step.clip_high = q->clip_high;
	s.step.beta = (float)number(c, "beta");
	s.has_ref = s.step.beta > 0;
	s.step.sequences = q->sequences;
	s.step.max_tokens = q->max_tokens;
	s.mask_truncated = json_is_true(json_object_get(c, "mask_truncated"));
	for (int i = 0; i < q->sequences; i++)
		if (!s.mask_truncated || !q->truncated[i])
			s.step.tokens += q->length[i];
	const char *scale = json_string_value(json_object_get(c, "scale_rewards"));
	for (int i = 0; i < q->sequences; i += q->group) {
		float std = advantage_group(q->reward + i, q->group, !strcmp(scale, "group") ? SCALE_GROUP : SCALE_NONE,
		                            s.advantage + i);
		s.frac_zero_std += (std == 0) * (double)q->group / q->sequences;
	}
	return s;
}

/* Sequences first, first + stride, ... into sums and g. */
static void add_sequences(const struct golden *q, const struct setting *s, const float *logp, int first, int stride,
                          float *g, struct loss_sums *sums)
{
	for (int i = first; i < q->sequences; i += stride) {
		int at = q->start[i];
		loss_sequence(&s->step, q->length[i], logp + at, q->old + at, s->has_ref ? q->ref + at : NULL, q->entropy + at,
		              s->advantage[i], !(s->mask_truncated && q->truncated[i]), g + at, sums);
	}
}

static void near(double got, double want, double tolerance, const char *what, size_t i)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%s[%zu]: %.12g instead of %.12g", what, i, got, want);
}

static void test_trl(void **state)
{
	const struct golden *q = *state;
	const json_t *cases = json_object_get(q->root, "cases"), *c;
	size_t k;
	assert_int_equal(json_array_size(cases), 24);
	json_array_foreach (cases, k, c) {
		struct setting s = setting_of(q, c);
		float g[MAX_TOKENS];
		struct loss_sums sums = {0};
		add_sequences(q, &s, q->logp, 0, 1, g, &sums);

		near(sums.loss, number(c, "loss"), 1e-7, "loss", k);
		json_t *advantages = json_object_get(c, "advantages"), *gradient = json_object_get(c, "gradient");
		for (int i = 0; i < q->sequences; i++)
			near(s.advantage[i], json_number_value(json_array_get(advantages, (size_t)i)), 1e-6, "advantage",
			     (size_t)i);
		assert_int_equal(json_array_size(gradient), q->tokens);
		for (int i = 0; i < q->tokens; i++)
			near(g[i], json_number_value(json_array_get(gradient, (size_t)i)), 1e-7, "gradient", (size_t)i);

		/* TRL's metrics, composed as docs/METRICS.md says */
		const json_t *m = json_object_get(c, "metrics");
		near(sums.tokens, (double)s.step.tokens, 0, "tokens", k);
		near(sums.entropy / sums.tokens, number(m, "entropy"), 1e-7, "entropy", k);
		near(sums.clip_low / sums.tokens, number(m, "clip_ratio/low_mean"), 1e-7, "clip low", k);
		near(sums.clip_high / sums.tokens, number(m, "clip_ratio/high_mean"), 1e-7, "clip high", k);
		near(sums.clip_region / sums.tokens, number(m, "clip_ratio/region_mean"), 1e-7, "clip region", k);
		assert_true(sums.clip_low > 0 && sums.clip_high > 0);
		if (s.has_ref)
			near(sums.kl / sums.tokens, number(m, "kl"), 1e-7, "kl", k);
		else
			assert_true(sums.kl == 0);
		near(s.frac_zero_std, number(m, "frac_reward_zero_std"), 1e-7, "frac_reward_zero_std", k);
	}
}

static void test_finite_differences(void **state)
{
	const struct golden *q = *state;
	const json_t *c;
	size_t k;
	json_array_foreach (json_object_get(q->root, "cases"), k, c) {
		struct setting s = setting_of(q, c);
		float g[MAX_TOKENS], unused[MAX_TOKENS], moved[MAX_TOKENS];
		struct loss_sums sums = {0};
		add_sequences(q, &s, q->logp, 0, 1, g, &sums);
		memcpy(moved, q->logp, sizeof moved);
		for (int i = 0; i < q->tokens; i++) {
			struct loss_sums up = {0}, down = {0};
			float above = q->logp[i] + 1e-3f, below = q->logp[i] - 1e-3f;
			moved[i] = above;
			add_sequences(q, &s, moved, 0, 1, unused, &up);
			moved[i] = below;
			add_sequences(q, &s, moved, 0, 1, unused, &down);
			moved[i] = q->logp[i];
			/* no token of the file sits within 1e-3 of a kink (the bounds of the clip) */
			near(g[i], (up.loss - down.loss) / ((double)above - (double)below), 2e-7, "gradient", (size_t)i);
		}
	}
}

/* Learners x micro-batches only regroup the sums; gradients are equal to the bit because the normalisers are the whole
 * step's. */
static void test_layout(void **state)
{
	const struct golden *q = *state;
	const json_t *c;
	size_t k;
	json_array_foreach (json_object_get(q->root, "cases"), k, c) {
		struct setting s = setting_of(q, c);
		float whole[MAX_TOKENS], parts[MAX_TOKENS];
		struct loss_sums one = {0};
		add_sequences(q, &s, q->logp, 0, 1, whole, &one);
		for (int learners = 2; learners <= 5; learners++) {
			double loss = 0, sequences = 0;
			for (int r = 0; r < learners; r++) {
				struct loss_sums mine = {0};
				add_sequences(q, &s, q->logp, r, learners, parts, &mine);
				loss += mine.loss;
				sequences += mine.sequences;
			}
			near(loss, one.loss, 1e-15, "loss", k);
			assert_true(sequences == q->sequences);
			assert_memory_equal(whole, parts, sizeof(float) * (size_t)q->tokens);
		}
	}
}

static void test_on_policy(void **state)
{
	(void)state;
	/* old = logp: every ratio is exactly 1, nothing is clipped, the gradient is -A weight, the difference exactly 0 */
	struct loss_step s = {LOSS_DR_GRPO, 0.2f, 0.2f, 0, 4, 0, 8};
	float logp[3] = {-0.1f, -2, -30}, g[3];
	struct loss_sums sums = {0};
	loss_sequence(&s, 3, logp, logp, NULL, NULL, -2, 1, g, &sums);
	for (int i = 0; i < 3; i++)
		assert_true(g[i] == 2.0f / 32);
	assert_true(sums.loss == 6.0 / 32 && sums.policy_loss == sums.loss && sums.clip_region == 0 && sums.ratio_max == 1);
	assert_true(sums.difference_sum == 0 && sums.difference_max == 0 && sums.entropy == 0 && sums.kl == 0);

	/* a masked sequence, and one without tokens: counted as sequences, else nothing */
	struct loss_sums none = {0};
	loss_sequence(&s, 3, logp, logp, logp, logp, 1, 0, g, &none);
	loss_sequence(&s, 0, logp, logp, NULL, NULL, 1, 1, g, &none);
	assert_true(g[0] == 0 && g[1] == 0 && g[2] == 0);
	assert_true(none.sequences == 2 && none.tokens == 0 && none.loss == 0 && none.entropy == 0);

	/* the maxima are kept over sequences; reference = policy: KL and its gradient are exactly 0 */
	float old[3] = {-0.1f, -2.5f, -30};
	s.beta = 0.5f;
	loss_sequence(&s, 3, logp, old, logp, NULL, 0, 1, g, &sums);
	assert_true(sums.kl == 0 && g[0] == 0 && g[1] == 0);
	near(sums.ratio_max, exp(0.5), 1e-7, "ratio_max", 0);
	near(sums.difference_max, 0.5, 1e-7, "difference_max", 0);
}

static void test_advantage_edges(void **state)
{
	(void)state;
	float same[7] = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f}, a[7];
	assert_true(advantage_group(same, 7, SCALE_GROUP, a) == 0); /* exactly: no noise is blown up by 1 / eps */
	for (int i = 0; i < 7; i++)
		assert_true(a[i] == 0);
	assert_true(advantage_group(same, 1, SCALE_GROUP, a) == 0 && a[0] == 0);
	float two[2] = {0, 1};
	float std = advantage_group(two, 2, SCALE_NONE, a);
	assert_true(a[0] == -0.5f && a[1] == 0.5f);
	near(std, sqrt(0.5), 1e-7, "std", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_trl),       cmocka_unit_test(test_finite_differences), cmocka_unit_test(test_layout),
	    cmocka_unit_test(test_on_policy), cmocka_unit_test(test_advantage_edges),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
