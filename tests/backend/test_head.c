/* The fused head: CPU against reference, finite differences, bits, and the promise that a sampled token's log-
 * probability is the one that the head gives. */
#include "ops_test.h"

struct head {
	struct backend *b;
	struct tensor h, w, dh, dw;
	float *logp, *entropy, *lse, *g;
	int32_t *target;
	float temperature;
};

static struct head head_new(struct backend *b, int64_t T, int64_t V, int64_t K, int64_t pad, float temperature)
{
	struct head d = {.b = b, .temperature = temperature};
	d.h = test_tensor(T, K, pad, 1, 1);
	d.w = test_tensor(V, K, 0, 2, 2);
	d.dh = test_tensor(T, K, pad ? pad + 1 : 0, 3, 1);
	d.dw = test_tensor(V, K, 0, 4, 1);
	d.logp = test_array(T, 5, 1);
	d.entropy = test_array(T, 6, 1);
	d.lse = test_array(T, 7, 1);
	d.g = test_array(T, 8, 1);
	d.target = favor_malloc((size_t)T * sizeof *d.target);
	for (int64_t t = 0; t < T; t++)
		d.target[t] = (int32_t)(t == 0 ? V - 1 : (t * 7919) % V);
	op_weights_changed(b); /* w may lie where another test's w was */
	return d;
}

static void head_free(struct head *d)
{
	void *all[] = {d->h.data, d->w.data, d->dh.data, d->dw.data, d->logp, d->entropy, d->lse, d->g, d->target};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void forward(struct head *d)
{
	op_head_logprob(d->b, d->logp, d->entropy, d->lse, d->h, d->w, d->target, d->temperature);
}

static void backward(struct head *d)
{
	op_head_logprob_backward(d->b, d->dh, d->dw, d->g, d->lse, d->h, d->w, d->target, d->temperature);
}

static void test_against_reference(void **state)
{
	struct test_backends *s = *state;
	static const int64_t shapes[][3] = {{1, 1, 3}, {1, 7, 5}, {5, 100, 16}, {23, 1025, 33}, {3, 5000, 8}};
	for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
		int64_t T = shapes[i / 2][0], V = shapes[i / 2][1], K = shapes[i / 2][2];
		float temperature = i & 1 ? 0.7f : 1.0f;
		struct head a = head_new(s->cpu, T, V, K, 3, temperature), r = head_new(s->reference, T, V, K, 0, temperature);
		forward(&a);
		forward(&r);
		test_close_array("logp", a.logp, r.logp, T, 2e-6);
		test_close_array("entropy", a.entropy, r.entropy, T, 5e-6);
		test_close_array("lse", a.lse, r.lse, T, 1e-6);
		backward(&a);
		backward(&r);
		test_close("dh", a.dh, r.dh, 1e-5);
		test_close("dw", a.dw, r.dw, 1e-5);
		/* a frozen head */
		struct tensor dh = test_copy(a.dh);
		a.dw.data[0] = 5;
		op_head_logprob_backward(s->cpu, a.dh, TENSOR_NONE, a.g, a.lse, a.h, a.w, a.target, temperature);
		test_same_bits("dh without dw", a.dh, dh);
		assert_true(a.dw.data[0] == 5);
		op_head_logprob(s->cpu, a.logp, NULL, a.lse, a.h, a.w, a.target, temperature);
		free(dh.data);
		head_free(&a);
		head_free(&r);
	}
}

/* Equal logits: everything is known exactly. */
static void test_uniform(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	for (int i = 0; i < 2; i++) {
		struct head d = head_new(both[i], 2, 300, 4, 0, 0.5f);
		op_zero(d.b, d.w.data, 300 * 4 * sizeof(float));
		op_weights_changed(d.b);
		forward(&d);
		for (int t = 0; t < 2; t++) {
			assert_true(fabs(d.logp[t] + log(300)) < 1e-6);
			assert_true(fabs(d.entropy[t] - log(300)) < 1e-6);
			assert_true(fabs(d.lse[t] - log(300)) < 1e-6);
		}
		head_free(&d);
	}
}

static double loss(void *context)
{
	struct head *d = context;
	op_weights_changed(d->b);
	forward(d);
	return test_dot(tensor_of(d->logp, 1, d->h.rows), tensor_of(d->g, 1, d->h.rows));
}

static void test_gradients(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	for (int i = 0; i < 4; i++) {
		struct head d = head_new(both[i / 2], 4, 19, 6, 1, i & 1 ? 1.3f : 1.0f);
		op_zero(d.b, d.dw.data, 19 * 6 * sizeof(float));
		forward(&d);
		backward(&d);
		test_differences("dh", d.dh, d.h, loss, &d);
		test_differences("dw", d.dw, d.w, loss, &d);
		head_free(&d);
	}
}

