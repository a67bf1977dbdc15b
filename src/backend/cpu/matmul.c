/* Products by oneDNN. This is the one file that sees oneDNN's API; it covers versions 2 (Debian 12) and 3.
 *
 * A row of a result must have the same bits whatever the number of rows and threads. oneDNN's "brg" kernels keep that
 * promise (tests/backend/test_matmul.c), the others don't. So:
 *  - operands that are columns of a wider array are copied to dense ones first: oneDNN has no brg kernel for them;
 *  - where there is no brg kernel at all (before AVX-512 in version 2), own_product.c does the work;
 *  - the gradient of the weights is summed over at most SUM_ROWS rows at a time: with more, and many threads, oneDNN
 *    would split the sum over threads.
 *
 * A primitive is compiled for one shape; primitives are kept in a hash table by all that they depend on. Products of
 * few rows (decoding) are bound by reading the weights, and run up to twice as fast on a copy in oneDNN's blocked
 * layout; such copies are kept until weights_changed, up to PACKED_BYTES_MAX. They give the same bits. */
#include "backend/cpu/matmul.h"

#include "backend/cpu/cpu_state.h"
#include "backend/cpu/own_product.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1024, PRIMITIVES_MAX = 2048, SUM_ROWS = 1024, PIECE_ROWS_MIN = 16, PACKED_ROWS_MAX = 64, ALIGN = 64 };
enum { WORTH_THREADS = 1 << 14 }; /* floats to move before threads pay */
static const size_t PACKED_BYTES_MAX = (size_t)2 << 30;

/* How a matrix lies in memory: dense rows, dense columns, or in the layout that oneDNN likes best for it. */
enum order { BY_ROWS, BY_COLUMNS, PACKED };

/* c[m,n] = a[m,k] b[k,n] + bias[n] + c: all that a primitive depends on. */
struct product {
	int64_t m, n, k;
	int64_t a, b;             /* enum order; c lies by rows */
	int64_t bias, accumulate; /* 0 or 1 */
};

/* A compiled product. */
struct primitive {
	struct primitive *next; /* in its bucket */
	struct product key;
	dnnl_primitive_t run;        /* NULL: oneDNN has no brg kernel for it */
	dnnl_memory_t a, b, c, bias; /* shapes without data; bias NULL if there is none */
};

/* A weight's packed copy. */
struct packed {
	struct packed *next; /* in its bucket */
	const float *from;   /* borrowed: the weight [n, k], dense */
	int64_t n, k;
	float *data; /* owned */
	size_t bytes;
};

/* Memory that grows on demand. */
struct buffer {
	float *data;
	size_t floats;
};

