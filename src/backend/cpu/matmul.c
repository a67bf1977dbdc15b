/* Products: by oneDNN (onednn.c) where it has kernels that give a row the same bits whatever the number of rows and
 * threads - with AVX-512 -, else by this project's own kernel (own_product.c), which does so by construction.
 *
 * For oneDNN,
 *  - operands that are columns of a wider array are copied to dense ones first: it has no brg kernel for them;
 *  - the gradient of the weights is summed over at most SUM_ROWS rows at a time: with more, and many threads, it would
 *    split the sum over threads;
 *  - long batches go in pieces of a few sizes, since a primitive for every number of rows would cost more to compile
 *    than it saves.
 * bfloat16 products (enum products) are the own kernel's, of pairs of bfloat16 (own_product.h), summed in float32.
 *
 * Weights are packed once and kept until weights_changed (packed.c): always for the own kernel, for oneDNN where few
 * rows are bound by reading them. Packed or not gives the same bits. */
#include "backend/cpu/matmul.h"

#include "backend/cpu/cpu_state.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/own_product.h"
#include "backend/cpu/packed.h"
#include "backend/host_memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { SUM_ROWS = 1024, PIECE_ROWS_MIN = 16, PACKED_ROWS_MAX = 64 };
enum { WORTH_THREADS = 1 << 14 }; /* floats to move before threads pay */
enum { CHUNK_FLOATS = 4 << 20 };  /* most of an operand that the own kernel has packed for one product */

/* Memory that grows on demand. */
struct buffer {
	float *data;
	size_t floats;
};

struct matmul_state {
	struct onednn *onednn; /* NULL: this machine has no kernels of it that can be used */
	struct packed_weights *packed;
	int threads;
	struct buffer a, b, c, panels; /* dense copies for oneDNN; a packed operand for the own kernel */
};

static float *buffer_floats(struct buffer *b, size_t floats)
{
	if (floats > b->floats) {
		size_t bytes = (floats + floats / 4) * sizeof(float);
		free(b->data);
		b->data = host_memory(bytes);
		if (!b->data)
			favor_die("out of memory: a matrix product needs %zu bytes of working memory", bytes);
		b->floats = bytes / sizeof(float);
	}
	return b->data;
}

static union own_word *buffer_words(struct buffer *b, int64_t words)
{
	return (union own_word *)buffer_floats(b, (size_t)words);
}

static int is_dense(struct tensor t)
{
	return t.stride == t.cols || t.rows <= 1;
}

/* --- by the own kernel --- */

/* A product's numbers before they are words: a[m, k] b[k, n], element (i, j) of b is b[i * b_row + j * b_col]. */
struct own_right {
	const float *data;
	int64_t row, col, k;
};

static void own_pack_for(struct matmul_state *s, const struct own_product *p, union own_word *to,
                         const struct own_right *b)
{
	if (p->pairs)
		own_pack_pairs(to, b->data, b->row, b->col, b->k, p->n, s->threads);
	else
		own_pack(to, b->data, b->row, b->col, b->k, p->n, s->threads);
}

/* With panels that are kept from one product to the next; returns 0 if there is no room for them. */
static int own_kept_product(struct matmul_state *s, struct own_product p, struct tensor w, const struct own_right *b)
{
	const struct packed_key key = {w.data, w.rows, w.cols, p.pairs ? PACKED_PAIRS : PACKED_IN_PANELS};
	union own_word *kept = packed_weights_find(s->packed, &key);
	if (!kept) {
		kept = packed_weights_add(s->packed, &key, (size_t)own_packed_words(p.k, p.n) * sizeof *kept);
		if (!kept)
			return 0;
		own_pack_for(s, &p, kept, b);
	}
	p.panels = kept;
	own_product_run(&p, s->threads);
	return 1;
}

/* a w^T (transposed: w [n, k]) or a w, with what `p` says of a, bias and c. A whole weight to be transposed has its
 * panels kept; others, and those that are too large for that, are packed for this product, a part after the other. */
static void own_weight_product(struct matmul_state *s, struct own_product p, struct tensor w, int transposed)
{
	struct own_right b = {w.data, transposed ? 1 : w.stride, transposed ? w.stride : 1, transposed ? w.cols : w.rows};
	if (transposed && is_dense(w) && own_kept_product(s, p, w, &b))
		return;
	int64_t columns = CHUNK_FLOATS / (p.k ? p.k : 1) / PANEL * PANEL;
	if (columns < PANEL)
		columns = PANEL;
	union own_word *panels = buffer_words(&s->panels, own_packed_words(p.k, columns < p.n ? columns : p.n));
	struct own_product part = p;
	part.panels = panels;
	for (int64_t first = 0; first < p.n; first += columns) {
		part.n = p.n - first < columns ? p.n - first : columns;
		part.c = p.c + first;
		part.bias = p.bias ? p.bias + first : NULL;
		own_pack_for(s, &part, panels, &b);
		own_product_run(&part, s->threads);
		b.data += columns * b.col;
	}
}