/* Any number of rows (a large vocabulary: several chunks), threads, strides. */
static void test_bits(void **state)
{
	struct test_backends *s = *state;
	static const int64_t shapes[][3] = {{129, 131101, 5}, {61, 1031, 48}};
	for (int i = 0; i < 2; i++) {
		int64_t T = i == 0 && test_emulated() ? 3 : shapes[i][0], V = shapes[i][1], K = shapes[i][2];
		struct head whole = head_new(s->cpu, T, V, K, 0, 0.9f), part = head_new(s->cpu, T, V, K, 3, 0.9f);
		backend_set_threads(s->cpu, 1);
		forward(&whole);
		backward(&whole);
		backend_set_threads(s->cpu, 3);
		forward(&part);
		backward(&part);
		test_same_bits_array("logp, 3 threads", part.logp, whole.logp, T);
		test_same_bits_array("entropy, 3 threads", part.entropy, whole.entropy, T);
		test_same_bits_array("lse, 3 threads", part.lse, whole.lse, T);
		test_same_bits("dh, 3 threads", part.dh, whole.dh);
		test_same_bits("dw, 3 threads", part.dw, whole.dw);
		backend_set_threads(s->cpu, 2);
		for (int64_t t = 0; t < T; t += test_emulated() ? 20 : i ? 1 : 43) {
			struct head row = part;
			float logp, entropy, lse;
			row.h = tensor_rows(part.h, t, 1);
			row.dh = tensor_rows(part.dh, t, 1);
			row.logp = &logp;
			row.entropy = &entropy;
			row.lse = &lse;
			row.g = part.g + t;
			row.target = part.target + t;
			row.dw = TENSOR_NONE;
			forward(&row);
			backward(&row);
			test_same_bits_array("logp of a row", &logp, whole.logp + t, 1);
			test_same_bits_array("entropy of a row", &entropy, whole.entropy + t, 1);
			test_same_bits_array("lse of a row", &lse, whole.lse + t, 1);
			test_same_bits("dh of a row", row.dh, tensor_rows(whole.dh, t, 1));
		}
		head_free(&whole);
		head_free(&part);
	}
}

static void test_sampled_logp(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	static const struct sampling settings[] = {{.temperature = 1, .top_p = 1},
	                                           {.temperature = 0.7f, .top_p = 1},
	                                           {.temperature = 1.3f, .top_p = 0.9f, .top_k = 50},
	                                           {.temperature = 0, .top_p = 1},
	                                           {.temperature = 1, .top_p = 0.5f, .min_p = 0.01f}};
	static const int64_t shapes[][3] = {{8, 151, 16}, {37, 1999, 64}, {5, 8192, 40}};
	for (int i = 0; i < 30; i++) {
		struct sampling how = settings[i / 6];
		int64_t T = shapes[i / 2 % 3][0], V = shapes[i / 2 % 3][1], K = shapes[i / 2 % 3][2];
		struct head d = head_new(both[i % 2], T, V, K, 1, how.temperature > 0 ? how.temperature : 1);
		struct tensor logits = test_tensor(T, V, 0, 20, 1);
		struct sampled *out = favor_malloc((size_t)T * sizeof *out);
		double *u = favor_malloc((size_t)T * sizeof *u);
		/* as decoding does: few rows at a time */
		for (int64_t first = 0, n = 1; first < T; first += n, n = n % 3 + 1) {
			n = first + n > T ? T - first : n;
			for (int64_t t = 0; t < n; t++)
				u[t] = rng_uniform(3, RNG_SAMPLE, (uint64_t)i, (uint32_t)(first + t), 0);
			op_linear(d.b, tensor_rows(logits, first, n), tensor_rows(d.h, first, n), d.w, NULL, 0);
			op_sample(d.b, out + first, tensor_rows(logits, first, n), u, &how);
		}
		for (int64_t t = 0; t < T; t++)
			d.target[t] = out[t].token;
		forward(&d);
		for (int64_t t = 0; t < T; t++) {
			test_same_bits_array("logp of the sampled token", &out[t].logp, d.logp + t, 1);
			test_same_bits_array("entropy of its distribution", &out[t].entropy, d.entropy + t, 1);
			if (how.temperature > 0 && how.top_p == 1)
				test_same_bits_array("sampling_logp without truncation", &out[t].sampling_logp, &out[t].logp, 1);
		}
		free(u);
		free(out);
		free(logits.data);
		head_free(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_reference), cmocka_unit_test(test_uniform),
	    cmocka_unit_test(test_gradients),         cmocka_unit_test(test_bits),
	    cmocka_unit_test(test_sampled_logp),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
