/* Gathering and scattering of rows against the reference backend, and what happens to a list with a row that is not there. */
#include "kernel_test.h"

#include "base/rng.h"

static const struct layout layouts[] = {{0, 0}, {3, 0}, {8, 8}, {0, 1}};
static const int64_t widths[] = {64, 1, 37, 1032};
enum { SOURCE_ROWS = 23, LONG = 700 };

/* A list of n entries below `limit`, about one in eight negative. distinct: no row twice. */
static int32_t *list(int64_t n, int32_t limit, int distinct, uint64_t seed)
{
	int32_t *rows = favor_malloc((size_t)(n + 1) * sizeof *rows);
	uint32_t order[64];
	rng_permutation(seed, RNG_INIT, 7, (uint32_t)limit, order);
	for (int64_t i = 0; i < n; i++) {
		double u = rng_uniform(seed, RNG_INIT, (uint64_t)i, 0, 0);
		rows[i] = distinct ? (int32_t)order[i] : (int32_t)(u * limit);
		if (i % 8 == 5)
			rows[i] = -1;
	}
	return rows;
}

static void test_gather_and_scatter(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int l = 0; l < 4; l++)
		FOR_TYPES(y_type)
			FOR_TYPES(x_type)
				for (int64_t n = 0; n < 20; n += n ? 18 : 1) {
					int64_t cols = widths[l];
					int32_t *rows = list(n, SOURCE_ROWS, 1, 3), *on_device = device_array(rows, (size_t)n * sizeof *rows);
					struct matrix x = matrix_random(x_type, SOURCE_ROWS, cols, layouts[l], 1, 2),
								  y = matrix_random(y_type, n, cols, layouts[l], 2, 2),
								  z = matrix_random(y_type, SOURCE_ROWS, cols, layouts[l], 4, 2),
								  v = matrix_random(x_type, n, cols, layouts[l], 5, 2);
					b->ops.gather_rows(b, y.host, x.host, rows);
					launched("gather_rows", kernel_gather_rows(y.data, y.stride, y_type, x.data, x.stride, x_type,
					                                           SOURCE_ROWS, on_device, n, cols, NULL));
					matrix_check_bits("gather_rows", &y, y.host.data);
					b->ops.scatter_rows(b, z.host, v.host, rows);
					launched("scatter_rows", kernel_scatter_rows(z.data, z.stride, y_type, SOURCE_ROWS, v.data, v.stride,
					                                             x_type, on_device, n, cols, NULL));
					matrix_check_bits("scatter_rows", &z, z.host.data);
					struct matrix *all[] = {&x, &y, &z, &v};
					for (int m = 0; m < 4; m++)
						matrix_free(all[m]);
					device_release(on_device);
					free(rows);
				}
	backend_destroy(b);
}

/* Rows repeat, across more entries than a block looks at together; the bits are those of adding one by one. */
static void test_scatter_add(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const int64_t lengths[] = {0, 1, 40, LONG};
	for (int l = 0; l < 4; l++)
		for (int length = 0; length < 4; length++)
			FOR_TYPES(type) {
				int64_t n = lengths[length], cols = n == LONG ? 5 + l : widths[l];
				int32_t *rows = list(n, SOURCE_ROWS, 0, 5), *on_device = device_array(rows, (size_t)n * sizeof *rows);
				struct matrix x = matrix_random(type, n, cols, layouts[l], 1, 2),
							  y = matrix_random(KERNEL_F32, SOURCE_ROWS, cols, layouts[l], 2, 2);
				b->ops.scatter_rows_add(b, y.host, x.host, rows);
				launched("scatter_rows_add", kernel_scatter_rows_add(y.data, y.stride, SOURCE_ROWS, x.data, x.stride,
				                                                     type, on_device, n, cols, NULL));
				matrix_check_bits("scatter_rows_add", &y, y.host.data);
				matrix_free(&x);
				matrix_free(&y);
				device_release(on_device);
				free(rows);
			}
	backend_destroy(b);
}

static void test_row_that_is_not_there(void **state)
{
	(void)state;
	if (device_orders() == 1)
		skip(); /* a trap would cost the GPU's context */
	const int32_t rows[] = {2, 4, 1};
	struct layout plain = {0, 0};
	int32_t *on_device = device_array(rows, sizeof rows);
	struct matrix x = matrix_random(KERNEL_F32, 4, 8, plain, 1, 1), y = matrix_random(KERNEL_F32, 3, 8, plain, 2, 1);
	for (int op = 0; op < 3; op++) {
		const int code =
		    op == 0   ? kernel_gather_rows(y.data, 8, KERNEL_F32, x.data, 8, KERNEL_F32, 4, on_device, 3, 8, NULL)
		    : op == 1 ? kernel_scatter_rows(x.data, 8, KERNEL_F32, 4, y.data, 8, KERNEL_F32, on_device, 3, 8, NULL)
		              : kernel_scatter_rows_add(x.data, 8, 4, y.data, 8, KERNEL_F32, on_device, 3, 8, NULL);
		assert_int_equal(code, 0); /* the launch knows nothing of it */
		assert_string_equal(kernel_error(device_wait()), "unspecified launch failure");
		assert_non_null(strstr(device_trap_message(), "entry 1 of the list is row 4 of 4"));
	}
	matrix_free(&x);
	matrix_free(&y);
	device_release(on_device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_gather_and_scatter), cmocka_unit_test(test_scatter_add),
	                                   cmocka_unit_test(test_row_that_is_not_there)};
	return run_in_all_orders("rows", tests, sizeof tests / sizeof *tests);
}
