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

static dnnl_memory_desc_t layout(int64_t rows, int64_t cols, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
	dnnl_memory_desc_t d;
	check(dnnl_memory_desc_init_by_tag(&d, 2, (dnnl_dims_t){rows, cols}, type, tag), "dnnl_memory_desc_init_by_tag");
	return d;
}

static dnnl_memory_t memory_of(struct onednn_product *p, const dnnl_memory_desc_t *d, const void *data)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, d, p->engine, (void *)data), "dnnl_memory_create");
	return m;
}

/* What lies at `data` as described, laid out and rounded as `to` wants it, in memory of the library's. */
static dnnl_memory_t copy_of(struct onednn_product *p, const float *data, dnnl_memory_desc_t lies, const dnnl_memory_desc_t *to)
{
	dnnl_primitive_desc_t d;
	dnnl_primitive_t reorder;
	check(dnnl_reorder_primitive_desc_create(&d, &lies, p->engine, to, p->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	check(dnnl_primitive_create(&reorder, d), "dnnl_primitive_create");
	dnnl_memory_t from = memory_of(p, &lies, data), copy = memory_of(p, to, DNNL_MEMORY_ALLOCATE);
	const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, copy}};
	check(dnnl_primitive_execute(reorder, p->stream, 2, args), "dnnl_primitive_execute");
	check(dnnl_stream_wait(p->stream), "dnnl_stream_wait");
	dnnl_memory_destroy(from);
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(d);
	return copy;
}

struct onednn_product *onednn_product_new(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c,
                                          int bfloat16)
{
	struct onednn_product *p = favor_calloc(1, sizeof *p);
	const dnnl_data_type_t type = bfloat16 ? dnnl_bf16 : dnnl_f32;
	check(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "dnnl_engine_create");
	check(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags), "dnnl_stream_create");
	const dnnl_memory_desc_t left = layout(m, k, type, dnnl_ab), right = layout(k, n, type, dnnl_format_tag_any),
	                         result = layout(m, n, dnnl_f32, dnnl_ab);
	dnnl_matmul_desc_t what;
	dnnl_primitive_desc_t d;
	check(dnnl_matmul_desc_init(&what, &left, &right, NULL, &result), "dnnl_matmul_desc_init");
	const dnnl_status_t status = dnnl_primitive_desc_create(&d, &what, NULL, p->engine, NULL);
	if (status == dnnl_unimplemented) { /* no such product on this CPU */
		onednn_product_destroy(p);
		return NULL;
	}
	check(status, "dnnl_primitive_desc_create");
	check(dnnl_primitive_create(&p->run, d), "dnnl_primitive_create");
	p->a = bfloat16 ? copy_of(p, a, layout(m, k, dnnl_f32, dnnl_ab), &left) : memory_of(p, &left, a);
	p->w = copy_of(p, w, layout(k, n, dnnl_f32, dnnl_ba), dnnl_primitive_desc_query_md(d, dnnl_query_weights_md, 0));
	p->c = memory_of(p, &result, c);
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
