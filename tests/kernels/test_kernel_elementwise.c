/* Rotation, SwiGLU, activations, additions, casts and filling against the reference backend. */
#include "kernel_test.h"

#include "base/error.h"

#include <float.h>

struct shape {
	int64_t rows, cols;
	struct layout layout;
};

/* one row and none, columns that are no multiple of 8, padded and unaligned rows, more columns than a block takes at once,
 * many short rows; {0, 0} with whole rows is treated as one long row */
static const struct shape shapes[] = {{1, 64, {0, 0}},  {0, 64, {0, 0}}, {4, 0, {0, 0}}, {3, 1, {0, 0}},   {7, 37, {0, 0}},
                                      {5, 37, {3, 0}},  {6, 72, {8, 8}}, {5, 40, {0, 1}}, {2, 2056, {8, 0}}, {2, 2051, {13, 0}},
                                      {300, 8, {8, 0}}, {1, 5000, {0, 0}}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Numbers at which the functions are far from linear, or overflow on the way; the rest is random. */
static struct matrix wild(enum kernel_type type, struct shape s, uint64_t seed)
{
	static const float special[] = {0, -0.0f, 20, -20, 88, -88, 100, -100, 1e-30f, -1e-30f, 1e4f, -1e4f, 5.5f, -5.5f};
	struct matrix m = matrix_random(type, s.rows, s.cols, s.layout, seed, 4);
	for (int64_t i = 0; i < s.rows * s.cols; i += 3)
		m.host.data[i] = special[i / 3 % (int64_t)(sizeof special / sizeof *special)];
	struct matrix result = matrix_of(type, s.rows, s.cols, s.layout, m.host.data);
	matrix_free(&m);
	return result;
}

static void test_swiglu(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type) {
			struct shape s = shapes[i];
			struct matrix gate = wild(type, s, 1), up = matrix_random(type, s.rows, s.cols, s.layout, 2, 2),
						  dy = matrix_random(type, s.rows, s.cols, s.layout, 3, 2),
						  y = matrix_empty(type, s.rows, s.cols, s.layout),
						  dup = matrix_empty(type, s.rows, s.cols, s.layout);
			b->ops.swiglu(b, y.host, gate.host, up.host);
			launched("swiglu", kernel_swiglu(y.data, y.stride, gate.data, gate.stride, up.data, up.stride, type, s.rows,
			                                 s.cols, NULL));
			/* sigmoid(g) where g is far below 0 has the relative error of exp(-g): |g| roundings */
			matrix_check("swiglu y", &y, 1e-6, 4e-7);
			/* dgate in gate's place */
			b->ops.swiglu_backward(b, gate.host, dup.host, dy.host, gate.host, up.host);
			launched("swiglu_backward",
			         kernel_swiglu_backward(gate.data, gate.stride, dup.data, dup.stride, dy.data, dy.stride, gate.data,
			                                gate.stride, up.data, up.stride, type, s.rows, s.cols, NULL));
			matrix_check("swiglu dgate", &gate, 1e-6, 4e-7);
			matrix_check("swiglu dup", &dup, 1e-6, 4e-7);
			struct matrix *all[] = {&gate, &up, &dy, &y, &dup};
			for (int m = 0; m < 5; m++)
				matrix_free(all[m]);
		}
	backend_destroy(b);
}

/* gate and up as halves of one matrix, the result over the gate */
static void test_swiglu_halves(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	FOR_TYPES(type) {
		struct matrix both = matrix_random(type, 5, 48, (struct layout){0, 0}, 1, 3), y = matrix_empty(type, 5, 24, (struct layout){24, 0});
		b->ops.swiglu(b, tensor_columns(both.host, 0, 24), tensor_columns(both.host, 0, 24),
		              tensor_columns(both.host, 24, 24));
		char *up = (char *)both.data + 24 * (type == KERNEL_BF16 ? 2 : 4);
		launched("swiglu", kernel_swiglu(both.data, 48, both.data, 48, up, 48, type, 5, 24, NULL));
		matrix_check("swiglu of halves, in place", &both, 1e-6, 4e-7);
		matrix_free(&both);
		matrix_free(&y);
	}
	backend_destroy(b);
}

