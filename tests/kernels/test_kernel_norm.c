/* RMSNorm and LayerNorm kernels against the reference backend. */
#include "kernel_test.h"

struct shape {
	int64_t rows, cols;
	struct layout layout;
};

/* warp rows, blocks of 128 and of 256; one row, no rows, columns that are no multiple of 4, strides and addresses that
 * allow no wide access; rows that are no multiple of the 8 of a block, and more rows than backward has blocks */
static const struct shape shapes[] = {
	{1, 64, {0, 0}},    {0, 64, {0, 0}},   {5, 0, {0, 0}},    {3, 1, {0, 0}},     {9, 37, {3, 0}},
	{17, 128, {4, 4}},  {2, 512, {0, 0}},  {2, 513, {1, 1}},  {3, 1536, {8, 0}},  {2, 2047, {0, 3}},
	{2, 2048, {0, 0}},  {1, 2052, {0, 0}}, {2, 3584, {0, 1}}, {1, 8192, {0, 0}},  {300, 4, {0, 0}},
	{2200, 8, {0, 0}},  {13, 96, {2, 0}},  {1, 16384, {0, 0}}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const float eps = 1e-6f;

struct norm {
	struct matrix x, weight, bias, mean, rstd, y, dy, dx, dweight, dbias;
	float *scratch;
};

/* A typical row has values of size `scale` around `centre`. */
static struct norm norm_new(enum kernel_type type, struct shape s, double scale, float centre)
{
	struct layout plain = {0, 0};
	struct norm n = {
		.x = matrix_random(KERNEL_F32, s.rows, s.cols, s.layout, 1, scale),
		.weight = matrix_random(KERNEL_F32, 1, s.cols, plain, 2, 1),
		.bias = matrix_random(KERNEL_F32, 1, s.cols, plain, 3, 1),
		.mean = matrix_empty(KERNEL_F32, 1, s.rows, plain),
		.rstd = matrix_empty(KERNEL_F32, 1, s.rows, plain),
		.y = matrix_empty(type, s.rows, s.cols, s.layout),
		.dy = matrix_random(type, s.rows, s.cols, s.layout, 4, 1),
		.dx = matrix_random(KERNEL_F32, s.rows, s.cols, s.layout, 5, 1),
		.dweight = matrix_random(KERNEL_F32, 1, s.cols, plain, 6, 1),
		.dbias = matrix_random(KERNEL_F32, 1, s.cols, plain, 7, 1),
		.scratch = device_alloc((size_t)kernel_norm_scratch(s.rows, s.cols) * sizeof(float)),
	};
	if (centre != 0) {
		struct matrix x = n.x;
		for (int64_t i = 0; i < s.rows * s.cols; i++)
			x.host.data[i] += centre;
		n.x = matrix_of(KERNEL_F32, s.rows, s.cols, s.layout, x.host.data);
		matrix_free(&x);
	}
	return n;
}

static void norm_free(struct norm *n)
{
	struct matrix *all[] = {&n->x, &n->weight, &n->bias, &n->mean, &n->rstd, &n->y, &n->dy, &n->dx, &n->dweight, &n->dbias};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		matrix_free(all[i]);
	device_release(n->scratch);
}

/* The statistics that backward gets are the reference's, so that each direction is tested by itself. */
static float *to_device(const struct matrix *m)
{
	return device_array(m->host.data, (size_t)m->cols * sizeof(float));
}

static void rmsnorm_case(struct backend *b, enum kernel_type type, struct shape s, double scale)
{
	struct norm n = norm_new(type, s, scale, 0);
	b->ops.rmsnorm(b, n.y.host, n.rstd.host.data, n.x.host, n.weight.host.data, eps);
	launched("rmsnorm", kernel_rmsnorm(n.y.data, type, n.y.stride, n.rstd.data, n.x.data, n.x.stride, n.weight.data, eps,
	                                   s.rows, s.cols, NULL));
	matrix_check("rmsnorm y", &n.y, 1e-6, 0);
	matrix_check("rmsnorm rstd", &n.rstd, 1e-6, 0);

	float *rstd = to_device(&n.rstd);
	b->ops.rmsnorm_backward(b, n.dx.host, n.dweight.host.data, n.dy.host, n.x.host, n.weight.host.data,
	                        n.rstd.host.data);
	launched("rmsnorm_backward",
	         kernel_rmsnorm_backward(n.dx.data, n.dx.stride, n.dweight.data, n.dy.data, type, n.dy.stride, n.x.data,
	                                 n.x.stride, n.weight.data, rstd, n.scratch, s.rows, s.cols, NULL));
	/* a sum of terms of size r = 1 / scale, added to a number of size 1 */
	matrix_check("rmsnorm dx", &n.dx, 5e-7, 5e-7 / scale);
	matrix_check("rmsnorm dweight", &n.dweight, 5e-7, 5e-7 * sqrt((double)s.rows + 1));
	device_release(rstd);
	norm_free(&n);
}

static void test_rmsnorm(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type) {
			rmsnorm_case(b, type, shapes[i], 1);
		}
	rmsnorm_case(b, KERNEL_F32, shapes[4], 3e4);
	rmsnorm_case(b, KERNEL_BF16, shapes[5], 3e4);
	rmsnorm_case(b, KERNEL_F32, shapes[8], 1e-2);
	backend_destroy(b);
}

