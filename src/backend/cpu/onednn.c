/* See onednn.h. Creating primitives is costly: about a millisecond each, so they are kept. */
#include "backend/cpu/onednn.h"

#include "backend/backend.h"
#include "base/error.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, PRIMITIVES_MAX = 2048, PACK_ROWS = 64, PROBE = 64 };

struct onednn_primitive {
	struct onednn_primitive *next; /* in its bucket */
	struct product key;
	dnnl_primitive_t run;        /* NULL: no kernel that keeps rows independent */
	dnnl_memory_t a, b, c, bias; /* shapes without data; bias NULL if there is none */
};

struct onednn {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	int count; /* primitives */
	struct onednn_primitive *primitives[BUCKETS];
	int all_allowed;
};

void backend_cpu_library(char *text, size_t size)
{
	const dnnl_version_t *v = dnnl_version();
	snprintf(text, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

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
	check(dnnl_memory_desc_init_by_strides(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32,
	                                       (dnnl_dims_t){row_stride, col_stride}),
	      "dnnl_memory_desc_init_by_strides");
	return d;
}

/* oneDNN's own choice; resolved by packed_description */
static description describe_any(int64_t rows, int64_t cols)
{
	description d;
	check(dnnl_memory_desc_init_by_tag(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32, dnnl_format_tag_any),
	      "dnnl_memory_desc_init_by_tag");
	return d;
}

static description description_copy(const_dnnl_primitive_desc_t p, dnnl_query_t what)
{
	return *dnnl_primitive_desc_query_md(p, what, 0);
}

static size_t description_bytes(const description *d)
{
	return dnnl_memory_desc_get_size(d);
}

static void description_release(description *d)
{
	(void)d;
}

static dnnl_primitive_desc_t reorder_describe(struct onednn *s, const description *from, const description *to)
{
	dnnl_primitive_desc_t p;
	check(dnnl_reorder_primitive_desc_create(&p, from, s->engine, to, s->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	return p;
}

static dnnl_memory_t memory_of(struct onednn *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct onednn *s, const description *a, const description *b,
                                              const description *bias, const description *c,
                                              const_dnnl_primitive_attr_t attr)
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

static description describe_any(int64_t rows, int64_t cols)
{
	description d;
	check(dnnl_memory_desc_create_with_tag(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32, dnnl_format_tag_any),
	      "dnnl_memory_desc_create_with_tag");
	return d;
}

static description description_copy(const_dnnl_primitive_desc_t p, dnnl_query_t what)
{
	description d;
	check(dnnl_memory_desc_clone(&d, dnnl_primitive_desc_query_md(p, what, 0)), "dnnl_memory_desc_clone");
	return d;
}

static size_t description_bytes(const description *d)
{
	return dnnl_memory_desc_get_size(*d);
}

static void description_release(description *d)
{
	dnnl_memory_desc_destroy(*d);
}

static dnnl_primitive_desc_t reorder_describe(struct onednn *s, const description *from, const description *to)
{
	dnnl_primitive_desc_t p;
	check(dnnl_reorder_primitive_desc_create(&p, *from, s->engine, *to, s->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	return p;
}

static dnnl_memory_t memory_of(struct onednn *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, *d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct onednn *s, const description *a, const description *b,
                                              const description *bias, const description *c,
                                              const_dnnl_primitive_attr_t attr)
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

static uint64_t mix(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 32;
}

static description describe_ordered(int64_t rows, int64_t cols, int64_t order)
{
	return order == BY_ROWS ? describe(rows, cols, cols, 1) : describe(rows, cols, 1, rows);
}

static description packed_description(struct onednn *s, int64_t n, int64_t k)
{
	description a = describe_ordered(PACK_ROWS, k, BY_ROWS), b = describe_any(k, n);
	description c = describe_ordered(PACK_ROWS, n, BY_ROWS);
	dnnl_primitive_desc_t p = product_describe(s, &a, &b, NULL, &c, NULL);
	description d = description_copy(p, dnnl_query_weights_md);
	dnnl_primitive_desc_destroy(p);
	description_release(&a);
	description_release(&b);
	description_release(&c);
	return d;
}

static int keeps_rows_independent(const_dnnl_primitive_desc_t d)
{
	const char *name = "";
	check(dnnl_primitive_desc_query(d, dnnl_query_impl_info_str, 0, &name), "dnnl_primitive_desc_query");
	return !strncmp(name, "brg", 3);
}

static struct onednn_primitive *primitive_new(struct onednn *s, const struct product *key)
{
	struct onednn_primitive *p = favor_calloc(1, sizeof *p);
	p->key = *key;
	description a = describe_ordered(key->m, key->k, key->a), c = describe_ordered(key->m, key->n, BY_ROWS);
	description b = key->b == PACKED ? packed_description(s, key->n, key->k) : describe_ordered(key->k, key->n, key->b);
	description bias = describe_ordered(1, key->n, BY_ROWS);
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	check(dnnl_primitive_attr_create(&attr), "dnnl_primitive_attr_create");
	check(dnnl_post_ops_create(&ops), "dnnl_post_ops_create");
	if (key->accumulate)
		append_sum(ops);
	check(dnnl_primitive_attr_set_post_ops(attr, ops), "dnnl_primitive_attr_set_post_ops");
	dnnl_primitive_desc_t d = product_describe(s, &a, &b, key->bias ? &bias : NULL, &c, attr);
	if (s->all_allowed || keeps_rows_independent(d)) {
		check(dnnl_primitive_create(&p->run, d), "dnnl_primitive_create");
		p->a = memory_of(s, &a);
		p->b = memory_of(s, &b);
		p->c = memory_of(s, &c);
		p->bias = key->bias ? memory_of(s, &bias) : NULL;
	}
	dnnl_primitive_desc_destroy(d);
	dnnl_post_ops_destroy(ops);
	dnnl_primitive_attr_destroy(attr);
	description_release(&a);
	description_release(&b);
	description_release(&c);
	description_release(&bias);
	return p;
}

static void primitive_destroy(struct onednn_primitive *p)
{
	if (p->run) {
		dnnl_primitive_destroy(p->run);
		dnnl_memory_destroy(p->a);
		dnnl_memory_destroy(p->b);
		dnnl_memory_destroy(p->c);
	}
	if (p->bias)
		dnnl_memory_destroy(p->bias);
	free(p);
}

void onednn_forget(struct onednn *s)
{
	for (int i = 0; i < BUCKETS; i++) {
		while (s->primitives[i]) {
			struct onednn_primitive *p = s->primitives[i];
			s->primitives[i] = p->next;
			primitive_destroy(p);
		}
	}
	s->count = 0;
}

struct onednn_primitive *onednn_for(struct onednn *s, const struct product *key)
{
	const int64_t *words = (const int64_t *)key;
	uint64_t hash = 0;
	for (size_t i = 0; i < sizeof *key / sizeof *words; i++)
		hash = mix(hash, (uint64_t)words[i]);
	struct onednn_primitive **bucket = &s->primitives[hash % BUCKETS];
	for (struct onednn_primitive *p = *bucket; p; p = p->next)
		if (!memcmp(&p->key, key, sizeof *key))
			return p->run ? p : NULL;
	/* sequence lengths come and go: start anew rather than grow without end */
	if (s->count == PRIMITIVES_MAX)
		onednn_forget(s);
	struct onednn_primitive *p = primitive_new(s, key);
	p->next = *bucket;
	*bucket = p;
	s->count++;
	return p->run ? p : NULL;
}

void onednn_run(struct onednn *s, struct onednn_primitive *p, const float *a, const float *b, const float *bias,
                float *c)
{
	dnnl_exec_arg_t args[4] = {
	    {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}, {DNNL_ARG_BIAS, p->bias}};
	check(dnnl_memory_set_data_handle(p->a, (void *)a), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(p->b, (void *)b), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(p->c, c), "dnnl_memory_set_data_handle");
	if (p->bias)
		check(dnnl_memory_set_data_handle(p->bias, (void *)bias), "dnnl_memory_set_data_handle");
	check(dnnl_primitive_execute(p->run, s->stream, p->bias ? 4 : 3, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(s->stream), "dnnl_stream_wait");
}

/* --- packed weights --- */

size_t onednn_packed_bytes(struct onednn *s, int64_t n, int64_t k)
{
	description d = packed_description(s, n, k);
	size_t bytes = description_bytes(&d);
	description_release(&d);
	return bytes;
}

void onednn_pack(struct onednn *s, float *packed, const float *weight, int64_t n, int64_t k)
{
	description from = describe_ordered(k, n, BY_COLUMNS), to = packed_description(s, n, k);
	dnnl_primitive_desc_t d = reorder_describe(s, &from, &to);
	dnnl_primitive_t run;
	check(dnnl_primitive_create(&run, d), "dnnl_primitive_create");
	dnnl_memory_t source = memory_of(s, &from), target = memory_of(s, &to);
	check(dnnl_memory_set_data_handle(source, (void *)weight), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(target, packed), "dnnl_memory_set_data_handle");
	dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
	check(dnnl_primitive_execute(run, s->stream, 2, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(s->stream), "dnnl_stream_wait");
	dnnl_memory_destroy(source);
	dnnl_memory_destroy(target);
	dnnl_primitive_destroy(run);
	dnnl_primitive_desc_destroy(d);
	description_release(&from);
	description_release(&to);
}

/* --- life --- */

struct onednn *onednn_new(void)
{
	struct onednn *s = favor_calloc(1, sizeof *s);
	check(dnnl_engine_create(&s->engine, dnnl_cpu, 0), "dnnl_engine_create");
	check(dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags), "dnnl_stream_create");
	return s;
}

void onednn_destroy(struct onednn *s)
{
	if (!s)
		return;
	onednn_forget(s);
	dnnl_stream_destroy(s->stream);
	dnnl_engine_destroy(s->engine);
	free(s);
}

void onednn_allow_all(struct onednn *s)
{
	s->all_allowed = 1;
}

int onednn_keeps_rows(struct onednn *s)
{
	const struct product probe = {.m = PROBE, .n = PROBE, .k = PROBE, .a = BY_ROWS, .b = BY_COLUMNS};
	return onednn_for(s, &probe) != NULL;
}