static void test_activations(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const struct {
		enum kernel_activation kernel;
		enum activation reference;
	} kinds[] = {{KERNEL_QUICK_GELU, ACT_QUICK_GELU}, {KERNEL_GELU, ACT_GELU}};
	for (int i = 0; i < SHAPES; i++)
		for (int kind = 0; kind < 2; kind++)
			FOR_TYPES(type) {
				struct shape s = shapes[i];
				struct matrix x = wild(type, s, 1), dy = matrix_random(type, s.rows, s.cols, s.layout, 3, 2),
							  y = matrix_empty(type, s.rows, s.cols, s.layout);
				b->ops.activation(b, y.host, x.host, kinds[kind].reference);
				launched("activation", kernel_activation(y.data, y.stride, x.data, x.stride, kinds[kind].kernel, type,
				                                         s.rows, s.cols, NULL));
				matrix_check(kind ? "gelu y" : "quick gelu y", &y, 1e-6, 4e-7);
				b->ops.activation_backward(b, dy.host, dy.host, x.host, kinds[kind].reference);
				launched("activation_backward",
				         kernel_activation_backward(dy.data, dy.stride, dy.data, dy.stride, x.data, x.stride,
				                                    kinds[kind].kernel, type, s.rows, s.cols, NULL));
				matrix_check(kind ? "gelu dx" : "quick gelu dx", &dy, 1e-6, 4e-7);
				struct matrix *all[] = {&x, &dy, &y};
				for (int m = 0; m < 3; m++)
					matrix_free(all[m]);
			}
	assert_int_not_equal(kernel_activation(NULL, 1, NULL, 1, (enum kernel_activation)9, KERNEL_F32, 1, 1, NULL), 0);
	backend_destroy(b);
}

static void test_add(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type)
			FOR_TYPES(c_type) {
				struct shape s = shapes[i];
				struct matrix a = wild(type, s, 1), c = matrix_random(c_type, s.rows, s.cols, s.layout, 2, 5),
							  y = matrix_empty(type, s.rows, s.cols, s.layout);
				b->ops.add(b, y.host, a.host, c.host);
				launched("add", kernel_add(y.data, y.stride, a.data, a.stride, type, c.data, c.stride, c_type, s.rows,
				                           s.cols, NULL));
				matrix_check_bits("add", &y, y.host.data);
				struct matrix bias = matrix_random(KERNEL_F32, 1, s.cols, (struct layout){0, 0}, 4, 1);
				for (int64_t t = 0; t < s.rows; t++)
					b->ops.add(b, tensor_rows(a.host, t, 1), tensor_rows(a.host, t, 1), bias.host);
				launched("add_bias", kernel_add_bias(a.data, a.stride, type, bias.data, s.rows, s.cols, NULL));
				matrix_check_bits("add_bias", &a, a.host.data);
				struct matrix *all[] = {&a, &c, &y, &bias};
				for (int m = 0; m < 4; m++)
					matrix_free(all[m]);
			}
	backend_destroy(b);
}

