/* What only the CUDA backend has: bfloat16 products with their copies of the weights, uploads in pieces, attention's plans over
 * segments that change, products of every alignment, and what ends the job. Compared with the reference backend. */
#include "../backend/ops_test.h"

#include "../apart.h"

static struct backend *volatile newest; /* a process that ends on purpose has not lost it */

static struct backend *cuda_new(enum products products)
{
	struct favor_error e = {""};
	char device[320];
	struct backend *b = backend_cuda_open(0, device, sizeof device, &e);
	if (!b)
		fail_msg("%s", e.message);
	backend_set_products(b, products);
	newest = b;
	return b;
}

static float rounded(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* A matrix on the device with its values on the host; the type's rounding is in both. */
struct matrix {
	struct tensor there;
	struct tensor host;
};

static struct matrix matrix_new(struct backend *b, int64_t rows, int64_t cols, int64_t pad, enum element type, uint64_t seed)
{
	struct matrix m;
	m.host = test_tensor(rows, cols, pad, seed, 1);
	struct tensor wide = m.host;
	wide.data = op_alloc(b, (size_t)(rows * m.host.stride + 1) * sizeof(float));
	op_upload(b, wide.data, m.host.data, (size_t)(rows * m.host.stride) * sizeof(float));
	m.there = wide;
	if (type == ELEMENT_BFLOAT16) {
		m.there = tensor_of_type(op_alloc(b, (size_t)(rows * m.host.stride) * 2), rows, cols, type);
		m.there.stride = m.host.stride;
		for (int64_t i = 0; i < rows; i++)
			for (int64_t k = 0; k < cols; k++)
				m.host.data[i * m.host.stride + k] = rounded(m.host.data[i * m.host.stride + k]);
		op_cast(b, m.there, wide);
		op_release(b, wide.data);
	}
	return m;
}

static void matrix_free(struct backend *b, struct matrix *m)
{
	free(m->host.data);
	op_release(b, m->there.data);
}

/* The device's values as floats, without gaps; free(t.data) */
static struct tensor values(struct backend *b, struct tensor t)
{
	struct tensor floats = tensor_of(op_alloc(b, (size_t)(t.rows * t.cols) * sizeof(float)), t.rows, t.cols), host = floats;
	op_cast(b, floats, t);
	host.data = favor_malloc((size_t)(t.rows * t.cols) * sizeof(float));
	op_download(b, host.data, floats.data, (size_t)(t.rows * t.cols) * sizeof(float));
	op_release(b, floats.data);
	return host;
}

static void same(const char *what, struct backend *b, const struct matrix *m, struct tensor want, double tolerance)
{
	struct tensor got = values(b, m->there);
	test_close(what, got, want, m->there.type == ELEMENT_BFLOAT16 ? 0.005 : tolerance);
	free(got.data);
}

/* y = x w^T + b and both gradients; the weights are columns of a wider block; y float32 or bfloat16. */
static void check_product(struct backend *b, struct backend *reference, int64_t t, int64_t n, int64_t k, int64_t pad,
                          enum element result, int add, int bias)
{
	const enum element type = b->operand;
	struct matrix x = matrix_new(b, t, k, pad, type, 1), w = matrix_new(b, n, k, 0, ELEMENT_FLOAT32, 2),
	              y = matrix_new(b, t, n, pad, result, 3), dy = matrix_new(b, t, n, 0, type, 4),
	              dx = matrix_new(b, t, k, 0, result, 5), dw = matrix_new(b, n, k, 0, ELEMENT_FLOAT32, 6),
	              c = matrix_new(b, 1, n, 0, ELEMENT_FLOAT32, 7), dc = matrix_new(b, 1, n, 0, ELEMENT_FLOAT32, 8);
	struct tensor rw = test_copy(w.host), rc = test_copy(c.host);
	for (int64_t i = 0; i < n * k && type == ELEMENT_BFLOAT16; i++)
		rw.data[i] = rounded(rw.data[i]);
	for (int64_t i = 0; i < n && result == ELEMENT_BFLOAT16; i++)
		rc.data[i] = rounded(rc.data[i]); /* a bias is of the result's type */
	op_linear(b, y.there, x.there, w.there, bias ? c.there.data : NULL, add);
	op_linear(reference, y.host, x.host, rw, bias ? rc.data : NULL, add);
	same("y", b, &y, y.host, 1e-5);
	op_linear_backward_input(b, dx.there, dy.there, w.there, add);
	op_linear_backward_input(reference, dx.host, dy.host, rw, add);
	same("dx", b, &dx, dx.host, 1e-5);
	op_linear_backward_weight(b, dw.there, bias ? dc.there.data : NULL, dy.there, x.there);
	op_linear_backward_weight(reference, dw.host, bias ? dc.host.data : NULL, dy.host, x.host);
	same("dw", b, &dw, dw.host, 1e-5);
	same("dbias", b, &dc, dc.host, 1e-5);
	struct matrix *all[] = {&x, &w, &y, &dy, &dx, &dw, &c, &dc};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		matrix_free(b, all[i]);
	free(rw.data);
	free(rc.data);
}

static void test_products(void **state)
{
	(void)state;
	struct backend *reference = backend_reference_new();
	static const int64_t shapes[][3] = {{1, 1, 1}, {3, 8, 16}, {65, 17, 33}, {2, 100, 7}, {200, 24, 40}};
	for (int narrow = 0; narrow < 2; narrow++) {
		struct backend *b = cuda_new(narrow ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32);
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
			for (int flags = 0; flags < 16; flags++)
				if (narrow || !(flags & 8))
					check_product(b, reference, shapes[i][0], shapes[i][1], shapes[i][2], flags & 1 ? 3 : 0,
					              flags & 8 ? ELEMENT_BFLOAT16 : ELEMENT_FLOAT32, flags >> 1 & 1, flags >> 2 & 1);
		backend_destroy(b);
	}
	backend_destroy(reference);
}

/* A row's product has the same bits however many rows there are (of few, and of many). */
static void test_rows(void **state)
{
	(void)state;
	enum { ROWS = 70, N = 12, K = 20 };
	struct backend *b = cuda_new(PRODUCTS_BFLOAT16);
	struct matrix x = matrix_new(b, ROWS, K, 0, ELEMENT_BFLOAT16, 1), w = matrix_new(b, N, K, 0, ELEMENT_FLOAT32, 2),
	              all = matrix_new(b, ROWS, N, 0, ELEMENT_FLOAT32, 3), part = matrix_new(b, ROWS, N, 0, ELEMENT_FLOAT32, 4);
	op_linear(b, all.there, x.there, w.there, NULL, 0);
	for (int rows = 1; rows <= ROWS; rows += 23) {
		op_linear(b, tensor_rows(part.there, 0, rows), tensor_rows(x.there, ROWS - rows, rows), w.there, NULL, 0);
		struct tensor a = values(b, tensor_rows(all.there, ROWS - rows, rows)), p = values(b, tensor_rows(part.there, 0, rows));
		test_same_bits("rows", p, a);
		free(a.data);
		free(p.data);
	}
	struct matrix *each[] = {&x, &w, &all, &part};
	for (int i = 0; i < 4; i++)
		matrix_free(b, each[i]);
	backend_destroy(b);
}

/* What a product makes of 1 x 1 with that weight: the copy that it takes. */
static float seen_weight(struct backend *b, float *weight)
{
	struct matrix x = matrix_new(b, 1, 1, 0, b->operand, 1), y = matrix_new(b, 1, 1, 0, ELEMENT_FLOAT32, 2);
	const float one = 1;
	struct tensor wide = tensor_of(op_alloc(b, sizeof one), 1, 1);
	op_upload(b, wide.data, &one, sizeof one);
	op_cast(b, x.there, wide);
	op_linear(b, y.there, x.there, tensor_of(weight, 1, 1), NULL, 0);
	float got;
	op_download(b, &got, y.there.data, sizeof got);
	op_release(b, wide.data);
	matrix_free(b, &x);
	matrix_free(b, &y);
	return got;
}

/* The copy follows uploads, fills, the optimiser, and other writers by weights_changed. */
static void test_weights_follow(void **state)
{
	(void)state;
	enum { N = 300, AT = 137 };
	struct backend *b = cuda_new(PRODUCTS_BFLOAT16);
	float host[N], *w = op_alloc(b, sizeof host), *g = op_alloc(b, sizeof host), *m = op_alloc(b, sizeof host),
	                *v = op_alloc(b, sizeof host), now[N];
	for (int i = 0; i < N; i++)
		host[i] = test_number(3, i, 1);
	op_upload(b, w, host, sizeof host);
	op_upload(b, g, host, sizeof host);
	op_zero(b, m, sizeof host);
	op_zero(b, v, sizeof host);
	assert_true(seen_weight(b, w + AT) == rounded(host[AT]));
	const struct adamw how = {.lr = 0.125f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .max_norm = 1, .step = 1};
	const struct adamw_range part[] = {{100, 30, 0.1f}, {130, 70, 0}}; /* as a frozen tower leaves it */
	double *squares = op_alloc(b, sizeof *squares);
	op_sum_squares(b, squares, g, (const int64_t[]){100, 200}, 1);
	op_adamw(b, w, g, m, v, part, 2, squares, &how);
	op_weights_changed(b);
	op_download(b, now, w, sizeof now);
	assert_true(now[AT] != host[AT] && now[99] == host[99] && now[200] == host[200]);
	for (int i = 99; i <= 200; i++)
		assert_true(seen_weight(b, w + i) == rounded(now[i]));
	/* a gradient that is no number steps nothing, and the copy stays true */
	const double none = NAN;
	op_upload(b, squares, &none, sizeof none);
	op_adamw(b, w, g, m, v, part, 2, squares, &how);
	op_weights_changed(b);
	float same[N];
	op_download(b, same, w, sizeof same);
	assert_memory_equal(same, now, sizeof now);
	assert_true(seen_weight(b, w + AT) == rounded(now[AT]));
	op_upload(b, w, host, sizeof host);
	assert_true(seen_weight(b, w + AT) == rounded(host[AT]));
	op_zero(b, w, sizeof host);
	assert_true(seen_weight(b, w + AT) == 0);
	/* written by nobody that the backend knows of */
	struct tensor to = tensor_of(w, 1, N), from = tensor_of(g, 1, N);
	op_cast(b, to, from);
	op_weights_changed(b);
	assert_true(seen_weight(b, w + AT) == rounded(host[AT]));
	/* a block at an old one's address */
	op_release(b, w);
	w = op_alloc(b, sizeof host);
	op_zero(b, w, sizeof host);
	assert_true(seen_weight(b, w + AT) == 0);
	float *all[] = {w, g, m, v};
	for (int i = 0; i < 4; i++)
		op_release(b, all[i]);
	op_release(b, squares);
	backend_destroy(b);
}

/* More than all upload slots hold, and many small ones whose source is written over at once. */
static void test_uploads(void **state)
{
	(void)state;
	struct backend *b = cuda_new(PRODUCTS_FLOAT32);
	const int64_t n = (20 << 20) / 4;
	float *host = favor_malloc((size_t)n * sizeof *host), *back = favor_malloc((size_t)n * sizeof *back),
	      *there = op_alloc(b, (size_t)n * sizeof *there);
	for (int64_t i = 0; i < n; i++)
		host[i] = (float)(i % 9973);
	op_upload(b, there, host, (size_t)n * sizeof *host);
	memset(host, 0, (size_t)n * sizeof *host);
	op_download(b, back, there, (size_t)n * sizeof *back);
	for (int64_t i = 0; i < n; i++)
		assert_true(back[i] == (float)(i % 9973));
	for (int32_t i = 0; i < 1000; i++) {
		const float x = (float)i;
		op_upload(b, there + i, &x, sizeof x);
	}
	op_zero(b, there + 500, sizeof *there);
	op_download(b, back, there, 1000 * sizeof *back);
	for (int i = 0; i < 1000; i++)
		assert_true(back[i] == (i == 500 ? 0 : (float)i));
	op_release(b, there);
	free(host);
	free(back);
	backend_destroy(b);
}

/* Decoding over tokens: own keys grow past a chunk, a response ends, another begins; and prefill in between. */
static void test_attention(void **state)
{
	(void)state;
	enum { HEADS = 4, KV = 2, D = 8, ROWS = 700, Q = 3 };
	struct backend *reference = backend_reference_new(), *b = cuda_new(PRODUCTS_FLOAT32);
	struct matrix k = matrix_new(b, ROWS, KV * D, 0, ELEMENT_FLOAT32, 1), v = matrix_new(b, ROWS, KV * D, 0, ELEMENT_FLOAT32, 2),
	              q = matrix_new(b, Q, HEADS * D, 0, ELEMENT_FLOAT32, 3), o = matrix_new(b, Q, HEADS * D, 0, ELEMENT_FLOAT32, 4);
	float lse[HEADS * Q], *lse_there = op_alloc(b, sizeof lse);
	struct segment *there = op_alloc(b, Q * sizeof *there);
	for (int step = 0; step < 8; step++) {
		struct segment s[Q];
		int count = Q;
		for (int i = 0; i < Q; i++)
			s[i] = (struct segment){.q_start = i, .q_len = 1, .prefix_len = 70, .kv_start = 100 + 200 * i, .kv_len = 30 * step + i,
			                        .causal = 1};
		s[2].prefix_start = 71; /* another prompt */
		s[2].prefix_len = 9;
		s[1].kv_len += step == 5 ? 0 : 27;
		if (step == 6) { /* one prompt's prefill: three queries of one segment */
			count = 1;
			s[0] = (struct segment){.q_start = 0, .q_len = Q, .kv_start = 10, .kv_len = Q, .causal = 1};
		} else if (step == 7) {
			count = 2;
		}
		op_segments(b, there, s, count, 0);
		for (int layer = 0; layer < 2; layer++)
			op_attention(b, o.there, lse_there, q.there, k.there, v.there, HEADS, KV, 0.3f, there, count);
		op_attention(reference, o.host, lse, q.host, k.host, v.host, HEADS, KV, 0.3f, s, count);
		same("o", b, &o, o.host, 1e-5);
	}
	op_release(b, there);
	op_release(b, lse_there);
	struct matrix *each[] = {&k, &v, &q, &o};
	for (int i = 0; i < 4; i++)
		matrix_free(b, each[i]);
	backend_destroy(b);
	backend_destroy(reference);
}

static void call(void *run)
{
	(*(void (**)(void))run)();
}

/* In a child, which must end with code 1 and say `text`. */
static void expect_death(void (*run)(void), const char *text)
{
	char message[2048];
	const int status = run_apart(call, &run, message, sizeof message);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || !strstr(message, text))
		fail_msg("expected \"%s\" in \"%s\"", text, message);
}

