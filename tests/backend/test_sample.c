/* Sampling: golden truncations of transformers (tools/golden_sampling.py), the distribution, the reference's tokens on
 * random and tied rows, and rows at the edges. */
#include "ops_test.h"

#include <jansson.h>

static double number(json_t *object, const char *key)
{
	json_t *v = json_object_get(object, key);
	assert_true(json_is_number(v));
	return json_number_value(v);
}

static struct sampled draw(struct backend *b, const float *logits, int64_t V, double u, const struct sampling *how)
{
	struct sampled out;
	op_sample(b, &out, tensor_of((float *)logits, 1, V), &u, how);
	return out;
}

/* In the middle of every kept token's share of [0, 1) that token must come, with transformers' log-probability. */
static void check_golden(struct backend *b, json_t *c)
{
	json_t *values = json_object_get(c, "logits"), *kept = json_object_get(c, "kept");
	json_t *sampling_logp = json_object_get(c, "sampling_logp"), *logp = json_object_get(c, "logp");
	int64_t V = (int64_t)json_array_size(values);
	float logits[64];
	assert_true(V > 0 && V <= 64);
	for (int64_t i = 0; i < V; i++)
		logits[i] = (float)json_number_value(json_array_get(values, (size_t)i));
	struct sampling how = {(float)number(c, "temperature"), (float)number(c, "top_p"), (float)number(c, "min_p"),
	                       (int32_t)number(c, "top_k")};
	double before = 0;
	for (size_t i = 0; i < json_array_size(kept); i++) {
		double l = json_number_value(json_array_get(sampling_logp, i)), share = exp(l);
		const double u = before + share / 2;
		before += share;
		if (test_emulated() && i > 0 && i + 1 < json_array_size(kept))
			continue;
		struct sampled s = draw(b, logits, V, u, &how);
		assert_int_equal(s.token, json_integer_value(json_array_get(kept, i)));
		assert_true(fabs(s.sampling_logp - l) < 2e-6);
		assert_true(fabs(s.logp - json_number_value(json_array_get(logp, i))) < 2e-6);
		assert_true(fabs(s.entropy - number(c, "entropy")) < 2e-6);
	}
	assert_true(fabs(before - 1) < 1e-5);
}

static void test_golden(void **state)
{
	struct test_backends *s = *state;
	char *path = favor_format("%s/backend/sampling.json", getenv("FAVOR_GOLDEN"));
	json_error_t e;
	json_t *cases = json_load_file(path, 0, &e);
	if (!cases)
		fail_msg("%s: %s", path, e.text);
	assert_true(json_array_size(cases) > 50);
	for (size_t i = 0; i < json_array_size(cases); i++) {
		check_golden(s->reference, json_array_get(cases, i));
		check_golden(s->cpu, json_array_get(cases, i));
	}
	json_decref(cases);
	free(path);
}

/* 100,000 evenly spaced u must give every token its share to within one draw; draws by the project's random numbers
 * must pass a chi-square test. */
