/* Matrices on device and host, their comparison, and the runner: see kernel_test.h. */
#include "kernel_test.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/rng.h"

#include <stdio.h>

/* What checks saw in the first order of threads, one after another; later orders must see the same. */
static struct {
	uint64_t *hash;
	size_t count, room, next;
	int order;
} seen;

static size_t size_of(enum kernel_type type)
{
	return type == KERNEL_BF16 ? 2 : 4;
}

const char *type_name(enum kernel_type type)
{
	return type == KERNEL_BF16 ? "bfloat16" : "float32";
}

static uint16_t bfloat16_bits(float x)
{
	uint32_t bits;
	memcpy(&bits, &x, sizeof bits);
	if (isnan(x))
		return 0x7fff;
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float bfloat16_value(uint16_t bits)
{
	uint32_t wide = (uint32_t)bits << 16;
	float x;
	memcpy(&x, &wide, sizeof x);
	return x;
}

float round_to(enum kernel_type type, float x)
{
	return type == KERNEL_BF16 ? bfloat16_value(bfloat16_bits(x)) : x;
}

struct matrix matrix_empty(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout)
{
	int64_t stride = cols + layout.pad;
	/* the last row has no padding: what lies behind it is out of bounds */
	int64_t elements = layout.offset + (rows > 0 ? (rows - 1) * stride + cols : 0);
	struct matrix m = {type, rows, cols, stride, NULL, TENSOR_NONE, NULL, (size_t)elements * size_of(type)};
	m.block = device_alloc(m.bytes);
	m.data = (char *)m.block + (size_t)layout.offset * size_of(type);
	m.host = tensor_of(favor_malloc((size_t)(rows * cols + 1) * sizeof(float)), rows, cols);
	for (int64_t i = 0; i < rows * cols; i++)
		m.host.data[i] = NAN;
	return m;
}

static void put(struct matrix *m, unsigned char *bytes, int64_t row, int64_t col, float x)
{
	unsigned char *at = bytes + ((size_t)((char *)m->data - (char *)m->block)) +
	                    (size_t)(row * m->stride + col) * size_of(m->type);
	if (m->type == KERNEL_BF16) {
		uint16_t bits = bfloat16_bits(x);
		memcpy(at, &bits, sizeof bits);
	} else {
		memcpy(at, &x, sizeof x);
	}
}

static float get(const struct matrix *m, const unsigned char *bytes, int64_t row, int64_t col)
{
	const unsigned char *at = bytes + ((size_t)((char *)m->data - (char *)m->block)) +
	                          (size_t)(row * m->stride + col) * size_of(m->type);
	if (m->type == KERNEL_BF16) {
		uint16_t bits;
		memcpy(&bits, at, sizeof bits);
		return bfloat16_value(bits);
	}
	float x;
	memcpy(&x, at, sizeof x);
	return x;
}

/* host to device */
static void matrix_upload(struct matrix *m)
{
	unsigned char *bytes = favor_malloc(m->bytes + 1);
	memset(bytes, 0xff, m->bytes);
	for (int64_t i = 0; i < m->rows; i++)
		for (int64_t k = 0; k < m->cols; k++) {
			float *x = &m->host.data[i * m->cols + k];
			*x = round_to(m->type, *x);
			put(m, bytes, i, k, *x);
		}
	device_upload(m->block, bytes, m->bytes);
	free(bytes);
}

struct matrix matrix_random(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout, uint64_t seed,
                            double scale)
{
	struct matrix m = matrix_empty(type, rows, cols, layout);
	for (int64_t i = 0; i < rows; i++)
		for (int64_t k = 0; k < cols; k++)
			m.host.data[i * cols + k] =
				(float)((2 * rng_uniform(seed, RNG_INIT, (uint64_t)k, (uint32_t)i, 0) - 1) * scale);
	matrix_upload(&m);
	return m;
}

struct matrix matrix_of(enum kernel_type type, int64_t rows, int64_t cols, struct layout layout, const float *host)
{
	struct matrix m = matrix_empty(type, rows, cols, layout);
	memcpy(m.host.data, host, (size_t)(rows * cols) * sizeof *host);
	matrix_upload(&m);
	return m;
}

void matrix_free(struct matrix *m)
{
	device_release(m->block);
	free(m->host.data);
}

void *device_array(const void *host, size_t bytes)
{
	void *p = device_alloc(bytes);
	device_upload(p, host, bytes);
	return p;
}

/* Neighbouring numbers are neighbouring integers. */
static int32_t bfloat16_order(float x)
{
	uint16_t bits = bfloat16_bits(x);
	return bits & 0x8000 ? -(int32_t)(bits & 0x7fff) : bits;
}

static int agrees(enum kernel_type type, float got, float want, double relative, double absolute)
{
	if (isnan(want) || isnan(got))
		return isnan(want) && isnan(got);
	if (isinf(want) || isinf(got))
		return got == want || (type == KERNEL_BF16 && abs(bfloat16_order(got) - bfloat16_order(want)) <= 1);
	double error = fabs((double)got - want);
	if (type == KERNEL_BF16)
		return error <= absolute || abs(bfloat16_order(got) - bfloat16_order(want)) <= 1;
	return error <= relative * fabs((double)want) + absolute;
}

/* Downloads; checks what lies beside the columns, and that the order of threads changed nothing. Owned: free. */
static unsigned char *download_checked(const char *what, const struct matrix *m)
{
	unsigned char *bytes = favor_malloc(m->bytes + 1), *untouched = favor_malloc(m->bytes + 1);
	device_download(bytes, m->block, m->bytes);
	memcpy(untouched, bytes, m->bytes);
	size_t first = (size_t)((char *)m->data - (char *)m->block), size = size_of(m->type);
	for (int64_t i = 0; i < m->rows; i++)
		memset(untouched + first + (size_t)(i * m->stride) * size, 0xff, (size_t)m->cols * size);
	for (size_t i = 0; i < m->bytes; i++)
		if (untouched[i] != 0xff)
			fail_msg("%s [%lld, %lld] %s: byte %zu, beside the columns, was written", what, (long long)m->rows,
			         (long long)m->cols, type_name(m->type), i);
	free(untouched);

	uint64_t hash = hash_bytes(HASH_START, bytes, m->bytes);
	if (seen.order == 0) {
		if (seen.count == seen.room) {
			seen.room = 2 * seen.room + 1024;
			seen.hash = favor_realloc(seen.hash, seen.room * sizeof *seen.hash);
		}
		seen.hash[seen.count++] = hash;
	} else if (seen.next >= seen.count || seen.hash[seen.next++] != hash) {
		fail_msg("%s [%lld, %lld] %s: other bits than when threads ran in ascending order", what, (long long)m->rows,
		         (long long)m->cols, type_name(m->type));
	}
	return bytes;
}

void matrix_check(const char *what, const struct matrix *m, double relative, double absolute)
{
	unsigned char *bytes = download_checked(what, m);
	for (int64_t i = 0; i < m->rows; i++)
		for (int64_t k = 0; k < m->cols; k++) {
			float got = get(m, bytes, i, k), want = m->host.data[i * m->host.stride + k];
			if (!agrees(m->type, got, want, relative, absolute))
				fail_msg("%s[%lld, %lld] of [%lld, %lld] %s is %.9g, expected %.9g", what, (long long)i, (long long)k,
				         (long long)m->rows, (long long)m->cols, type_name(m->type), got, want);
		}
	free(bytes);
}

void matrix_check_bits(const char *what, const struct matrix *m, const float *want)
{
	unsigned char *bytes = download_checked(what, m);
	for (int64_t i = 0; i < m->rows; i++)
		for (int64_t k = 0; k < m->cols; k++) {
			float got = get(m, bytes, i, k), rounded = round_to(m->type, want[i * m->cols + k]);
			if (memcmp(&got, &rounded, sizeof got) && !(isnan(got) && isnan(rounded)))
				fail_msg("%s[%lld, %lld] of [%lld, %lld] %s is %.9g, not exactly %.9g", what, (long long)i, (long long)k,
				         (long long)m->rows, (long long)m->cols, type_name(m->type), got, rounded);
		}
	free(bytes);
}

float *matrix_values(const struct matrix *m)
{
	unsigned char *bytes = favor_malloc(m->bytes + 1);
	float *values = favor_malloc((size_t)(m->rows * m->cols + 1) * sizeof *values);
	device_download(bytes, m->block, m->bytes);
	for (int64_t i = 0; i < m->rows * m->cols; i++)
		values[i] = get(m, bytes, i / m->cols, i % m->cols);
	free(bytes);
	return values;
}

void launched(const char *what, int code)
{
	if (!code)
		code = device_wait();
	if (code)
		fail_msg("%s: %s", what, kernel_error(code));
}

int run_in_all_orders(const char *name, const struct CMUnitTest *tests, size_t count)
{
	int failures = 0;
	for (seen.order = 0; seen.order < device_orders(); seen.order++) {
		char title[128];
		snprintf(title, sizeof title, "%s, order %d", name, seen.order);
		device_set_order(seen.order);
		seen.next = 0;
		failures += _cmocka_run_group_tests(title, tests, count, NULL, NULL);
	}
	free(seen.hash);
	return failures;
}
