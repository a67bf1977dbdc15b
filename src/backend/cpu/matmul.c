/* Products by oneDNN. This is the one file that sees oneDNN's API; it covers versions 2 (Debian 12) and 3.
 *
 * A oneDNN primitive is compiled for one shape, so primitives are kept in a hash table by everything that they depend on
 * (struct product). Rows of a result have the same bits whatever the number of rows and threads. */
#include "backend/cpu/matmul.h"

#include "backend/cpu/cpu_state.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* c[m,n] = (accumulate ? c : 0) + a[m,k] b[k,n] + bias[n]. All that a primitive depends on; strides in elements. */
struct product {
	int64_t m, n, k;
	int64_t a_row, a_col, b_row, b_col, c_row;
	int64_t bias, accumulate; /* 0 or 1 */
};

/* A compiled product. */
struct primitive {
	struct primitive *next; /* in its bucket */
	struct product key;
	dnnl_primitive_t run;
	dnnl_memory_t a, b, c, bias; /* shapes without data; bias NULL if there is none */
};

enum { BUCKETS = 1024, PRIMITIVES_MAX = 2048 };

struct matmul_state {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	int threads;
	int count;
	struct primitive *buckets[BUCKETS];
};

static void check(dnnl_status_t status, const char *call)
{
	if (status != dnnl_success)
		favor_die("oneDNN: %s failed with status %d", call, (int)status);
}

/* --- the two APIs --- */

#if DNNL_VERSION_MAJOR == 2
typedef dnnl_memory_desc_t description;

static description describe(int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride)
{
	description d;
	check(dnnl_memory_desc_init_by_strides(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32, (dnnl_dims_t){row_stride, col_stride}),
	      "dnnl_memory_desc_init_by_strides");
	return d;
}

static void description_release(description *d)
{
	(void)d;
}

static dnnl_memory_t memory_of(struct matmul_state *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct matmul_state *s, const description *a, const description *b,
                                              const description *bias, const description *c, const_dnnl_primitive_attr_t attr)
{
	dnnl_matmul_desc_t d;
	dnnl_primitive_desc_t p;
	check(dnnl_matmul_desc_init(&d, a, b, bias, c), "dnnl_matmul_desc_init");
	check(dnnl_primitive_desc_create(&p, &d, attr, s->engine, NULL), "dnnl_primitive_desc_create");
	return p;
}

static void append_sum(dnnl_post_ops_t ops)
{
	check(dnnl_post_ops_append_sum(ops, 1.0f), "dnnl_post_ops_append_sum");
}
#elif DNNL_VERSION_MAJOR == 3
typedef dnnl_memory_desc_t description; /* a handle here */

static description describe(int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride)
{
	description d;
	check(dnnl_memory_desc_create_with_strides(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32,
	                                           (dnnl_dims_t){row_stride, col_stride}),
	      "dnnl_memory_desc_create_with_strides");
	return d;
}

static void description_release(description *d)
{
	dnnl_memory_desc_destroy(*d);
}

static dnnl_memory_t memory_of(struct matmul_state *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, *d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct matmul_state *s, const description *a, const description *b,
                                              const description *bias, const description *c, const_dnnl_primitive_attr_t attr)
{
	dnnl_primitive_desc_t p;
	check(dnnl_matmul_primitive_desc_create(&p, s->engine, *a, *b, bias ? *bias : NULL, *c, attr),
	      "dnnl_matmul_primitive_desc_create");
	return p;
}

static void append_sum(dnnl_post_ops_t ops)
{
	check(dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_f32), "dnnl_post_ops_append_sum");
}
#else
#error "favor knows oneDNN 2.x and 3.x"
#endif

/* --- primitives --- */

static struct primitive *primitive_new(struct matmul_state *s, const struct product *key)
{
	struct primitive *p = favor_calloc(1, sizeof *p);
	p->key = *key;
	description a = describe(key->m, key->k, key->a_row, key->a_col);
	description b = describe(key->k, key->n, key->b_row, key->b_col);
	description c = describe(key->m, key->n, key->c_row, 1), bias = describe(1, key->n, key->n, 1);
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	check(dnnl_primitive_attr_create(&attr), "dnnl_primitive_attr_create");
	check(dnnl_post_ops_create(&ops), "dnnl_post_ops_create");
	if (key->accumulate)
		append_sum(ops);
	check(dnnl_primitive_attr_set_post_ops(attr, ops), "dnnl_primitive_attr_set_post_ops");
	dnnl_primitive_desc_t d = product_describe(s, &a, &b, key->bias ? &bias : NULL, &c, attr);
	check(dnnl_primitive_create(&p->run, d), "dnnl_primitive_create");
	p->a = memory_of(s, &a);
	p->b = memory_of(s, &b);
	p->c = memory_of(s, &c);
	if (key->bias)
		p->bias = memory_of(s, &bias);
	dnnl_primitive_desc_destroy(d);
	dnnl_post_ops_destroy(ops);
	dnnl_primitive_attr_destroy(attr);
	description_release(&a);
	description_release(&b);
	description_release(&c);
	description_release(&bias);
	return p;
}

