/* See onednn.h. */
#include "onednn.h"

#include "base/error.h"

#include <dnnl.h>
#include <stdlib.h>

struct onednn_product {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_primitive_t run;
	dnnl_memory_t a, w, c; /* w: packed, owned by the library */
};

static void check(dnnl_status_t status, const char *call)
{
	if (status != dnnl_success)
		favor_die("oneDNN: %s failed with status %d", call, (int)status);
}

static dnnl_memory_desc_t by_rows(int64_t rows, int64_t cols)
{
	dnnl_memory_desc_t d;
	check(dnnl_memory_desc_init_by_tag(&d, 2, (dnnl_dims_t){rows, cols}, dnnl_f32, dnnl_ab), "dnnl_memory_desc_init_by_tag");
	return d;
}

static dnnl_memory_t memory_of(struct onednn_product *p, const dnnl_memory_desc_t *d, const void *data)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, d, p->engine, (void *)data), "dnnl_memory_create");
	return m;
}

static void pack(struct onednn_product *p, const float *w, int64_t n, int64_t k, const dnnl_memory_desc_t *packed)
{
	dnnl_memory_desc_t lies; /* w^T, by columns */
	check(dnnl_memory_desc_init_by_tag(&lies, 2, (dnnl_dims_t){k, n}, dnnl_f32, dnnl_ba), "dnnl_memory_desc_init_by_tag");
	dnnl_primitive_desc_t d;
	dnnl_primitive_t reorder;
	check(dnnl_reorder_primitive_desc_create(&d, &lies, p->engine, packed, p->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	check(dnnl_primitive_create(&reorder, d), "dnnl_primitive_create");
	dnnl_memory_t from = memory_of(p, &lies, w);
	const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->w}};
	check(dnnl_primitive_execute(reorder, p->stream, 2, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(p->stream), "dnnl_stream_wait");
	dnnl_memory_destroy(from);
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(d);
}

struct onednn_product *onednn_product_new(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c)
{
	struct onednn_product *p = favor_calloc(1, sizeof *p);
	check(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "dnnl_engine_create");
	check(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags), "dnnl_stream_create");
	const dnnl_memory_desc_t left = by_rows(m, k), result = by_rows(m, n);
	dnnl_memory_desc_t right;
	check(dnnl_memory_desc_init_by_tag(&right, 2, (dnnl_dims_t){k, n}, dnnl_f32, dnnl_format_tag_any),
	      "dnnl_memory_desc_init_by_tag");
	dnnl_matmul_desc_t what;
	dnnl_primitive_desc_t d;
	check(dnnl_matmul_desc_init(&what, &left, &right, NULL, &result), "dnnl_matmul_desc_init");
	check(dnnl_primitive_desc_create(&d, &what, NULL, p->engine, NULL), "dnnl_primitive_desc_create");
	check(dnnl_primitive_create(&p->run, d), "dnnl_primitive_create");
	const dnnl_memory_desc_t packed = *dnnl_primitive_desc_query_md(d, dnnl_query_weights_md, 0);
	p->a = memory_of(p, &left, a);
	p->c = memory_of(p, &result, c);
	p->w = memory_of(p, &packed, DNNL_MEMORY_ALLOCATE);
	pack(p, w, n, k, &packed);
	dnnl_primitive_desc_destroy(d);
	return p;
}

void onednn_product_destroy(struct onednn_product *p)
{
	dnnl_memory_destroy(p->a);
	dnnl_memory_destroy(p->w);
	dnnl_memory_destroy(p->c);
	dnnl_primitive_destroy(p->run);
	dnnl_stream_destroy(p->stream);
	dnnl_engine_destroy(p->engine);
	free(p);
}

void onednn_product_run(struct onednn_product *p)
{
	const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->w}, {DNNL_ARG_DST, p->c}};
	check(dnnl_primitive_execute(p->run, p->stream, 3, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(p->stream), "dnnl_stream_wait");
}