struct matmul_state {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	int threads;
	int count; /* primitives */
	struct primitive *primitives[BUCKETS];
	struct packed *packed[BUCKETS];
	size_t packed_bytes;
	struct buffer a, b, c, panels; /* dense copies; own_product's memory */
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

static dnnl_primitive_desc_t reorder_describe(struct matmul_state *s, const description *from, const description *to)
{
	dnnl_primitive_desc_t p;
	check(dnnl_reorder_primitive_desc_create(&p, from, s->engine, to, s->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	return p;
}

static dnnl_memory_t memory_of(struct matmul_state *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct matmul_state *s, const description *a, const description *b,
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

static dnnl_primitive_desc_t reorder_describe(struct matmul_state *s, const description *from, const description *to)
{
	dnnl_primitive_desc_t p;
	check(dnnl_reorder_primitive_desc_create(&p, *from, s->engine, *to, s->engine, NULL),
	      "dnnl_reorder_primitive_desc_create");
	return p;
}

static dnnl_memory_t memory_of(struct matmul_state *s, const description *d)
{
	dnnl_memory_t m;
	check(dnnl_memory_create(&m, *d, s->engine, DNNL_MEMORY_NONE), "dnnl_memory_create");
	return m;
}

static dnnl_primitive_desc_t product_describe(struct matmul_state *s, const description *a, const description *b,
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

/* The layout of packed weights, a function of n and k alone so that one copy serves any number of rows. */
static description packed_description(struct matmul_state *s, int64_t n, int64_t k)
{
	description a = describe_ordered(PACKED_ROWS_MAX, k, BY_ROWS), b = describe_any(k, n);
	description c = describe_ordered(PACKED_ROWS_MAX, n, BY_ROWS);
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

static struct primitive *primitive_new(struct matmul_state *s, const struct product *key)
{
	struct primitive *p = favor_calloc(1, sizeof *p);
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
	if (keeps_rows_independent(d)) {
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

static void primitive_destroy(struct primitive *p)
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

static void primitives_clear(struct matmul_state *s)
{
	for (int i = 0; i < BUCKETS; i++) {
		while (s->primitives[i]) {
			struct primitive *p = s->primitives[i];
			s->primitives[i] = p->next;
			primitive_destroy(p);
		}
	}
	s->count = 0;
}

static struct primitive *primitive_for(struct matmul_state *s, const struct product *key)
{
	const int64_t *words = (const int64_t *)key;
	uint64_t hash = 0;
	for (size_t i = 0; i < sizeof *key / sizeof *words; i++)
		hash = mix(hash, (uint64_t)words[i]);
	struct primitive **bucket = &s->primitives[hash % BUCKETS];
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

static void primitive_run(struct matmul_state *s, struct primitive *p, const float *a, const float *b,
                          const float *bias, float *c)
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

/* --- dense copies and packed weights --- */

static float *aligned_floats(size_t floats)
{
	size_t bytes = (floats * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
	float *p = aligned_alloc(ALIGN, bytes ? bytes : ALIGN);
	if (!p)
		favor_die("out of memory: a matrix product needs %zu bytes of working memory", bytes);
	return p;
}

static float *buffer_floats(struct buffer *b, size_t floats)
{
	if (floats > b->floats) {
		free(b->data);
		b->data = aligned_floats(floats + floats / 4);
		b->floats = floats + floats / 4;
	}
	return b->data;
}

static int is_dense(struct tensor t)
{
	return t.stride == t.cols || t.rows <= 1;
}

static void copy_rows(struct matmul_state *s, struct tensor to, struct tensor from)
{
#pragma omp parallel for num_threads(s->threads) schedule(static) if (from.rows * from.cols > WORTH_THREADS)
	for (int64_t i = 0; i < from.rows; i++)
		memcpy(to.data + i * to.stride, from.data + i * from.stride, (size_t)from.cols * sizeof(float));
}

/* t itself if it is dense, else a dense copy in the buffer, filled if `fill`. */
static struct tensor dense(struct matmul_state *s, struct buffer *buffer, struct tensor t, int fill)
{
	if (is_dense(t))
		return t;
	struct tensor copy = tensor_of(buffer_floats(buffer, (size_t)t.rows * (size_t)t.cols), t.rows, t.cols);
	if (fill)
		copy_rows(s, copy, t);
	return copy;
}

static void pack(struct matmul_state *s, struct packed *p)
{
	description from = describe_ordered(p->k, p->n, BY_COLUMNS), to = packed_description(s, p->n, p->k);
	p->bytes = description_bytes(&to);
	p->data = aligned_floats((p->bytes + sizeof(float) - 1) / sizeof(float));
	dnnl_primitive_desc_t d = reorder_describe(s, &from, &to);
	dnnl_primitive_t run;
	check(dnnl_primitive_create(&run, d), "dnnl_primitive_create");
	dnnl_memory_t source = memory_of(s, &from), target = memory_of(s, &to);
	check(dnnl_memory_set_data_handle(source, (void *)p->from), "dnnl_memory_set_data_handle");
	check(dnnl_memory_set_data_handle(target, p->data), "dnnl_memory_set_data_handle");
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

/* The packed copy of w, made if need be; NULL if it would take more memory than allowed. */
static const float *packed_for(struct matmul_state *s, struct tensor w)
{
	struct packed **bucket = &s->packed[mix(0, (uintptr_t)w.data) % BUCKETS];
	for (struct packed *p = *bucket; p; p = p->next)
		if (p->from == w.data && p->n == w.rows && p->k == w.cols)
			return p->data;
	if (s->packed_bytes + (size_t)w.rows * (size_t)w.cols * sizeof(float) > PACKED_BYTES_MAX)
		return NULL;
	struct packed *p = favor_calloc(1, sizeof *p);
	p->from = w.data;
	p->n = w.rows;
	p->k = w.cols;
	pack(s, p);
	p->next = *bucket;
	*bucket = p;
	s->packed_bytes += p->bytes;
	return p->data;
}

void matmul_forget(struct matmul_state *s, const void *from, size_t bytes)
{
	uintptr_t first = (uintptr_t)from, end = first + bytes;
	for (int i = 0; i < BUCKETS && s->packed_bytes; i++) {
		for (struct packed **at = &s->packed[i]; *at;) {
			struct packed *p = *at;
			uintptr_t start = (uintptr_t)p->from;
			if (start >= end || start + (uintptr_t)(p->n * p->k) * sizeof(float) <= first) {
				at = &p->next;
				continue;
			}
			*at = p->next;
			s->packed_bytes -= p->bytes;
			free(p->data);
			free(p);
		}
	}
}

size_t matmul_packed_bytes(const struct matmul_state *s)
{
	return s->packed_bytes;
}

/* --- the slots --- */

static void product_own(struct matmul_state *s, const struct product *key, const float *a, const float *b,
                        const float *bias, float *c)
{
	struct own_product p = {.m = key->m,
	                        .n = key->n,
	                        .k = key->k,
	                        .a = a,
	                        .b = b,
	                        .bias = bias,
	                        .c = c,
	                        .c_row = key->n,
	                        .accumulate = (int)key->accumulate};
	p.a_row = key->a == BY_ROWS ? key->k : 1;
	p.a_col = key->a == BY_ROWS ? 1 : key->m;
	p.b_row = key->b == BY_ROWS ? key->n : 1;
	p.b_col = key->b == BY_ROWS ? 1 : key->k;
	own_product_run(&p, s->threads, buffer_floats(&s->panels, own_product_floats(&p, s->threads)));
}

/* c = a b + ..., where a and b are given as they lie (the transposed matrix if key says BY_COLUMNS). */
static void product_run(struct matmul_state *s, struct product key, struct tensor c, struct tensor a, struct tensor b,
                        const float *bias)
{
	if (key.m == 0 || key.n == 0)
		return;
	/* oneDNN takes its number of threads from OpenMP; the caller's setting comes back in the end */
	int threads = omp_get_max_threads();
	omp_set_num_threads(s->threads);
	struct tensor dense_c = dense(s, &s->c, c, key.accumulate != 0), dense_a = dense(s, &s->a, a, 1);
	struct primitive *p = primitive_for(s, &key);
	const float *packed = NULL;
	if (p->run && key.b == BY_COLUMNS && key.m <= PACKED_ROWS_MAX && is_dense(b))
		packed = packed_for(s, b);
	if (packed) {
		struct product packed_key = key;
		packed_key.b = PACKED;
		struct primitive *fast = primitive_for(s, &packed_key);
		if (fast->run)
			primitive_run(s, fast, dense_a.data, packed, bias, dense_c.data);
		else
			packed = NULL;
	}
	if (!packed) {
		struct tensor dense_b = dense(s, &s->b, b, 1);
		p = primitive_for(s, &key); /* the look-up above may have emptied the table */
		if (p->run)
			primitive_run(s, p, dense_a.data, dense_b.data, bias, dense_c.data);
		else
			product_own(s, &key, dense_a.data, dense_b.data, bias, dense_c.data);
	}
	if (dense_c.data != c.data)
		copy_rows(s, c, dense_c);
	omp_set_num_threads(threads);
}

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
	matmul_forget(s, NULL, UINTPTR_MAX);
	free(s->a.data);
	free(s->b.data);
	free(s->c.data);
	free(s->panels.data);
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

/* Batches are of any number of rows, and a primitive for each would cost more to compile than it saves. So long batches
 * go in pieces of a few sizes; a row's bits don't depend on the piece that it is in. */
static int64_t piece_rows(int64_t rows)
{
	int64_t piece = SUM_ROWS;
	if (rows <= PIECE_ROWS_MIN)
		return rows;
	while (piece > rows)
		piece /= 2;
	return piece;
}

void cpu_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate)
{
	for (int64_t first = 0, rows; first < x.rows; first += rows) {
		rows = piece_rows(x.rows - first);
		struct product key = {.m = rows,
		                      .n = w.rows,
		                      .k = w.cols,
		                      .a = BY_ROWS,
		                      .b = BY_COLUMNS,
		                      .bias = bias != NULL,
		                      .accumulate = accumulate != 0};
		product_run(state_of(b), key, tensor_rows(y, first, rows), tensor_rows(x, first, rows), w, bias);
	}
}

void cpu_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	for (int64_t first = 0, rows; first < dy.rows; first += rows) {
		rows = piece_rows(dy.rows - first);
		struct product key = {
		    .m = rows, .n = w.cols, .k = w.rows, .a = BY_ROWS, .b = BY_ROWS, .accumulate = accumulate != 0};
		product_run(state_of(b), key, tensor_rows(dx, first, rows), tensor_rows(dy, first, rows), w, NULL);
	}
}

static void add_column_sums(float *to, struct tensor t, int threads)
{
	enum { COLUMNS = 256 };
#pragma omp parallel for num_threads(threads) schedule(static) if (t.rows * t.cols > WORTH_THREADS)
	for (int64_t first = 0; first < t.cols; first += COLUMNS) {
		int64_t end = first + COLUMNS < t.cols ? first + COLUMNS : t.cols;
		for (int64_t i = 0; i < t.rows; i++)
			for (int64_t j = first; j < end; j++)
				to[j] += t.data[i * t.stride + j];
	}
}

void cpu_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x)
{
	for (int64_t first = 0, rows; first < dy.rows; first += rows) {
		rows = piece_rows(dy.rows - first);
		struct product key = {.m = dw.rows, .n = dw.cols, .k = rows, .a = BY_COLUMNS, .b = BY_ROWS, .accumulate = 1};
		product_run(state_of(b), key, dw, tensor_rows(dy, first, rows), tensor_rows(x, first, rows), NULL);
	}
	if (dbias)
		add_column_sums(dbias, dy, b->threads);
}

void cpu_weights_changed(struct backend *b)
{
	matmul_forget(state_of(b), NULL, UINTPTR_MAX);
}