static void test_distribution(void **state)
{
	struct test_backends *s = *state;
	enum { V = 12, ROWS = 50 };
	const int DRAWS = test_emulated() ? ROWS : 2000 * ROWS;
	static const struct sampling settings[] = {{1, 1, 0, 0},    {0.6f, 1, 0, 0}, {1.5f, 1, 0, 5},
	                                           {1, 0.8f, 0, 0}, {1, 1, 0.2f, 0}, {1.2f, 0.9f, 0.1f, 8}};
	struct backend *both[] = {s->reference, s->cpu};
	struct tensor logits = test_tensor(ROWS, V, 0, 30, 0);
	for (int t = 0; t < ROWS; t++)
		for (int i = 0; i < V; i++)
			logits.data[t * V + i] = test_number(31, i, 3);
	for (size_t n = 0; n < 4 * sizeof settings / sizeof *settings; n++) {
		const struct sampling *how = &settings[n / 4];
		if (test_emulated() && n % 4 != 2)
			continue; /* the backend, u in even steps */
		int random = n & 1, count[V] = {0}, kept = 0;
		double p[V] = {0}, square = 0;
		for (int first = 0; first < DRAWS; first += ROWS) {
			struct sampled out[ROWS];
			double u[ROWS];
			for (int t = 0; t < ROWS; t++)
				u[t] = random ? rng_uniform(n, RNG_SAMPLE, (uint64_t)(first + t), 0, 0) : (first + t + 0.5) / DRAWS;
			op_sample(both[n / 2 % 2], out, logits, u, how);
			for (int t = 0; t < ROWS; t++) {
				assert_in_range(out[t].token, 0, V - 1);
				count[out[t].token]++;
				p[out[t].token] = exp(out[t].sampling_logp);
			}
		}
		double sum = 0;
		for (int i = 0; i < V; i++) {
			sum += p[i];
			kept += p[i] > 0;
			if (!random && fabs(count[i] - p[i] * DRAWS) > 1 + 1e-5 * DRAWS * p[i])
				fail_msg("setting %zu: token %d came %d times, expected %.2f", n / 4, i, count[i], p[i] * DRAWS);
			if (p[i] > 0)
				square += (count[i] - p[i] * DRAWS) * (count[i] - p[i] * DRAWS) / (p[i] * DRAWS);
		}
		assert_true(fabs(sum - 1) < (test_emulated() ? V / (double)DRAWS : 1e-5)); /* of those that came */
		assert_true(n < 8 || kept < V); /* the first two settings truncate nothing */
		/* 99.99% point for at most 11 degrees of freedom: 37.4 */
		if (square > 37.4)
			fail_msg("setting %zu: chi-square %.1f", n / 4, square);
	}
	free(logits.data);
}

static void test_same_tokens(void **state)
{
	struct test_backends *s = *state;
	static const int64_t sizes[] = {1, 2, 7, 50, 64, 65, 333, 1000, 5003};
	static const float temperatures[] = {1, 0, 0.3f, 0.7f, 1.9f}, top_ps[] = {1, 0.9f, 0.5f, 0.01f, 0.999f};
	static const float min_ps[] = {0, 0, 0.05f, 1};
	for (uint32_t n = 0; n < 1500; n += test_emulated() ? 67 : 1) {
		uint32_t r[8];
		rng_words(9, RNG_SAMPLE, n, 0, 0, r);
		rng_words(9, RNG_SAMPLE, n, 1, 0, r + 4);
		int64_t V = sizes[r[0] % 9], T = n % 100 ? 2 : 9;
		int32_t ks[] = {0, 0, 1, 5, 40, (int32_t)V, (int32_t)(V / 2), INT32_MAX};
		struct sampling how = {temperatures[r[1] % 5], top_ps[r[2] % 5], min_ps[r[3] % 4], ks[r[4] % 8]};
		struct tensor logits = test_tensor(T, V, r[5] % 3, n + 100, (float)(1 + r[6] % 12));
		int kind = r[7] % 4; /* random; random; few different values; all equal */
		for (int64_t i = 0; i < T * logits.stride && kind >= 2; i++)
			logits.data[i] = kind == 2 ? roundf(logits.data[i]) : 1.5f;
		double u[9];
		struct sampled a[9], b[9];
		for (int64_t t = 0; t < T; t++)
			u[t] = t == 0 && n % 10 == 0 ? (n % 20 ? 0 : 1 - 0x1p-53) : rng_uniform(8, RNG_SAMPLE, n, (uint32_t)t, 0);
		op_sample(s->reference, a, logits, u, &how);
		op_sample(s->cpu, b, logits, u, &how);
		for (int64_t t = 0; t < T; t++) {
			if (a[t].token != b[t].token)
				fail_msg("case %u row %d: V %d, T %g, top_k %d, top_p %g, min_p %g: reference %d, cpu %d", n, (int)t,
				         (int)V, (double)how.temperature, how.top_k, (double)how.top_p, (double)how.min_p, a[t].token,
				         b[t].token);
			assert_true(fabs(a[t].logp - b[t].logp) < 1e-5);
			assert_true(fabs(a[t].sampling_logp - b[t].sampling_logp) < 1e-5);
			assert_true(fabs(a[t].entropy - b[t].entropy) < 1e-5);
			if (how.temperature == 0)
				assert_true(a[t].sampling_logp == 0 && b[t].sampling_logp == 0);
			/* a row alone, and on one thread: the same bits */
			struct sampled alone = draw(s->cpu, logits.data + t * logits.stride, V, u[t], &how);
			assert_memory_equal(&alone, &b[t], sizeof alone);
		}
		free(logits.data);
	}
}

