/* The device itself: exchanges inside a warp, atomics, traps, tensor core products and asynchronous copies do what CUDA's
 * documentation says; and the emulation shows the mistakes that it is for. With an argument the program makes one mistake
 * (a number of enum probe_mistake) and exits 0 if its result is right none the less: tests/kernels.sh runs that under
 * the sanitizers, which must end it. */
#include "kernel_test.h"

#include "../apart.h"
#include "probe.h"

static void test_product(void **state)
{
	(void)state;
	struct layout plain = {0, 0};
	struct matrix a = matrix_random(KERNEL_BF16, 16, 16, plain, 1, 1), b = matrix_random(KERNEL_BF16, 16, 8, plain, 2, 1);
	for (int way = 0; way < 2; way++) {
		struct matrix c = matrix_empty(KERNEL_F32, 16, 8, plain);
		for (int i = 0; i < 16; i++)
			for (int j = 0; j < 8; j++) {
				double sum = 0;
				for (int k = 0; k < 16; k++)
					sum += (double)a.host.data[i * 16 + k] * b.host.data[k * 8 + j];
				c.host.data[i * 8 + j] = (float)sum;
			}
		launched("probe_product", probe_product(c.data, a.data, b.data, way));
		matrix_check(way ? "product by ldmatrix" : "product by hand", &c, 1e-6, 1e-6);
		matrix_free(&c);
	}
	matrix_free(&a);
	matrix_free(&b);
}

static void test_exchanges(void **state)
{
	(void)state;
	int out[64][PROBE_EXCHANGES], *on_device = device_alloc(sizeof out);
	launched("probe_exchanges", probe_exchanges(on_device, 64));
	device_download(out, on_device, sizeof out);
	device_release(on_device);
	for (int t = 0; t < 64; t++) {
		int lane = t % 32, in_eight = lane % 8;
		assert_int_equal(out[t][0], 5);
		assert_int_equal(out[t][1], lane ^ 3);
		assert_int_equal(out[t][2], in_eight >= 2 ? lane - 2 : lane);
		assert_int_equal(out[t][3], in_eight < 6 ? lane + 2 : lane);
		assert_int_equal((unsigned)out[t][4], 0x49249249u);
		assert_int_equal(out[t][5], 1);
		assert_int_equal(out[t][6], 0);
		assert_int_equal((unsigned)out[t][7], lane < 16 ? 0xaaaau : 0xaaaa0000u);
	}
}

static void test_atomics_and_trap(void **state)
{
	(void)state;
	unsigned zero = 0, count, *on_device = device_array(&zero, sizeof zero);
	launched("probe_count", probe_count(on_device, 5 * 96, 5, 96));
	device_download(&count, on_device, sizeof count);
	assert_int_equal(count, 5 * 96);
	if (device_orders() > 1) { /* a GPU would be lost for the rest of the program */
		assert_int_equal(0, probe_count(on_device, 5 * 96, 1, 32)); /* the launch is over before its kernel fails */
		assert_int_equal(0, probe_count(on_device, 5 * 96, 1, 32)); /* no kernel runs behind it */
		assert_string_equal(kernel_error(device_wait()), "unspecified launch failure");
		assert_non_null(strstr(device_trap_message(), "of block 0 is one too many"));
		launched("the launch after a trap", probe_count(on_device, 1000, 1, 32));
	}
	device_release(on_device);
}

static void test_copies(void **state)
{
	(void)state;
	const float in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, want[8] = {1, 2, 3, 4, 5, 6, 0, 0};
	float out[8], *from = device_array(in, sizeof in), *to = device_alloc(sizeof out);
	launched("probe_copies", probe_copies(to, from, 1));
	device_download(out, to, sizeof out);
	assert_memory_equal(out, want, sizeof out);
	if (device_orders() > 1 && !RACES_ARE_FATAL) /* as late as they may, and at once */
		for (int order = 0; order < 2; order++) {
			device_set_order(order);
			launched("probe_copies", probe_copies(to, from, 0));
			device_download(out, to, sizeof out);
			assert_true(order ? out[0] == 1 : isnan(out[0]));
		}
	device_release(from);
	device_release(to);
}