/* x, whose rows are those of the result, as the left operand of p. */
static void own_left_rows(struct matmul_state *s, struct own_product *p, struct tensor x)
{
	p->m = x.rows;
	p->k = x.cols;
	p->a = (const union own_word *)x.data;
	p->a_row = x.stride;
	p->a_col = 1;
	if (p->pairs) {
		p->k = p->a_row = own_pairs(x.cols);
		union own_word *words = buffer_words(&s->a, x.rows * p->k);
		own_pair_columns(words, x.data, x.stride, x.rows, x.cols, s->threads);
		p->a = words;
	}
}

/* x^T, whose columns are the rows of the result. */
static void own_left_columns(struct matmul_state *s, struct own_product *p, struct tensor x)
{
	p->m = x.cols;
	p->k = x.rows;
	p->a = (const union own_word *)x.data;
	p->a_row = 1;
	p->a_col = x.stride;
	if (p->pairs) {
		p->k = own_pairs(x.rows);
		p->a_col = x.cols;
		union own_word *words = buffer_words(&s->a, x.cols * p->k);
		own_pair_rows(words, x.data, x.stride, x.cols, x.rows, s->threads);
		p->a = words;
	}
}

static void own_linear(struct matmul_state *s, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                       int accumulate, int pairs)
{
	struct own_product p = {
	    .pairs = pairs, .n = w.rows, .bias = bias, .c = y.data, .c_row = y.stride, .accumulate = accumulate};
	own_left_rows(s, &p, x);
	own_weight_product(s, p, w, 1);
}

static void own_backward_input(struct matmul_state *s, struct tensor dx, struct tensor dy, struct tensor w,
                               int accumulate, int pairs)
{
	struct own_product p = {.pairs = pairs, .n = w.cols, .c = dx.data, .c_row = dx.stride, .accumulate = accumulate};
	own_left_rows(s, &p, dy);
	own_weight_product(s, p, w, 0);
}

/* dw += dy^T x: x is the operand to pack. */
static void own_backward_weight(struct matmul_state *s, struct tensor dw, struct tensor dy, struct tensor x, int pairs)
{
	struct own_product p = {.pairs = pairs, .n = dw.cols, .c = dw.data, .c_row = dw.stride, .accumulate = 1};
	own_left_columns(s, &p, dy);
	own_weight_product(s, p, x, 0);
}

/* --- by oneDNN --- */

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

/* The packed copy of w, made if need be; NULL if it would take more memory than allowed. */
static const float *onednn_packed(struct matmul_state *s, struct tensor w)
{
	const struct packed_key key = {w.data, w.rows, w.cols, PACKED_FOR_ONEDNN};
	float *packed = packed_weights_find(s->packed, &key);
	if (!packed) {
		packed = packed_weights_add(s->packed, &key, onednn_packed_bytes(s->onednn, w.rows, w.cols));
		if (packed)
			onednn_pack(s->onednn, packed, w.data, w.rows, w.cols);
	}
	return packed;
}

static void onednn_fallback(struct matmul_state *s, const struct product *key, struct tensor c, struct tensor a,
                            struct tensor b, const float *bias)
{
	if (key->a == BY_COLUMNS)
		own_backward_weight(s, c, a, b, 0);
	else if (key->b == BY_COLUMNS)
		own_linear(s, c, a, b, bias, (int)key->accumulate, 0);
	else
		own_backward_input(s, c, a, b, (int)key->accumulate, 0);
}

/* c = a b + ..., where a and b are given as they lie (the transposed matrix if key says BY_COLUMNS). */
static void onednn_product(struct matmul_state *s, struct product key, struct tensor c, struct tensor a,
                           struct tensor b, const float *bias)
{
	if (key.m == 0 || key.n == 0)
		return;
	/* oneDNN takes its number of threads from OpenMP; the caller's setting comes back in the end */
	int threads = omp_get_max_threads();
	omp_set_num_threads(s->threads);
	struct onednn_primitive *p = onednn_for(s->onednn, &key);
	const float *packed = NULL;
	if (p && key.b == BY_COLUMNS && key.m <= PACKED_ROWS_MAX && is_dense(b))
		packed = onednn_packed(s, b);
	if (packed) {
		struct product packed_key = key;
		packed_key.b = PACKED;
		struct onednn_primitive *fast = onednn_for(s->onednn, &packed_key);
		if (!fast)
			packed = NULL;
		p = fast ? fast : onednn_for(s->onednn, &key); /* a look-up may have emptied the table */
	}
	if (p) {
		struct tensor dense_c = dense(s, &s->c, c, key.accumulate != 0), dense_a = dense(s, &s->a, a, 1);
		onednn_run(s->onednn, p, dense_a.data, packed ? packed : dense(s, &s->b, b, 1).data, bias, dense_c.data);
		if (dense_c.data != c.data)
			copy_rows(s, c, dense_c);
	} else {
		onednn_fallback(s, &key, c, a, b, bias);
	}
	omp_set_num_threads(threads);
}

