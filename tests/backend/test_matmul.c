/* Products: against the plain reference, and the promise that a row's bits depend on nothing but the row and the
 * weights: not on the number of rows or threads, on strides, or on whether packed weights were used. */
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/product.h"
#include "backend/reference/ref_matmul.h"
#include "base/bf16.h"
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A CPU backend with nothing in its table: the functions are called by name. */
struct fixture {
	struct backend b;
	struct cpu_state state;
};

static void fixture_start(struct fixture *f, int threads)
{
	*f = (struct fixture){.state.matmul = matmul_state_new(threads), .b.threads = threads};
	f->b.state = &f->state;
}

static void fixture_threads(struct fixture *f, int threads)
{
	f->b.threads = threads;
	matmul_state_threads(f->state.matmul, threads);
}

static void fixture_end(struct fixture *f)
{
	matmul_state_destroy(f->state.matmul);
	free(f->state.scratch);
}

/* Random numbers; `gap` more columns between rows. The caller frees t.data. */
static struct tensor random_tensor(int64_t rows, int64_t cols, int64_t gap, uint32_t seed)
{
	int64_t floats = rows * (cols + gap);
	struct tensor t = {favor_malloc((size_t)floats * sizeof(float)), rows, cols, cols + gap, ELEMENT_FLOAT32};
	uint32_t words[4] = {0};
	for (int64_t i = 0; i < floats; i++) {
		if (i % 4 == 0)
			rng_words(seed, RNG_INIT, 0, 0, (uint32_t)(i / 4), words);
		t.data[i] = (float)(int32_t)words[i % 4] * 0x1p-31f;
	}
	return t;
}

static struct tensor copy_of(struct tensor t)
{
	struct tensor c = t;
	size_t bytes = (size_t)(t.rows * t.stride) * sizeof(float);
	c.data = memcpy(favor_malloc(bytes), t.data, bytes);
	return c;
}

static void assert_close(struct tensor got, struct tensor want)
{
	float most = 0, error = 0;
	for (int64_t i = 0; i < want.rows * want.stride; i++) { /* the gaps too: they must not change */
		most = fmaxf(most, fabsf(want.data[i]));
		if (!(fabsf(want.data[i] - got.data[i]) <= error))
			error = fabsf(want.data[i] - got.data[i]);
	}
	if (!(error <= 1e-5f * most))
		fail_msg("error %g of %g", (double)error, (double)most);
}

static void assert_same(struct tensor a, struct tensor c, const char *what, int64_t rows, int threads)
{
	for (int64_t i = 0; i < a.rows; i++)
		if (memcmp(a.data + i * a.stride, c.data + i * c.stride, (size_t)a.cols * sizeof(float)))
			fail_msg("%s, N %d, K or T %d: row %d differs with %d rows and %d threads", what, (int)a.cols, (int)a.rows,
			         (int)i, (int)rows, threads);
}