static void layernorm_case(struct backend *b, enum kernel_type type, struct shape s, float centre)
{
	struct norm n = norm_new(type, s, 1, centre);
	/* a mean that is large beside the deviations costs digits of x - mean; of one column nothing is left but eps */
	double loss = 1 + fabs(centre), r = s.cols > 1 ? 4 : 1000;
	b->ops.layernorm(b, n.y.host, n.mean.host.data, n.rstd.host.data, n.x.host, n.weight.host.data, n.bias.host.data,
	                 eps);
	launched("layernorm", kernel_layernorm(n.y.data, type, n.y.stride, n.mean.data, n.rstd.data, n.x.data, n.x.stride,
	                                       n.weight.data, n.bias.data, eps, s.rows, s.cols, NULL));
	matrix_check("layernorm y", &n.y, 1e-6, 5e-7 * loss);
	matrix_check("layernorm mean", &n.mean, 2e-7, 1e-7);
	matrix_check("layernorm rstd", &n.rstd, 1e-6 * loss, 0);

	float *mean = to_device(&n.mean), *rstd = to_device(&n.rstd);
	b->ops.layernorm_backward(b, n.dx.host, n.dweight.host.data, n.dbias.host.data, n.dy.host, n.x.host,
	                          n.weight.host.data, n.mean.host.data, n.rstd.host.data);
	launched("layernorm_backward",
	         kernel_layernorm_backward(n.dx.data, n.dx.stride, n.dweight.data, n.dbias.data, n.dy.data, type, n.dy.stride,
	                                   n.x.data, n.x.stride, n.weight.data, mean, rstd, n.scratch, s.rows, s.cols, NULL));
	matrix_check("layernorm dx", &n.dx, 5e-7, 5e-7 * r);
	matrix_check("layernorm dweight", &n.dweight, 5e-7, 5e-7 * sqrt((double)s.rows + 1));
	matrix_check("layernorm dbias", &n.dbias, 5e-7, 2e-7 * sqrt((double)s.rows + 1));
	device_release(mean);
	device_release(rstd);
	norm_free(&n);
}

static void test_layernorm(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type) {
			layernorm_case(b, type, shapes[i], 0);
		}
	layernorm_case(b, KERNEL_F32, shapes[8], 100);
	layernorm_case(b, KERNEL_BF16, shapes[4], 3);
	backend_destroy(b);
}