static void too_much(void)
{
	struct backend *b = cuda_new(PRODUCTS_FLOAT32);
	op_alloc(b, (size_t)1 << 50);
}
static void bad_row(void)
{
	struct backend *b = cuda_new(PRODUCTS_FLOAT32);
	struct matrix x = matrix_new(b, 2, 3, 0, ELEMENT_FLOAT32, 1), y = matrix_new(b, 1, 3, 0, ELEMENT_FLOAT32, 2);
	const int32_t row = 2;
	int32_t *there = op_alloc(b, sizeof row);
	op_upload(b, there, &row, sizeof row);
	op_gather_rows(b, y.there, x.there, there);
	op_sync(b);
}
static void unknown_segments(void)
{
	struct backend *b = cuda_new(PRODUCTS_FLOAT32);
	struct matrix x = matrix_new(b, 2, 4, 0, ELEMENT_FLOAT32, 1);
	struct segment *there = op_alloc(b, sizeof *there);
	float *lse = op_alloc(b, 2 * sizeof *lse);
	op_attention(b, x.there, lse, x.there, x.there, x.there, 1, 1, 1, there, 1);
}
static void float_operand(void)
{
	struct backend *b = cuda_new(PRODUCTS_BFLOAT16);
	struct matrix x = matrix_new(b, 2, 4, 0, ELEMENT_FLOAT32, 1);
	op_linear(b, tensor_columns(x.there, 0, 2), x.there, x.there, NULL, 0);
}
static void narrow_on_cpu(void)
{
	struct backend *b = newest = backend_cpu_new(1);
	backend_set_products(b, PRODUCTS_BFLOAT16);
	float m[16] = {0};
	op_activation(b, tensor_of_type(m, 2, 4, ELEMENT_BFLOAT16), tensor_of_type(m, 2, 4, ELEMENT_BFLOAT16), ACT_GELU);
}

static void test_deaths(void **state)
{
	(void)state;
	expect_death(too_much, "out of memory on GPU 0");
	/* its launch is long over: what waits for it says so */
	expect_death(bad_row, "CUDA: cudaStreamSynchronize(s->stream) at backend/cuda/memory.c:");
	expect_death(bad_row, "unspecified launch failure (719)");
	expect_death(unknown_segments, "which op_segments did not make");
	expect_death(float_operand, "linear: x is stored as float32, but must be bfloat16");
	expect_death(narrow_on_cpu, "activation: x is stored as bfloat16, but the cpu backend takes float32 here");
}

int main(void)
{
	/* deaths first: a process that was forked from one that has used the GPU can't use it */
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_deaths),         cmocka_unit_test(test_products), cmocka_unit_test(test_rows),
	    cmocka_unit_test(test_weights_follow), cmocka_unit_test(test_uploads),  cmocka_unit_test(test_attention),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
