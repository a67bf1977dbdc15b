/* Gradient norm, gradients of biases and AdamW against the reference backend. */
#include "kernel_test.h"

#include "base/error.h"
#include "base/rng.h"

static const struct layout plain = {0, 0};

/* out[parts] of the parts of x that bounds tells, in pieces as planned, or as many as there can be at most. */
static void sum_squares(double *out, const float *x, const int64_t *bounds, int parts, int most_pieces)
{
	const size_t bytes = (size_t)parts * sizeof *out;
	const int64_t planned = kernel_sum_squares_plan(bounds, parts);
	int64_t *there = device_array(bounds, (size_t)(parts + 1) * sizeof *bounds);
	double *sums = device_alloc(bytes), *scratch = device_alloc(bytes * KERNEL_SQUARES_PIECES);
	launched("sum_squares",
	         kernel_sum_squares(sums, x, there, parts, most_pieces ? KERNEL_SQUARES_PIECES : planned, scratch, NULL));
	device_download(out, sums, bytes);
	device_release(there);
	device_release(sums);
	device_release(scratch);
}

/* Parts of all lengths in one launch: none, less than a thread has, a piece less, exactly and more, as many pieces as there can be exactly
 * and longer ones; where they begin is aligned or not. Each has the bits that it has alone and under a larger grid. */
static void test_sum_squares(void **state)
{
	(void)state;
	enum { PARTS = 13 };
	struct backend *b = backend_reference_new();
	static const int64_t sizes[PARTS] = {0, 1, 3, 0, 1000, 4095, 4096, 4097, 50000, 262144, 262145, 0, 700003};
	for (int64_t offset = 0; offset < 3; offset++) {
		int64_t bounds[PARTS + 1] = {5 * (offset > 1)};
		for (int i = 0; i < PARTS; i++)
			bounds[i + 1] = bounds[i] + sizes[i];
		struct matrix x = matrix_random(KERNEL_F32, 1, bounds[PARTS], (struct layout){0, offset == 1}, 1, 1);
		double want[PARTS], got[PARTS], larger[PARTS], last;
		b->ops.sum_squares(b, want, x.host.data, bounds, PARTS);
		sum_squares(got, x.data, bounds, PARTS, 0);
		sum_squares(larger, x.data, bounds, PARTS, 1);
		assert_memory_equal(larger, got, sizeof got);
		for (int i = 0; i < PARTS; i++) {
			double alone;
			/* the reference adds one by one: its own error grows with n */
			if (!(fabs(got[i] - want[i]) <= 1e-15 * (1 + sqrt((double)sizes[i])) * want[i]))
				fail_msg("sum of squares of %lld is %.17g, expected %.17g", (long long)sizes[i], got[i], want[i]);
			sum_squares(&alone, x.data, bounds + i, 1, 0);
			assert_memory_equal(&alone, &got[i], sizeof alone);
		}
		/* the same numbers elsewhere: unaligned accesses take the same order */
		struct matrix moved = matrix_of(KERNEL_F32, 1, sizes[PARTS - 1], (struct layout){0, 1 + offset}, x.host.data + bounds[PARTS - 1]);
		sum_squares(&last, moved.data, (const int64_t[]){0, sizes[PARTS - 1]}, 1, 0);
		assert_memory_equal(&last, &got[PARTS - 1], sizeof last);
		matrix_free(&moved);
		matrix_free(&x);
	}
	double none[2] = {1, 1};
	sum_squares(none, NULL, (const int64_t[]){7, 7, 7}, 2, 0);
	assert_true(none[0] == 0 && none[1] == 0);
	assert_int_equal(kernel_sum_squares_plan((const int64_t[]){0, 262145, 262144}, 2), -1); /* descends */
	assert_int_equal(kernel_sum_squares_plan((const int64_t[]){0, 262144, 262144}, 2), KERNEL_SQUARES_PIECES);
	assert_int_not_equal(kernel_sum_squares(NULL, NULL, NULL, 2, -1, NULL, NULL), 0);
	assert_int_not_equal(kernel_sum_squares(NULL, NULL, NULL, KERNEL_SQUARES_PARTS + 1, 1, NULL, NULL), 0);
	assert_int_equal(kernel_sum_squares(NULL, NULL, NULL, 0, 1, NULL, NULL), 0); /* no part */
	backend_destroy(b);
}