/* Frozen weights: no gradient of theirs, no scratch, the same dx. */
static void test_frozen(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	struct shape s = {9, 132, {0, 0}};
	struct norm n = norm_new(KERNEL_BF16, s, 1, 0);
	b->ops.layernorm(b, n.y.host, n.mean.host.data, n.rstd.host.data, n.x.host, n.weight.host.data, n.bias.host.data,
	                 eps);
	float *mean = to_device(&n.mean), *rstd = to_device(&n.rstd);
	b->ops.layernorm_backward(b, n.dx.host, NULL, n.dbias.host.data, n.dy.host, n.x.host, n.weight.host.data,
	                          n.mean.host.data, n.rstd.host.data);
	launched("layernorm_backward",
	         kernel_layernorm_backward(n.dx.data, n.dx.stride, NULL, n.dbias.data, n.dy.data, KERNEL_BF16, n.dy.stride,
	                                   n.x.data, n.x.stride, n.weight.data, mean, rstd, n.scratch, s.rows, s.cols, NULL));
	matrix_check("layernorm dx, weight frozen", &n.dx, 5e-7, 2e-6);
	matrix_check("layernorm dbias, weight frozen", &n.dbias, 5e-7, 1e-6);
	b->ops.rmsnorm_backward(b, n.dx.host, NULL, n.dy.host, n.x.host, n.weight.host.data, n.rstd.host.data);
	launched("rmsnorm_backward", kernel_rmsnorm_backward(n.dx.data, n.dx.stride, NULL, n.dy.data, KERNEL_BF16,
	                                                     n.dy.stride, n.x.data, n.x.stride, n.weight.data, rstd, NULL,
	                                                     s.rows, s.cols, NULL));
	matrix_check("rmsnorm dx, weight frozen", &n.dx, 5e-7, 4e-6);
	device_release(mean);
	device_release(rstd);
	norm_free(&n);
	backend_destroy(b);
}

/* A row has the same bits alone, among others, and where alignment allows no wide access. */
static void test_rows_are_alone(void **state)
{
	(void)state;
	int64_t sizes[] = {64, 1000, 2500};
	struct layout plain = {0, 0}, odd = {3, 1};
	for (int i = 0; i < 3; i++) {
		int64_t cols = sizes[i], rows = 11;
		struct norm n = norm_new(KERNEL_F32, (struct shape){rows, cols, plain}, 1, 0);
		launched("rmsnorm", kernel_rmsnorm(n.y.data, KERNEL_F32, n.y.stride, n.rstd.data, n.x.data, n.x.stride,
		                                   n.weight.data, eps, rows, cols, NULL));
		float *all = favor_malloc((size_t)(rows * cols) * sizeof *all);
		device_download(all, n.y.data, (size_t)(rows * cols) * sizeof *all);
		for (int64_t t = 0; t < rows; t += 5) {
			struct matrix x = matrix_of(KERNEL_F32, 1, cols, odd, n.x.host.data + t * cols),
						  y = matrix_empty(KERNEL_F32, 1, cols, odd);
			launched("rmsnorm", kernel_rmsnorm(y.data, KERNEL_F32, y.stride, n.rstd.data, x.data, x.stride,
			                                   n.weight.data, eps, 1, cols, NULL));
			matrix_check_bits("a row alone", &y, all + t * cols);
			matrix_free(&x);
			matrix_free(&y);
		}
		free(all);
		norm_free(&n);
	}
}

static void test_bad_sizes(void **state)
{
	(void)state;
	assert_int_not_equal(kernel_rmsnorm(NULL, KERNEL_F32, 0, NULL, NULL, 0, NULL, eps, -1, 4, NULL), 0);
	assert_int_not_equal(kernel_rmsnorm(NULL, (enum kernel_type)7, 0, NULL, NULL, 0, NULL, eps, 1, 4, NULL), 0);
	int code = kernel_rmsnorm_backward(NULL, 0, NULL, NULL, KERNEL_F32, 0, NULL, 0, NULL, NULL, NULL, 1,
	                                   KERNEL_NORM_COLS + 1, NULL);
	assert_string_equal(kernel_error(code), "invalid argument");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rmsnorm), cmocka_unit_test(test_layernorm),
	                                   cmocka_unit_test(test_frozen), cmocka_unit_test(test_rows_are_alone),
	                                   cmocka_unit_test(test_bad_sizes)};
	return run_in_all_orders("norm", tests, sizeof tests / sizeof *tests);
}
