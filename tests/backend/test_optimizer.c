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
	                    .max_norm = 0.25f};
	const double squares = (1 - 1e-6) * (1 - 1e-6); /* so that the gradient is taken a quarter as long */
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
			const struct adamw_range one = {0, 1, setting(c, "weight_decay")};
			op_adamw(b, w + k, g + k, m + k, v + k, &one, 1, &squares, &how);
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

/* w, g, m, v, with v as squares are. */
static void arrays_new(float *a[4], int64_t n)
{
	for (int j = 0; j < 4; j++)
		a[j] = test_array(n, (uint64_t)j + 50, 1);
	for (int64_t k = 0; k < n; k++)
		a[3][k] = fabsf(a[3][k]);
}

static void arrays_free(float *a[4])
{
	for (int j = 0; j < 4; j++)
		free(a[j]);
}

enum { N = 40001 };
static const struct adamw with_clip = {1e-3f, 0.9f, 0.999f, 1e-8f, 0.3f, 3};

/* An element's bits don't depend on where it lies, on the threads or on the ranges around it: parts updated alone or in
 * another order are the parts of the whole; what no range has is left alone. */
static void test_adamw_bits(void **state)
{
	struct test_backends *s = *state;
	enum { FIRST = 12345, PART = 777, GAP = 3 };
	static const struct adamw_range all = {0, N, 0.1f};
	static const struct adamw_range parts[] = {{FIRST, PART, 0.1f},
	                                           {0, FIRST, 0.1f},
	                                           {FIRST + PART, 0, 7},
	                                           {FIRST + PART + GAP, N - FIRST - PART - GAP, 0.1f}};
	const double squares = 4;
	float *whole[4], *cut[4], *start[4];
	arrays_new(whole, N);
	arrays_new(cut, N);
	arrays_new(start, N);
	backend_set_threads(s->cpu, 3);
	op_adamw(s->cpu, whole[0], whole[1], whole[2], whole[3], &all, 1, &squares, &with_clip);
	backend_set_threads(s->cpu, 1);
	op_adamw(s->cpu, cut[0], cut[1], cut[2], cut[3], parts, 4, &squares, &with_clip);
	for (int j = 0; j < 4; j++) {
		test_same_bits_array("ranges", cut[j], whole[j], FIRST + PART);
		test_same_bits_array("between ranges", cut[j] + FIRST + PART, start[j] + FIRST + PART, GAP);
		test_same_bits_array("rest", cut[j] + FIRST + PART + GAP, whole[j] + FIRST + PART + GAP,
		                     N - FIRST - PART - GAP);
	}
	assert_true(memcmp(whole[0], start[0], N * sizeof(float)) != 0);
	backend_set_threads(s->cpu, 2);
	arrays_free(whole);
	arrays_free(cut);
	arrays_free(start);
}

/* Each range has its own decay; a gradient that is too long is shortened, one that is not keeps its length; one that is
 * no number steps nothing. Against the reference. */
