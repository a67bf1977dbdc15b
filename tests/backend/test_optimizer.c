/* AdamW against torch.optim.AdamW (tools/golden_adamw.py), and the gradient norm. */
#include "ops_test.h"

#include <jansson.h>

static float *numbers(json_t *object, const char *key, int64_t n, float scale)
{
	json_t *a = json_object_get(object, key);
	assert_int_equal(json_array_size(a), n);
	float *p = favor_malloc((size_t)n * sizeof *p);
	for (int64_t i = 0; i < n; i++)
		p[i] = (float)json_number_value(json_array_get(a, (size_t)i)) * scale;
	return p;
}

static float setting(json_t *c, const char *key)
{
	return (float)json_number_value(json_object_get(c, key));
}

static void check_golden(struct backend *b, json_t *c)
{
	json_t *steps = json_object_get(c, "steps");
	int64_t n = (int64_t)json_array_size(json_object_get(c, "start"));
	struct adamw how = {.lr = setting(c, "lr"),
	                    .beta1 = setting(c, "beta1"),
	                    .beta2 = setting(c, "beta2"),
	                    .eps = setting(c, "eps"),
	                    .weight_decay = setting(c, "weight_decay")};
	float *w = numbers(c, "start", n, 1), *m = favor_calloc((size_t)n, sizeof *m),
	      *v = favor_calloc((size_t)n, sizeof *v);
	for (size_t i = 0; i < json_array_size(steps); i++) {
		json_t *step = json_array_get(steps, i);
		/* a power of two: scaling there and back changes no bit */
		float *g = numbers(step, "g", n, 4), *want_w = numbers(step, "w", n, 1);
		float *want_m = numbers(step, "m", n, 1), *want_v = numbers(step, "v", n, 1);
		how.step = (int64_t)i + 1;
		for (int64_t k = 0; k < n; k++) {
			/* a few units in the last place of the terms that are added */
			float old_w = w[k], old_m = m[k];
			op_adamw(b, w + k, g + k, m + k, v + k, 1, 0.25f, &how);
			assert_true(fabsf(m[k] - want_m[k]) <= 1.2e-7f * (fabsf(old_m) + fabsf(0.25f * g[k])));
			assert_true(fabsf(v[k] - want_v[k]) <= 2.4e-7f * want_v[k]);
			assert_true(fabsf(w[k] - want_w[k]) <= 2.4e-7f * (fabsf(old_w) + fabsf(want_w[k] - old_w)));
		}
		/* so that differences don't pile up, each step starts where torch's did */
		memcpy(w, want_w, (size_t)n * sizeof *w);
		memcpy(m, want_m, (size_t)n * sizeof *m);
		memcpy(v, want_v, (size_t)n * sizeof *v);
		free(g);
		free(want_w);
		free(want_m);
		free(want_v);
	}
	assert_true(json_array_size(steps) == 5);
	free(w);
	free(m);
	free(v);
}

static void test_golden(void **state)
{
	struct test_backends *s = *state;
	char *path = favor_format("%s/backend/adamw.json", getenv("FAVOR_GOLDEN"));
	json_error_t e;
	json_t *cases = json_load_file(path, 0, &e);
	if (!cases)
		fail_msg("%s: %s", path, e.text);
	assert_int_equal(json_array_size(cases), 3);
	for (size_t i = 0; i < json_array_size(cases); i++) {
		check_golden(s->reference, json_array_get(cases, i));
		check_golden(s->cpu, json_array_get(cases, i));
	}
	json_decref(cases);
	free(path);
}

/* An element's bits don't depend on where it lies or on the threads: a part updated alone is the part of the whole. */
static void test_adamw_bits(void **state)
{
	struct test_backends *s = *state;
	enum { N = 40001, FIRST = 12345, PART = 777 };
	struct adamw how = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.1f, 3};
	float *all[2][4];
	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 4; j++)
			all[i][j] = test_array(N, (uint64_t)j + 50, 1);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < N; k++)
			all[i][3][k] = fabsf(all[i][3][k]);
	backend_set_threads(s->cpu, 3);
	op_adamw(s->cpu, all[0][0], all[0][1], all[0][2], all[0][3], N, 0.3f, &how);
	backend_set_threads(s->cpu, 1);
	op_adamw(s->cpu, all[1][0] + FIRST, all[1][1] + FIRST, all[1][2] + FIRST, all[1][3] + FIRST, PART, 0.3f, &how);
	for (int j = 0; j < 4; j++)
		test_same_bits_array("part", all[1][j] + FIRST, all[0][j] + FIRST, PART);
	op_adamw(s->cpu, all[1][0], all[1][1], all[1][2], all[1][3], FIRST, 0.3f, &how);
	for (int j = 0; j < 4; j++)
		test_same_bits_array("rest", all[1][j], all[0][j], FIRST);
	backend_set_threads(s->cpu, 2);
	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 4; j++)
			free(all[i][j]);
}

static void test_sum_squares(void **state)
{
	struct test_backends *s = *state;
	static const int64_t sizes[] = {1, 2, 15, 16, 17, 1000, 65536, 65537, 300007};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		float *x = test_array(sizes[i], 60, 100);
		double expected = op_sum_squares(s->reference, x, sizes[i]), first = 0;
		for (int threads = 1; threads <= 3; threads++) {
			backend_set_threads(s->cpu, threads);
			double sum = op_sum_squares(s->cpu, x, sizes[i]);
			assert_true(fabs(sum - expected) <= 1e-12 * expected);
			first = threads == 1 ? sum : first;
			assert_true(sum == first);
		}
		/* small integers: exact */
		for (int64_t k = 0; k < sizes[i]; k++)
			x[k] = (float)(k % 7);
		assert_true(op_sum_squares(s->cpu, x, sizes[i]) == op_sum_squares(s->reference, x, sizes[i]));
		free(x);
	}
	assert_true(op_sum_squares(s->cpu, NULL, 0) == 0);
	float large[] = {1e30f, 1e30f};
	assert_true(fabs(op_sum_squares(s->cpu, large, 2) / 2e60 - 1) < 1e-6); /* beyond float */
	backend_set_threads(s->cpu, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden),
	    cmocka_unit_test(test_adamw_bits),
	    cmocka_unit_test(test_sum_squares),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