static void check_reference(struct fixture *f, int64_t t, int64_t n, int64_t k, int64_t gap, int accumulate)
{
	struct tensor x = random_tensor(t, k, gap, 1), w = random_tensor(n, k, gap, 2), bias = random_tensor(1, n, 0, 3);
	struct tensor y = random_tensor(t, n, gap, 4), y_want = copy_of(y), x_want = copy_of(x), w_want = copy_of(w);
	struct tensor bias_want = copy_of(bias);
	cpu_linear(&f->b, y, x, w, accumulate ? NULL : bias.data, accumulate);
	ref_linear(&f->b, y_want, x, w, accumulate ? NULL : bias.data, accumulate);
	assert_close(y, y_want);
	cpu_linear_backward_input(&f->b, x, y_want, w, accumulate);
	ref_linear_backward_input(&f->b, x_want, y_want, w, accumulate);
	assert_close(x, x_want);
	cpu_linear_backward_weight(&f->b, w, accumulate ? bias.data : NULL, y_want, x_want);
	ref_linear_backward_weight(&f->b, w_want, accumulate ? bias_want.data : NULL, y_want, x_want);
	assert_close(w, w_want);
	assert_close(bias, bias_want);
	cpu_weights_changed(&f->b);
	float *all[] = {x.data, w.data, bias.data, y.data, y_want.data, x_want.data, w_want.data, bias_want.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void test_reference(void **unused)
{
	(void)unused;
	struct fixture f;
	fixture_start(&f, 2);
	const int shapes[][3] = {{1, 1, 1},    {1, 40, 8},    {7, 1, 33},    {70, 17, 5},
	                         {3, 100, 64}, {129, 65, 70}, {33, 256, 300}};
	for (int narrow = 0; narrow < 2; narrow++) {
		f.b.products = narrow ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32;
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
			for (int flags = 0; flags < 4; flags++)
				check_reference(&f, shapes[i][0], shapes[i][1], shapes[i][2], flags & 1 ? 12 : 0, flags >> 1);
		check_reference(&f, 2100, 24, 20, 0, 1);
	}
	f.b.products = PRODUCTS_FLOAT32;
	struct tensor none = {NULL, 0, 8, 8, ELEMENT_FLOAT32}, w = random_tensor(8, 8, 0, 1), w_want = copy_of(w);
	cpu_linear(&f.b, none, none, w, NULL, 0);
	cpu_linear_backward_input(&f.b, none, none, w, 0);
	cpu_linear_backward_weight(&f.b, w, NULL, none, none);
	assert_same(w, w_want, "no rows", 0, 2);
	free(w.data);
	free(w_want.data);
	fixture_end(&f);
}

/* Small integers make every sum exact: dL/dx . e = L(x + e) - L(x) for L = sum dy * y, and the same for w and bias. */
static void test_reference_gradient(void **unused)
{
	(void)unused;
	enum { T = 5, N = 4, K = 6 };
	float x[T * K], w[N * K], bias[N], dy[T * N], y[T * N], dx[T * K], dw[N * K] = {0}, dbias[N] = {0};
	float *all[] = {x, w, bias, dy};
	size_t sizes[] = {T * K, N * K, N, T * N};
	for (size_t a = 0; a < 4; a++)
		for (size_t i = 0; i < sizes[a]; i++)
			all[a][i] = (float)((int)(i * 7 + a * 5) % 11 - 5);
	struct tensor tx = tensor_of(x, T, K), tw = tensor_of(w, N, K), ty = tensor_of(y, T, N), tdy = tensor_of(dy, T, N);
	ref_linear_backward_input(NULL, tensor_of(dx, T, K), tdy, tw, 0);
	ref_linear_backward_weight(NULL, tensor_of(dw, N, K), dbias, tdy, tx);
	float *gradients[] = {dx, dw, dbias};
	for (size_t a = 0; a < 3; a++) {
		for (size_t i = 0; i < sizes[a]; i++) {
			float loss[2];
			for (int side = 0; side < 2; side++) {
				all[a][i] += (float)side;
				ref_linear(NULL, ty, tx, tw, bias, 0);
				all[a][i] -= (float)side;
				loss[side] = 0;
				for (int j = 0; j < T * N; j++)
					loss[side] += y[j] * dy[j];
			}
			assert_true(gradients[a][i] == loss[1] - loss[0]);
		}
	}
}

/* Rows [0, 160) at once on one thread, against other numbers of rows from other places on 1 to 3 threads. */
static void check_rows(struct fixture *f, int64_t n, int64_t k, int64_t gap, int with_bias, int accumulate)
{
	enum { ALL = 160 };
	const int64_t counts[] = {1, 2, 3, 5, 8, 16, 31, 64, 65, 70};
	struct tensor x = random_tensor(ALL, k, gap, 1), w = random_tensor(n, k, 0, 2), bias = random_tensor(1, n, 0, 3);
	struct tensor dy = random_tensor(ALL, n, gap, 5), before = random_tensor(ALL, n, gap, 4), y = copy_of(before);
	struct tensor dx_before = random_tensor(ALL, k, gap, 6), dx = copy_of(dx_before);
	fixture_threads(f, 1);
	cpu_linear(&f->b, y, x, w, with_bias ? bias.data : NULL, accumulate);
	cpu_linear_backward_input(&f->b, dx, dy, w, accumulate);
	for (int threads = 1; threads <= 3; threads++) {
		fixture_threads(f, threads);
		for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
			int64_t rows = counts[i], first = (int64_t)(i * 13) % (ALL - rows);
			struct tensor y_part = copy_of(before), dx_part = copy_of(dx_before);
			struct tensor to = tensor_rows(y_part, first, rows), dx_to = tensor_rows(dx_part, first, rows);
			cpu_linear(&f->b, to, tensor_rows(x, first, rows), w, with_bias ? bias.data : NULL, accumulate);
			assert_same(to, tensor_rows(y, first, rows), "linear", rows, threads);
			cpu_linear_backward_input(&f->b, dx_to, tensor_rows(dy, first, rows), w, accumulate);
			assert_same(dx_to, tensor_rows(dx, first, rows), "backward input", rows, threads);
			free(y_part.data);
			free(dx_part.data);
		}
	}
	cpu_weights_changed(&f->b);
	float *all[] = {x.data, w.data, bias.data, dy.data, before.data, y.data, dx_before.data, dx.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void test_rows_are_independent(void **unused)
{
	(void)unused;
	struct fixture f;
	fixture_start(&f, 1);
	const int shapes[][2] = {{1, 8},   {2, 100},  {3, 17},    {7, 64},    {8, 8},    {12, 33},
	                         {16, 16}, {17, 20},  {20, 48},   {24, 80},   {33, 31},  {40, 12},
	                         {64, 65}, {100, 96}, {192, 588}, {1024, 64}, {64, 2500}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int flags = 0; flags < 8; flags++) {
			f.b.products = flags >> 2 ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32;
			check_rows(&f, shapes[i][0], shapes[i][1], i % 2 == 0 ? 0 : 12, flags & 1, flags >> 1 & 1);
		}
	f.b.products = PRODUCTS_FLOAT32;
	for (int gap = 0; gap <= 12; gap += 12)
		check_rows(&f, 36, 40, gap, 1, 0);
	fixture_end(&f);
}

/* The gradient of the weights is one sum over all rows: it must not be split over threads; strides don't matter. */
static void test_weight_gradient(void **unused)
{
	(void)unused;
	struct fixture f;
	fixture_start(&f, 1);
	const int shapes[][3] = {{3000, 16, 96}, {1024, 40, 24}, {1500, 8, 9}, {70, 7, 33}, {2048, 200, 64}};
	const int threads[] = {2, 3, 8, 16, 64};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		int64_t t = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
		struct tensor dense_x = random_tensor(t, k, 0, 1), dense_dy = random_tensor(t, n, 0, 2),
		              dw = random_tensor(n, k, 0, 3);
		struct tensor x = random_tensor(t, k, 4, 1), dy = random_tensor(t, n, 8, 2), dbias = random_tensor(1, n, 0, 4);
		for (int64_t r = 0; r < t; r++) {
			memcpy(x.data + r * x.stride, dense_x.data + r * k, (size_t)k * sizeof(float));
			memcpy(dy.data + r * dy.stride, dense_dy.data + r * n, (size_t)n * sizeof(float));
		}
		struct tensor one = copy_of(dw), one_bias = copy_of(dbias);
		fixture_threads(&f, 1);
		cpu_linear_backward_weight(&f.b, one, one_bias.data, dense_dy, dense_x);
		for (size_t j = 0; j < sizeof threads / sizeof *threads; j++) {
			struct tensor many = copy_of(dw), many_bias = copy_of(dbias);
			fixture_threads(&f, threads[j]);
			cpu_linear_backward_weight(&f.b, many, many_bias.data, j % 2 ? dy : dense_dy, j % 2 ? x : dense_x);
			assert_same(many, one, "weight gradient", t, threads[j]);
			assert_same(many_bias, one_bias, "bias gradient", t, threads[j]);
			free(many.data);
			free(many_bias.data);
		}
		float *all[] = {dense_x.data, dense_dy.data, dw.data, x.data, dy.data, dbias.data, one.data, one_bias.data};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++)
			free(all[j]);
	}
	fixture_end(&f);
}

/* A packed copy is dropped when the weights change, and only then when the bytes that changed are its own. */
static void test_weights_changed(void **unused)
{
	(void)unused;
	struct fixture f;
	fixture_start(&f, 2);
	struct tensor x = random_tensor(2, 32, 0, 1), w = random_tensor(48, 32, 0, 2), y = random_tensor(2, 48, 0, 3);
	struct tensor other = random_tensor(48, 32, 0, 4), want = copy_of(y);
	cpu_linear(&f.b, y, x, w, NULL, 0);
	size_t one = matmul_packed_bytes(f.state.matmul);
	cpu_linear(&f.b, y, x, other, NULL, 0);
	assert_int_equal(matmul_packed_bytes(f.state.matmul), 2 * one);
	for (int way = 0; way < 2; way++) {
		for (int i = 0; i < 48 * 32; i++)
			w.data[i] *= -2;
		if (way == 0) {
			matmul_forget(f.state.matmul, w.data + 100, sizeof(float));
			assert_int_equal(matmul_packed_bytes(f.state.matmul), one);
		} else {
			cpu_weights_changed(&f.b);
			assert_int_equal(matmul_packed_bytes(f.state.matmul), 2 * one); /* their memory waits for the next copies */
		}
		cpu_linear(&f.b, y, x, w, NULL, 0);
		ref_linear(NULL, want, x, w, NULL, 0);
		assert_close(y, want);
	}
	float *all[] = {x.data, w.data, y.data, other.data, want.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	fixture_end(&f);
}

/* Copies in lent memory: right, inside it, and forgotten when it is taken back. */
static void test_lend(void **unused)
{
	(void)unused;
	struct fixture f;
	fixture_start(&f, 2);
	struct tensor x = random_tensor(2, 32, 0, 1), w = random_tensor(48, 32, 0, 2), y = random_tensor(2, 48, 0, 3);
	struct tensor other = random_tensor(48, 32, 0, 4), want = copy_of(y), want_other = copy_of(y);
	cpu_linear(&f.b, want, x, w, NULL, 0);
	cpu_linear(&f.b, want_other, x, other, NULL, 0);
	cpu_weights_changed(&f.b);
	const size_t one = (size_t)product_packed_words(32, 48) * sizeof(union product_word), room = one + one / 2;
	matmul_forget(f.state.matmul, NULL, UINTPTR_MAX);
	char *memory = aligned_alloc(64, (room + 63) / 64 * 64);
	assert_non_null(memory);
	memset(memory, 0xff, room);
	matmul_lend(f.state.matmul, memory, room);
	cpu_linear(&f.b, y, x, w, NULL, 0);
	assert_same(y, want, "lent memory", 2, 2);
	assert_int_equal(matmul_packed_bytes(f.state.matmul), 0);
	cpu_linear(&f.b, y, x, other, NULL, 0); /* does not fit any more */
	assert_same(y, want_other, "beside lent memory", 2, 2);
	assert_int_equal(matmul_packed_bytes(f.state.matmul), one);
	matmul_lend(f.state.matmul, NULL, 0);
	memset(memory, 0xff, room);
	cpu_linear(&f.b, y, x, w, NULL, 0);
	assert_same(y, want, "after lent memory", 2, 2);
	assert_int_equal(matmul_packed_bytes(f.state.matmul), one); /* not in memory of its own meanwhile */
	matmul_lend(f.state.matmul, memory, room);
	cpu_linear(&f.b, y, x, w, NULL, 0);
	assert_same(y, want, "lent again", 2, 2);
	assert_int_equal(matmul_packed_bytes(f.state.matmul), one);
	void *all[] = {x.data, w.data, y.data, other.data, want.data, want_other.data, memory};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
	fixture_end(&f);
}

/* What product.h promises of each element, number by number. Subnormal products would tell the instruction from this;
 * random numbers of about 1 make none. */
static float promised(const struct product *p, struct tensor x, struct tensor w, int64_t i, int64_t j, float start)
{
	float sum = start;
	for (int64_t k = 0; k < x.cols; k++) {
		int64_t at = p->pairs ? k ^ 1 : k; /* of a pair, the second comes first */
		if (at >= x.cols)
			continue;
		float left = x.data[i * x.stride + at], right = w.data[j * w.stride + at];
		sum = p->pairs ? fmaf(bf16_round(left), bf16_round(right), sum) : fmaf(left, right, sum);
	}
	if (p->pairs && x.cols % 2) /* the odd one, skipped above */
		sum = fmaf(bf16_round(x.data[i * x.stride + x.cols - 1]), bf16_round(w.data[j * w.stride + w.cols - 1]), sum);
	return sum;
}

static void check_product(int64_t m, int64_t n, int64_t k, int pairs)
{
	struct tensor x = random_tensor(m, k, 5, 1), w = random_tensor(n, k, 3, 2), y = random_tensor(m, n, 7, 3);
	struct tensor bias = random_tensor(1, n, 0, 4), before = copy_of(y), last = copy_of(y), turned = copy_of(y);
	struct product p = {.pairs = pairs,
	                        .m = m,
	                        .n = n,
	                        .k = pairs ? product_pairs(k) : k,
	                        .bias = bias.data,
	                        .c = y.data,
	                        .c_row = y.stride,
	                        .accumulate = 1};
	const size_t words = (size_t)(m * k + m), bytes = (size_t)product_packed_words(p.k, n) * sizeof(union product_word);
	union product_word *panels = aligned_alloc(64, (bytes + 63) / 64 * 64), *left = favor_calloc(words, sizeof *left),
	               *columns = favor_calloc(words, sizeof *columns);
	assert_non_null(panels);
	struct tensor x_turned = random_tensor(k, m, 2, 5);
	for (int64_t i = 0; i < m; i++)
		for (int64_t j = 0; j < k; j++)
			x_turned.data[j * x_turned.stride + i] = x.data[i * x.stride + j];
	p.panels = panels;
	p.a_col = 1;
	if (pairs) {
		product_pack_pairs(panels, w.data, 1, w.stride, k, n, 3);
		product_pair_columns(left, x.data, x.stride, m, k, 2);
		product_pair_rows(columns, x_turned.data, x_turned.stride, m, k, 2);
		p.a = left;
		p.a_row = p.k;
	} else {
		product_pack(panels, w.data, 1, w.stride, k, n, 3);
		p.a = (const union product_word *)x.data;
		p.a_row = x.stride;
	}
	product_run(&p, 3);
	for (int64_t i = 0; i < m; i++)
		for (int64_t j = 0; j < n; j++) {
			float want = promised(&p, x, w, i, j, before.data[i * before.stride + j] + bias.data[j]);
			if (memcmp(&y.data[i * y.stride + j], &want, sizeof want))
				fail_msg("%dx%dx%d%s, element %d, %d: %.9g instead of %.9g", (int)m, (int)n, (int)k, pairs ? " pairs" : "",
				         (int)i, (int)j, y.data[i * y.stride + j], want);
		}
	struct product one = p;
	one.m = 1;
	one.a += (m - 1) * p.a_row;
	one.c = last.data + (m - 1) * last.stride;
	product_run(&one, 1);
	assert_same(tensor_rows(last, m - 1, 1), tensor_rows(y, m - 1, 1), "product", 1, 1);
	p.a = pairs ? columns : (const union product_word *)x_turned.data;
	p.a_row = 1;
	p.a_col = pairs ? m : x_turned.stride;
	p.c = turned.data;
	product_run(&p, 2);
	assert_same(turned, y, "product of columns", m, 2);
	void *all[] = {panels,    left,        columns,   x.data,      w.data,       y.data,
	               bias.data, before.data, last.data, turned.data, x_turned.data};
	for (size_t j = 0; j < sizeof all / sizeof *all; j++)
		free(all[j]);
}

/* The kernel by itself: the promised bits, and the same for any number of rows and threads and either order of a. */
static void test_product(void **unused)
{
	(void)unused;
	const int shapes[][3] = {{1, 1, 1},    {150, 70, 33}, {300, 65, 20},  {9, 200, 64},
	                         {13, 40, 700}, {200, 16, 1},  {25, 130, 1025}, {40, 33, 2}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int pairs = 0; pairs < 2; pairs++)
			check_product(shapes[i][0], shapes[i][1], shapes[i][2], pairs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reference),       cmocka_unit_test(test_reference_gradient),
	    cmocka_unit_test(test_product),     cmocka_unit_test(test_rows_are_independent),
	    cmocka_unit_test(test_weight_gradient), cmocka_unit_test(test_weights_changed),
	    cmocka_unit_test(test_lend),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