static void test_adamw_ranges(void **state)
{
	struct test_backends *s = *state;
	static const struct adamw_range ranges[] = {{0, 1000, 0}, {1000, 17000, 0.5f}, {18000, N - 18000, 0.1f}};
	const double squares[] = {4, 0.01, 0, NAN, INFINITY};
	const float max_norm[] = {0.3f, 0.3f, 0, 0.3f, 0};
	for (int i = 0; i < 5; i++) {
		float *got[4], *want[4], *start[4];
		struct adamw how = with_clip;
		how.max_norm = max_norm[i];
		arrays_new(got, N);
		arrays_new(want, N);
		arrays_new(start, N);
		op_adamw(s->cpu, got[0], got[1], got[2], got[3], ranges, 3, &squares[i], &how);
		op_adamw(s->reference, want[0], want[1], want[2], want[3], ranges, 3, &squares[i], &how);
		for (int j = 0; j < 4; j++)
			if (i < 3)
				test_close_array("ranges", got[j], want[j], N, 3e-7);
			else
				test_same_bits_array("no step", got[j], start[j], N);
		if (i < 3) { /* m of a clipped gradient, by hand */
			const double clip = i == 0 ? 0.3 / 2.000001 : 1;
			assert_true(fabs(want[2][5] - (0.9 * start[2][5] + 0.1 * start[1][5] * clip)) < 1e-7);
			/* a step of lr 1e-3 with decay 0.5 takes 5e-4 of the weight more than one without */
			assert_true(fabs((start[0][2000] - want[0][2000]) - (start[0][2000] * 5e-4) -
			                 1e-3 * want[2][2000] / (1 - 0.9 * 0.9 * 0.9) /
			                     sqrt(want[3][2000] / (1 - 0.999 * 0.999 * 0.999))) < 1e-6);
		}
		arrays_free(got);
		arrays_free(want);
		arrays_free(start);
	}
}

static double sum_of(struct backend *b, const float *x, int64_t n)
{
	double sum = -1;
	op_sum_squares(b, &sum, x, (const int64_t[]){0, n}, 1);
	return sum;
}

static void test_sum_squares(void **state)
{
	struct test_backends *s = *state;
	static const int64_t sizes[] = {1, 2, 15, 16, 17, 1000, 65536, 65537, 300007};
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		float *x = test_array(sizes[i], 60, 100);
		double expected = sum_of(s->reference, x, sizes[i]), first = 0;
		for (int threads = 1; threads <= 3; threads++) {
			backend_set_threads(s->cpu, threads);
			double sum = sum_of(s->cpu, x, sizes[i]);
			assert_true(fabs(sum - expected) <= 1e-12 * expected);
			first = threads == 1 ? sum : first;
			assert_true(sum == first);
		}
		/* small integers: exact */
		for (int64_t k = 0; k < sizes[i]; k++)
			x[k] = (float)(k % 7);
		assert_true(sum_of(s->cpu, x, sizes[i]) == sum_of(s->reference, x, sizes[i]));
		free(x);
	}
	assert_true(sum_of(s->cpu, NULL, 0) == 0);
	float large[] = {1e30f, 1e30f};
	assert_true(fabs(sum_of(s->cpu, large, 2) / 2e60 - 1) < 1e-6); /* beyond float */
	backend_set_threads(s->cpu, 2);
}

/* Parts in one call: each has the bits that it has alone, whatever the threads and wherever it lies; empty ones are 0. */
static void test_sum_squares_parts(void **state)
{
	struct test_backends *s = *state;
	static const int64_t bounds[] = {5, 5, 6, 22, 1022, 70000, 70000, 300007, 300007};
	enum { PARTS = sizeof bounds / sizeof *bounds - 1 };
	float *x = test_array(300007, 61, 1);
	double want[PARTS], got[PARTS];
	op_sum_squares(s->reference, want, x, bounds, PARTS);
	for (int threads = 1; threads <= 3; threads++) {
		backend_set_threads(s->cpu, threads);
		op_sum_squares(s->cpu, got, x, bounds, PARTS);
		for (int i = 0; i < PARTS; i++) {
			assert_true(fabs(got[i] - want[i]) <= 1e-12 * want[i]);
			assert_true(got[i] == sum_of(s->cpu, x + bounds[i], bounds[i + 1] - bounds[i]));
		}
	}
	assert_true(got[0] == 0 && got[5] == 0 && got[7] == 0 && got[1] == (double)x[5] * x[5]);
	op_sum_squares(s->cpu, NULL, NULL, NULL, 0);
	backend_set_threads(s->cpu, 2);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden),
	    cmocka_unit_test(test_adamw_bits),
	    cmocka_unit_test(test_adamw_ranges),
	    cmocka_unit_test(test_sum_squares),
	    cmocka_unit_test(test_sum_squares_parts),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