/* out_0: what the blocks of PROBE_ACROSS_BLOCKS left in their common number; may be NULL */
static int neighbours_right(enum probe_mistake mistake, float *out_0)
{
	float out[5][64], *on_device = device_alloc(sizeof out);
	launched("probe_neighbours", probe_neighbours(on_device, 5, mistake));
	device_download(out, on_device, sizeof out);
	device_release(on_device);
	if (out_0)
		*out_0 = out[0][0];
	int right = 1;
	for (int b = 0; b < 5; b++)
		for (int t = b == 0 && mistake == PROBE_ACROSS_BLOCKS; t < 64; t++)
			right &= out[b][t] == (float)(63 - t);
	return right;
}

static void test_mistakes_show(void **state)
{
	(void)state;
	assert_true(neighbours_right(PROBE_NONE, NULL));
	if (device_orders() > 1) {
		assert_false(neighbours_right(PROBE_UNINITIALISED, NULL));
		float ascending, descending;
		device_set_order(0);
		assert_true(neighbours_right(PROBE_ACROSS_BLOCKS, &ascending));
		device_set_order(1);
		assert_true(neighbours_right(PROBE_ACROSS_BLOCKS, &descending));
		assert_true(ascending != descending);
	}
	if (device_orders() > 1 && !RACES_ARE_FATAL)
		assert_false(neighbours_right(PROBE_NO_BARRIER, NULL));
}

/* with its array of 256 bytes, a byte more than 48 KiB */
static void shared_without_opting_in(void)
{
	probe_shared(48 * 1024 - 255, 0);
}

static void test_shared_memory_has_a_limit(void **state)
{
	(void)state;
	/* the largest that needs no opting in, one that needs it for the array's sake alone, and what the smallest GPU has */
	const int good[] = {48 * 1024 - 256, 48 * 1024, 163 * 1024 - 256, 64};
	launched("48 KiB without opting in", probe_shared(good[0], 0));
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		launched("shared memory that is opted in to", probe_shared(good[i], 1));
	assert_string_equal(kernel_error(probe_shared(1 << 20, 1)), "invalid argument");
	launched("the launch after one that could not be", probe_shared(64, 1));
	assert_string_equal(kernel_error(probe_shared(64 * 1024, 0)), "invalid argument");
	launched("the launch after one that could not be", probe_shared(64, 0));
	if (device_orders() > 1 && !RACES_ARE_FATAL)
		expect_abort(shared_without_opting_in, "more shared memory than a block may have, or than was opted in to");
}

static void test_grids_have_limits(void **state)
{
	(void)state;
	const unsigned bad[][3] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {1, 65536, 1}, {1, 1, 65536}, {0x80000000u, 1, 1}};
	launched("a small grid", probe_grid(2, 2, 2));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_string_equal(kernel_error(probe_grid(bad[i][0], bad[i][1], bad[i][2])), "invalid configuration argument");
	launched("the launch after one that could not be", probe_grid(1, 1, 1));
}

static void misaligned(void)
{
	float *x = device_alloc(64);
	probe_wide(x, x + 5);
}

static void test_wide_accesses_are_aligned(void **state)
{
	(void)state;
	const float in[4] = {1, 2, 3, 4};
	float out[4], *from = device_array(in, sizeof in), *to = device_alloc(sizeof out);
	launched("probe_wide", probe_wide(to, from));
	device_download(out, to, sizeof out);
	assert_memory_equal(in, out, sizeof out);
	device_release(from);
	device_release(to);
	if (device_orders() > 1 && !RACES_ARE_FATAL)
		expect_abort(misaligned, "a misaligned access");
}

int main(int argc, char **argv)
{
	if (argc > 1)
		return !neighbours_right((enum probe_mistake)atoi(argv[1]), NULL);
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_product),       cmocka_unit_test(test_exchanges),
	                                   cmocka_unit_test(test_atomics_and_trap), cmocka_unit_test(test_copies),
	                                   cmocka_unit_test(test_mistakes_show), cmocka_unit_test(test_shared_memory_has_a_limit),
	                                   cmocka_unit_test(test_grids_have_limits),
	                                   cmocka_unit_test(test_wide_accesses_are_aligned)};
	return run_in_all_orders("emulation", tests, sizeof tests / sizeof *tests);
}
