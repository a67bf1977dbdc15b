/* What the tests of the kernels share: matrices that live both on the device and, with the same values in float32, on the
 * host for the reference backend; comparison; running all tests with the threads in several orders. */
#ifndef FAVOR_TESTS_KERNELS_KERNEL_TEST_H
#define FAVOR_TESTS_KERNELS_KERNEL_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../kernels/kernels.h"
#include "backend/backend.h"
#include "device.h"

/* A matrix or, as one row, a vector. The device's elements and the host's have the same values until an op writes one of
 * them. Beside its columns the device holds 0xff bytes, which nobody may change. */
struct matrix {
	enum kernel_type type;
	int64_t rows, cols, stride;
	void *data;         /* on the device: row 0 */
	struct tensor host; /* owned; no padding */
	void *block;        /* owned, on the device: data lies in it */
	size_t bytes;
};

/* How the columns of a test's matrices lie: `pad` unused ones to the right, the first element `offset` elements from an
 * aligned address. */
struct layout {
	int64_t pad, offset;
};

/* Not written yet: 0xff bytes on the device, NaN on the host. */
struct matrix matrix_empty(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout);
/* Uniform in [-scale, scale), rounded to the type; element (t, k) depends on seed, t and k alone. */
struct matrix matrix_random(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout, uint64_t seed,
                            double scale);
/* Of the values in host[rows * cols], rounded to the type. */
struct matrix matrix_of(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout, const float *host);
void matrix_free(struct matrix *m);
/* An array on the device; owned: device_release. */
void *device_array(const void *host, size_t bytes);

/* The device's elements against the host's. float32: |got - want| <= relative |want| + absolute. bfloat16: at most one unit
 * in the last place from the rounded want, or within `absolute`. NaN agrees with NaN. Also: nothing beside the columns was
 * written, and the bytes are those that the same check saw when threads ran in another order. */
void matrix_check(const char *what, const struct matrix *m, double relative, double absolute);
/* The device's elements to have the bits of want[rows * cols], rounded to the type. */
void matrix_check_bits(const char *what, const struct matrix *m, const float *want);
/* The device's elements as floats[rows * cols]. Owned: free. */
float *matrix_values(const struct matrix *m);
/* A launcher's code and the wait after it must be 0. */
void launched(const char *what, int code);

float round_to(enum kernel_type type, float x);
const char *type_name(enum kernel_type type);

/* cmocka_run_group_tests for each order of the device's threads. */
int run_in_all_orders(const char *name, const struct CMUnitTest *tests, size_t count);

/* Whether a race ends the program: tests that race on purpose look elsewhere then. */
#if defined(__SANITIZE_THREAD__)
enum { RACES_ARE_FATAL = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { RACES_ARE_FATAL = 1 };
#else
enum { RACES_ARE_FATAL = 0 };
#endif
#else
enum { RACES_ARE_FATAL = 0 };
#endif

/* for each type */
#define FOR_TYPES(type) for (enum kernel_type type = KERNEL_F32; type <= KERNEL_BF16; type++)

#endif