static void primitive_destroy(struct primitive *p)
{
	dnnl_primitive_destroy(p->run);
	dnnl_memory_destroy(p->a);
	dnnl_memory_destroy(p->b);
	dnnl_memory_destroy(p->c);
	if (p->bias)
		dnnl_memory_destroy(p->bias);
	free(p);
}

static void primitives_clear(struct matmul_state *s)
{
	for (int i = 0; i < BUCKETS; i++) {
		while (s->buckets[i]) {
			struct primitive *p = s->buckets[i];
			s->buckets[i] = p->next;
			primitive_destroy(p);
		}
	}
	s->count = 0;
}

static uint64_t product_hash(const struct product *key)
{
	const int64_t *word = (const int64_t *)key;
	uint64_t h = 0;
	for (size_t i = 0; i < sizeof *key / sizeof *word; i++)
		h = (h ^ (uint64_t)word[i]) * 0x9e3779b97f4a7c15u + (h >> 29);
	return h ^ h >> 32;
}

static struct primitive *primitive_for(struct matmul_state *s, const struct product *key)
{
	struct primitive **bucket = &s->buckets[product_hash(key) % BUCKETS];
	for (struct primitive *p = *bucket; p; p = p->next)
		if (!memcmp(&p->key, key, sizeof *key))
			return p;
	/* sequence lengths come and go: start anew rather than grow without end */
	if (s->count == PRIMITIVES_MAX)
		primitives_clear(s);
	struct primitive *p = primitive_new(s, key);
	p->next = *bucket;
	*bucket = p;
	s->count++;
	return p;
}

static void product_run(struct matmul_state *s, const struct product *key, const float *a, const float *b, const float *bias,
                        float *c)
{
	if (key->m == 0 || key->n == 0)
		return;
	int threads = omp_get_max_threads();
	omp_set_num_threads(s->threads);
	struct primitive *p = primitive_for(s, key);
	dnnl_exec_arg_t args[4] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}, {DNNL_ARG_BIAS, p->bias}};
	check(dnnl_memory_set_data_handle(p->a, (void *)a), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(p->b, (void *)b), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(p->c, c), "dnnl_memory_set_data_handle");
	if (p->bias)
		check(dnnl_memory_set_data_handle(p->bias, (void *)bias), "dnnl_memory_set_data_handle");
	check(dnnl_primitive_execute(p->run, s->stream, p->bias ? 4 : 3, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(s->stream), "dnnl_stream_wait");
	omp_set_num_threads(threads);
}

/* --- the slots --- */

static struct matmul_state *state_of(struct backend *b)
{
	return ((struct cpu_state *)b->state)->matmul;
}

struct matmul_state *matmul_state_new(int threads)
{
	struct matmul_state *s = favor_calloc(1, sizeof *s);
	s->threads = threads;
	check(dnnl_engine_create(&s->engine, dnnl_cpu, 0), "dnnl_engine_create");
	check(dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags), "dnnl_stream_create");
	return s;
}

void matmul_state_destroy(struct matmul_state *s)
{
	if (!s)
		return;
	primitives_clear(s);
	dnnl_stream_destroy(s->stream);
	dnnl_engine_destroy(s->engine);
	free(s);
}

void matmul_state_threads(struct matmul_state *s, int threads)
{
	/* a primitive plans its split over threads when it is made */
	if (threads != s->threads)
		primitives_clear(s);
	s->threads = threads;
}

void cpu_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate)
{
	struct product key = {.m = x.rows, .n = w.rows, .k = w.cols, .a_row = x.stride, .a_col = 1, .b_row = 1, .b_col = w.stride,
	                      .c_row = y.stride, .bias = bias != NULL, .accumulate = accumulate != 0};
	product_run(state_of(b), &key, x.data, w.data, bias, y.data);
}

void cpu_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	struct product key = {.m = dy.rows, .n = w.cols, .k = w.rows, .a_row = dy.stride, .a_col = 1, .b_row = w.stride,
	                      .b_col = 1, .c_row = dx.stride, .accumulate = accumulate != 0};
	product_run(state_of(b), &key, dy.data, w.data, NULL, dx.data);
}

void cpu_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x)
{
	struct product key = {.m = dw.rows, .n = dw.cols, .k = dy.rows, .a_row = 1, .a_col = dy.stride, .b_row = x.stride,
	                      .b_col = 1, .c_row = dw.stride, .accumulate = 1};
	if (dy.rows == 0)
		return;
	product_run(state_of(b), &key, dy.data, x.data, NULL, dw.data);
	if (dbias) {
		for (int64_t t = 0; t < dy.rows; t++)
			for (int64_t n = 0; n < dy.cols; n++)
				dbias[n] += dy.data[t * dy.stride + n];
	}
}

void cpu_weights_changed(struct backend *b)
{
	(void)b; /* nothing is packed yet */
}