static void test_rope(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const struct {
		int64_t rows, heads, dim;
		struct layout layout;
	} cases[] = {{1, 2, 128, {0, 0}}, {0, 2, 128, {0, 0}}, {9, 16, 80, {0, 0}}, {5, 3, 16, {16, 0}},
	             {4, 2, 6, {1, 1}},   {3, 1, 2, {0, 0}},   {2, 12, 128, {0, 3}}, {70, 2, 16, {8, 0}}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		FOR_TYPES(type)
			for (int inverse = 0; inverse < 2; inverse++) {
				int64_t rows = cases[i].rows, half = cases[i].dim / 2, cols = cases[i].heads * cases[i].dim;
				struct matrix x = matrix_random(type, rows, cols, cases[i].layout, 1, 3),
							  cosine = matrix_random(KERNEL_F32, rows, half, cases[i].layout, 2, 1),
							  sine = matrix_random(KERNEL_F32, rows, half, cases[i].layout, 3, 1);
				b->ops.rope(b, x.host, (int)cases[i].heads, cosine.host, sine.host, inverse);
				launched("rope", kernel_rope(x.data, x.stride, type, cases[i].heads, cases[i].dim, cosine.data,
				                             cosine.stride, sine.data, sine.stride, inverse, rows, NULL));
				/* two products of up to 3, rounded once each */
				matrix_check("rope", &x, 1e-7, 3e-7);
				struct matrix *all[] = {&x, &cosine, &sine};
				for (int m = 0; m < 3; m++)
					matrix_free(all[m]);
			}
	assert_int_not_equal(kernel_rope(NULL, 1, KERNEL_F32, 1, 3, NULL, 1, NULL, 1, 0, 1, NULL), 0);
	backend_destroy(b);
}

/* A bfloat16 that is halfway between two goes to the even one; what is too large becomes infinite; NaN stays. */
static void test_cast(void **state)
{
	(void)state;
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(to)
			FOR_TYPES(from) {
				struct shape s = shapes[i];
				struct matrix x = wild(from, s, 1), y = matrix_empty(to, s.rows, s.cols, s.layout);
				launched("cast",
				         kernel_cast(y.data, y.stride, to, x.data, x.stride, from, s.rows, s.cols, NULL));
				matrix_check_bits("cast", &y, x.host.data);
				matrix_free(&x);
				matrix_free(&y);
			}
	const float in[] = {0x1.01p0f,  0x1.03p0f, 0x1.010002p0f, -0x1.01p0f, FLT_MAX, -FLT_MAX, INFINITY, NAN,
	                    0x1p-133f, 0x1p-134f, 0x1.8p-133f,   FLT_MIN,    -0.0f,   0x1.fep127f};
	const float want[] = {1,         0x1.04p0f, 0x1.02p0f,   -1,      INFINITY, -INFINITY, INFINITY, NAN,
	                      0x1p-133f, 0,         0x1p-132f, FLT_MIN, -0.0f,    0x1.fep127f};
	enum { N = sizeof in / sizeof *in };
	struct layout plain = {0, 0};
	struct matrix x = matrix_of(KERNEL_F32, 1, N, plain, in), y = matrix_empty(KERNEL_BF16, 1, N, plain);
	launched("cast", kernel_cast(y.data, N, KERNEL_BF16, x.data, N, KERNEL_F32, 1, N, NULL));
	matrix_check_bits("cast of special numbers", &y, want);
	matrix_free(&x);
	matrix_free(&y);
}

static void test_fill(void **state)
{
	(void)state;
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type)
			for (int way = 0; way < 2; way++) {
				struct shape s = shapes[i];
				struct matrix y = matrix_empty(type, s.rows, s.cols, s.layout);
				float value = way ? -1.25f : 0;
				for (int64_t k = 0; k < s.rows * s.cols; k++)
					y.host.data[k] = value;
				launched("fill", kernel_fill(y.data, y.stride, type, value, s.rows, s.cols, NULL));
				matrix_check_bits("fill", &y, y.host.data);
				matrix_free(&y);
			}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_swiglu),      cmocka_unit_test(test_swiglu_halves),
	                                   cmocka_unit_test(test_activations), cmocka_unit_test(test_add),
	                                   cmocka_unit_test(test_rope),        cmocka_unit_test(test_cast),
	                                   cmocka_unit_test(test_fill)};
	return run_in_all_orders("elementwise", tests, sizeof tests / sizeof *tests);
}