/* A vocabulary of Qwen2's size: bits over threads, heaps over many candidates, tokens of the reference. */
static void test_large(void **state)
{
	struct test_backends *s = *state;
	enum { V = 151936, T = 2 };
	if (test_emulated())
		return; /* minutes; the kernel's own test has 12,001 */
	static const struct sampling settings[] = {
	    {1, 1, 0, 0}, {0.8f, 0.95f, 0, 0}, {1, 1, 0, 50}, {1, 0.9f, 0.001f, 2000}, {0, 1, 0, 0}};
	for (int i = 0; i < 10; i++) {
		struct tensor logits = test_tensor(T, V, 0, 40, i & 1 ? 20 : 0.5f); /* peaked or flat */
		double u[T] = {0.03, 0.97};
		struct sampled one[T], two[T], reference[T];
		backend_set_threads(s->cpu, 1);
		op_sample(s->cpu, one, logits, u, &settings[i / 2]);
		backend_set_threads(s->cpu, 2);
		op_sample(s->cpu, two, logits, u, &settings[i / 2]);
		assert_memory_equal(one, two, sizeof one);
		op_sample(s->reference, reference, logits, u, &settings[i / 2]);
		for (int t = 0; t < T; t++) {
			assert_int_equal(one[t].token, reference[t].token);
			assert_true(fabs(one[t].logp - reference[t].logp) < 1e-5);
			assert_true(fabs(one[t].sampling_logp - reference[t].sampling_logp) < 1e-5);
			assert_true(fabs(one[t].entropy - reference[t].entropy) < 1e-5);
		}
		free(logits.data);
	}
}

static void test_edges(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	for (int i = 0; i < 2; i++) {
		/* greedy: the first of the largest, whatever the truncation says */
		float tied[] = {1, 3, 2, 3, -INFINITY};
		struct sampling greedy = {0, 0.1f, 0.5f, 1};
		struct sampled out = draw(both[i], tied, 5, 0.9, &greedy);
		assert_int_equal(out.token, 1);
		assert_true(fabs(out.logp - (3 - log(exp(1) + 2 * exp(3) + exp(2)))) < 1e-6);
		assert_true(out.sampling_logp == 0);
		/* top_k keeps ties with the k-th; top_p gives them to the lower id */
		struct sampling one = {1, 1, 0, 1}, nucleus = {1, 0.39f, 0, 0};
		assert_int_equal(draw(both[i], tied, 5, 0.2, &one).token, 1);
		out = draw(both[i], tied, 5, 0.8, &one);
		assert_int_equal(out.token, 3);
		assert_true(fabs(out.sampling_logp + log(2)) < 1e-6);
		out = draw(both[i], tied, 5, 0.999, &nucleus);
		assert_int_equal(out.token, 1);
		assert_true(fabs(out.sampling_logp) < 1e-6);
		/* an impossible token never comes, and costs no NaN */
		struct sampling plain = {1, 1, 0, 0};
		out = draw(both[i], tied, 5, 1 - 0x1p-53, &plain);
		assert_int_equal(out.token, 3);
		assert_true(isfinite(out.entropy) && isfinite(out.logp));
		/* one token */
		float single[] = {-7};
		out = draw(both[i], single, 1, 0.3, &nucleus);
		assert_int_equal(out.token, 0);
		assert_true(out.logp == 0 && out.entropy == 0);
		/* what is no number gives a token in range and a log-probability that says so */
		float broken[] = {1, NAN, 2}, infinite[] = {1, INFINITY, 2};
		for (int j = 0; j < 4; j++) {
			struct sampling how[] = {plain, one, nucleus, greedy};
			out = draw(both[i], broken, 3, 0.5, &how[j]);
			assert_in_range(out.token, 0, 2);
			assert_true(isnan(out.logp));
			out = draw(both[i], infinite, 3, 0.5, &how[j]);
			assert_in_range(out.token, 0, 2);
			assert_false(isfinite(out.logp));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden), cmocka_unit_test(test_distribution), cmocka_unit_test(test_same_tokens),
	    cmocka_unit_test(test_large),  cmocka_unit_test(test_edges),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