/* Batches are of any number of rows; a row's bits don't depend on the piece that it is in. */
static int64_t piece_rows(int64_t rows)
{
	int64_t piece = SUM_ROWS;
	if (rows <= PIECE_ROWS_MIN)
		return rows;
	while (piece > rows)
		piece /= 2;
	return piece;
}

/* --- life --- */

static struct matmul_state *state_of(const struct backend *b)
{
	return ((struct cpu_state *)b->state)->matmul;
}

struct matmul_state *matmul_state_new(int threads)
{
	struct matmul_state *s = favor_calloc(1, sizeof *s);
	s->threads = threads;
	s->packed = packed_weights_new();
	s->onednn = onednn_new();
	if (!onednn_keeps_rows(s->onednn)) {
		onednn_destroy(s->onednn);
		s->onednn = NULL;
	}
	return s;
}

void matmul_state_destroy(struct matmul_state *s)
{
	if (!s)
		return;
	onednn_destroy(s->onednn);
	packed_weights_destroy(s->packed);
	free(s->a.data);
	free(s->b.data);
	free(s->c.data);
	free(s->panels.data);
	free(s);
}

void matmul_state_threads(struct matmul_state *s, int threads)
{
	if (threads != s->threads && s->onednn)
		onednn_forget(s->onednn);
	s->threads = threads;
}

void matmul_forget(struct matmul_state *s, const void *from, size_t bytes)
{
	packed_weights_forget(s->packed, from, bytes);
}

size_t matmul_packed_bytes(const struct matmul_state *s)
{
	return packed_weights_bytes(s->packed);
}

/* --- the slots --- */

/* oneDNN's bfloat16 kernels are not used. */
static int by_own_kernel(const struct backend *b)
{
	return !state_of(b)->onednn || b->products == PRODUCTS_BFLOAT16;
}

void cpu_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate)
{
	struct matmul_state *s = state_of(b);
	if (by_own_kernel(b)) {
		own_linear(s, y, x, w, bias, accumulate, b->products == PRODUCTS_BFLOAT16);
		return;
	}
	for (int64_t first = 0, rows; first < x.rows; first += rows) {
		rows = piece_rows(x.rows - first);
		struct product key = {.m = rows,
		                      .n = w.rows,
		                      .k = w.cols,
		                      .a = BY_ROWS,
		                      .b = BY_COLUMNS,
		                      .bias = bias != NULL,
		                      .accumulate = accumulate != 0};
		onednn_product(s, key, tensor_rows(y, first, rows), tensor_rows(x, first, rows), w, bias);
	}
}

void cpu_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	struct matmul_state *s = state_of(b);
	if (by_own_kernel(b)) {
		own_backward_input(s, dx, dy, w, accumulate, b->products == PRODUCTS_BFLOAT16);
		return;
	}
	for (int64_t first = 0, rows; first < dy.rows; first += rows) {
		rows = piece_rows(dy.rows - first);
		struct product key = {
		    .m = rows, .n = w.cols, .k = w.rows, .a = BY_ROWS, .b = BY_ROWS, .accumulate = accumulate != 0};
		onednn_product(s, key, tensor_rows(dx, first, rows), tensor_rows(dy, first, rows), w, NULL);
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
	struct matmul_state *s = state_of(b);
	int own = by_own_kernel(b);
	if (own && dy.rows)
		own_backward_weight(s, dw, dy, x, b->products == PRODUCTS_BFLOAT16);
	for (int64_t first = 0, rows; !own && first < dy.rows; first += rows) {
		rows = piece_rows(dy.rows - first);
		struct product key = {.m = dw.rows, .n = dw.cols, .k = rows, .a = BY_COLUMNS, .b = BY_ROWS, .accumulate = 1};
		onednn_product(s, key, dw, tensor_rows(dy, first, rows), tensor_rows(x, first, rows), NULL);
	}
	if (dbias)
		add_column_sums(dbias, dy, b->threads);
}

void cpu_weights_changed(struct backend *b)
{
	struct cpu_state *s = b->state;
	packed_weights_stale(s->matmul->packed);
	s->logits = (struct head_call){0};
}