static void test_bias_gradient(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	/* one chunk of rows, exactly one, several, the last one short; more rows a chunk than the least */
	const struct {
		int64_t rows, cols;
		struct layout layout;
	} cases[] = {{0, 5, {0, 0}}, {1, 64, {0, 0}}, {7, 33, {2, 1}}, {64, 40, {0, 0}}, {65, 31, {0, 0}}, {333, 96, {4, 0}}, {16500, 3, {0, 0}}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		FOR_TYPES(type) {
			int64_t rows = cases[i].rows, cols = cases[i].cols;
			struct matrix dy = matrix_random(type, rows, cols, cases[i].layout, 1, 1),
						  dbias = matrix_random(KERNEL_F32, 1, cols, plain, 2, 1);
			float *scratch = device_alloc((size_t)kernel_bias_gradient_scratch(rows, cols) * sizeof *scratch);
			for (int64_t k = 0; k < cols; k++) {
				double sum = dbias.host.data[k];
				for (int64_t t = 0; t < rows; t++)
					sum += dy.host.data[t * cols + k];
				dbias.host.data[k] = (float)sum;
			}
			launched("bias_gradient",
			         kernel_bias_gradient(dbias.data, dy.data, dy.stride, type, scratch, rows, cols, NULL));
			matrix_check("bias_gradient", &dbias, 5e-7, 3e-7 * sqrt((double)rows + 1));
			matrix_free(&dy);
			matrix_free(&dbias);
			device_release(scratch);
		}
	backend_destroy(b);
}

enum { TENSORS = 6 };

/* Several tensors in one launch, every other one with decay: empty ones, one element, one that fills blocks exactly, unaligned ones; with and without
 * a bfloat16 copy. Three steps, so that moments are no longer 0. */
static void adamw_case(struct backend *b, struct kernel_adamw how, float weight_decay, double squares)
{
	const int64_t sizes[TENSORS] = {0, 1, 4096, 10007, 0, 37};
	const int64_t offsets[TENSORS] = {0, 0, 0, 0, 0, 1};
	struct matrix w[TENSORS], g[TENSORS], m[TENSORS], v[TENSORS], copy[TENSORS];
	struct kernel_adamw_tensor tensors[TENSORS];
	float *zeros = favor_calloc(10007, sizeof *zeros);
	for (int i = 0; i < TENSORS; i++) {
		struct layout layout = {0, offsets[i]};
		w[i] = matrix_random(KERNEL_F32, 1, sizes[i], layout, 10 + (uint64_t)i, 1);
		g[i] = matrix_random(KERNEL_F32, 1, sizes[i], layout, 20 + (uint64_t)i, 1e-3);
		m[i] = matrix_of(KERNEL_F32, 1, sizes[i], layout, zeros);
		v[i] = matrix_of(KERNEL_F32, 1, sizes[i], layout, zeros);
		copy[i] = matrix_empty(KERNEL_BF16, 1, sizes[i], layout);
		tensors[i] = (struct kernel_adamw_tensor){w[i].data, g[i].data, m[i].data, v[i].data, i % 2 ? copy[i].data : NULL,
		                                          sizes[i], -1, i % 2 ? weight_decay : 0};
	}
	free(zeros);
	int64_t blocks = kernel_adamw_plan(tensors, TENSORS);
	struct kernel_adamw_tensor *on_device = device_array(tensors, sizeof tensors);
	double *there = device_array(&squares, sizeof squares);
	for (how.step = 1; how.step <= 3; how.step++) {
		struct adamw reference = {how.lr, how.beta1, how.beta2, how.eps, how.max_norm, how.step};
		for (int i = 0; i < TENSORS; i++) {
			struct adamw_range whole = {0, sizes[i], tensors[i].weight_decay};
			b->ops.adamw(b, w[i].host.data, g[i].host.data, m[i].host.data, v[i].host.data, &whole, 1, &squares, &reference);
		}
		launched("adamw", kernel_adamw(on_device, TENSORS, blocks, there, &how, NULL));
	}
	for (int i = 0; i < TENSORS; i++) {
		/* three steps of up to lr each, with a relative error of a few roundings; w itself is rounded three times on either side */
		matrix_check("adamw w", &w[i], 3.6e-7, 1e-6 * (double)how.lr);
		matrix_check("adamw m", &m[i], 5e-7, 1e-10);
		matrix_check("adamw v", &v[i], 5e-7, 0);
		float *weights = favor_malloc((size_t)(sizes[i] + 1) * sizeof *weights);
		device_download(weights, w[i].data, (size_t)sizes[i] * sizeof *weights);
		if (i % 2 && isfinite(squares))
			matrix_check_bits("adamw bfloat16 copy", &copy[i], weights);
		free(weights);
		struct matrix *all[] = {&w[i], &g[i], &m[i], &v[i], &copy[i]};
		for (int k = 0; k < 5; k++)
			matrix_free(all[k]);
	}
	device_release(on_device);
	device_release(there);
}

static void test_adamw(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	adamw_case(b, (struct kernel_adamw){1e-3f, 0.9f, 0.999f, 1e-8f, 0, 1}, 0, 4);
	adamw_case(b, (struct kernel_adamw){1e-2f, 0.8f, 0.95f, 1e-6f, 0.37f, 1}, 0.1f, 4);
	adamw_case(b, (struct kernel_adamw){1e-2f, 0.8f, 0.95f, 1e-6f, 0.37f, 1}, 0.1f, 0.01);
	/* a decay so small that 1 - lr weight_decay has no digits for it */
	adamw_case(b, (struct kernel_adamw){1e-6f, 0.9f, 0.999f, 1e-8f, 1, 1}, 0.01f, 0);
	/* nothing is stepped */
	adamw_case(b, (struct kernel_adamw){1e-2f, 0.8f, 0.95f, 1e-6f, 1, 1}, 0.1f, NAN);
	adamw_case(b, (struct kernel_adamw){1e-2f, 0.8f, 0.95f, 1e-6f, 0, 1}, 0.1f, INFINITY);
	struct kernel_adamw how = {1e-3f, 0.9f, 0.999f, 1e-8f, 0, 0};
	assert_int_not_equal(kernel_adamw(NULL, 1, 1, NULL, &how, NULL), 0); /* step 0 */
	backend_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sum_squares), cmocka_unit_test(test_bias_gradient),
	                                   cmocka_unit_test(test_adamw)};
	return run_in_all_orders("optimizer", tests, sizeof tests / sizeof *tests);
}
