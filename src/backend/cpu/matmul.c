/* Products by product.c's kernel: on floats, or, as enum products says, on operands rounded to bfloat16.
 *
 * Weights are packed once and kept until weights_changed (packed.c); what is packed for one product goes in parts, so
 * that the working memory is bounded. */
#include "backend/cpu/matmul.h"

#include "backend/cpu/cpu_state.h"
#include "backend/cpu/packed.h"
#include "backend/cpu/product.h"
#include "backend/host_memory.h"

#include <stdlib.h>

enum { WORTH_THREADS = 1 << 14 }; /* floats to add before threads pay */
enum { CHUNK_WORDS = 4 << 20 };   /* most of an operand that is packed for one product */

/* Memory that grows on demand. */
struct buffer {
	union product_word *data;
	size_t words;
};

struct matmul_state {
	struct packed_weights *packed;
	int threads;
	struct buffer left, panels; /* operands that are made for one product */
};

static union product_word *buffer_words(struct buffer *b, int64_t words)
{
	if ((size_t)words > b->words) {
		size_t bytes = ((size_t)words + (size_t)words / 4) * sizeof *b->data;
		free(b->data);
		b->data = host_memory(bytes);
		if (!b->data)
			favor_die("out of memory: a matrix product needs %zu bytes of working memory", bytes);
		b->words = bytes / sizeof *b->data;
	}
	return b->data;
}

/* A product's numbers before they are words: a[m, k] b[k, n], element (i, j) of b is b[i * b_row + j * b_col]. */
struct right {
	const float *data;
	int64_t row, col, k;
};

static void pack_right(struct matmul_state *s, const struct product *p, union product_word *to, const struct right *b)
{
	if (p->pairs)
		product_pack_pairs(to, b->data, b->row, b->col, b->k, p->n, s->threads);
	else
		product_pack(to, b->data, b->row, b->col, b->k, p->n, s->threads);
}

/* With panels that are kept from one product to the next; returns 0 if there is no room for them. */
static int kept_product(struct matmul_state *s, struct product p, struct tensor w, const struct right *b)
{
	const struct packed_key key = {w.data, w.rows, w.cols, p.pairs ? PACKED_PAIRS : PACKED_FLOATS};
	union product_word *kept = packed_weights_find(s->packed, &key);
	if (!kept) {
		kept = packed_weights_add(s->packed, &key, (size_t)product_packed_words(p.k, p.n) * sizeof *kept);
		if (!kept)
			return 0;
		pack_right(s, &p, kept, b);
	}
	p.panels = kept;
	product_run(&p, s->threads);
	return 1;
}

/* a w^T (transposed: w [n, k]) or a w, with what `p` says of a, bias and c. A whole weight to be transposed has its
 * panels kept; others, and those that are too large for that, are packed for this product, a part after the other. */
static void weight_product(struct matmul_state *s, struct product p, struct tensor w, int transposed)
{
	struct right b = {w.data, transposed ? 1 : w.stride, transposed ? w.stride : 1, transposed ? w.cols : w.rows};
	if (!p.m) /* there may be no memory for no rows */
		return;
	if (transposed && w.stride == w.cols && kept_product(s, p, w, &b))
		return;
	int64_t columns = CHUNK_WORDS / (p.k ? p.k : 1) / PANEL * PANEL;
	if (columns < PANEL)
		columns = PANEL;
	union product_word *panels = buffer_words(&s->panels, product_packed_words(p.k, columns < p.n ? columns : p.n));
	struct product part = p;
	part.panels = panels;
	for (int64_t first = 0; first < p.n; first += columns) {
		part.n = p.n - first < columns ? p.n - first : columns;
		part.c = p.c + first;
		part.bias = p.bias ? p.bias + first : NULL;
		pack_right(s, &part, panels, &b);
		product_run(&part, s->threads);
		b.data = b.data ? b.data + columns * b.col : NULL; /* nor for a sum of nothing */
	}
}

/* x, whose rows are those of the result, as the left operand of p. */
static void left_rows(struct matmul_state *s, struct product *p, struct tensor x)
{
	p->m = x.rows;
	p->k = x.cols;
	p->a = (const union product_word *)x.data;
	p->a_row = x.stride;
	p->a_col = 1;
	if (p->pairs) {
		p->k = p->a_row = product_pairs(x.cols);
		union product_word *words = buffer_words(&s->left, x.rows * p->k);
		product_pair_columns(words, x.data, x.stride, x.rows, x.cols, s->threads);
		p->a = words;
	}
}

/* x^T, whose columns are the rows of the result. */
static void left_columns(struct matmul_state *s, struct product *p, struct tensor x)
{
	p->m = x.cols;
	p->k = x.rows;
	p->a = (const union product_word *)x.data;
	p->a_row = 1;
	p->a_col = x.stride;
	if (p->pairs) {
		p->k = product_pairs(x.rows);
		p->a_col = x.cols;
		union product_word *words = buffer_words(&s->left, x.cols * p->k);
		product_pair_rows(words, x.data, x.stride, x.cols, x.rows, s->threads);
		p->a = words;
	}
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
	return s;
}

void matmul_state_destroy(struct matmul_state *s)
{
	if (!s)
		return;
	packed_weights_destroy(s->packed);
	free(s->left.data);
	free(s->panels.data);
	free(s);
}

void matmul_state_threads(struct matmul_state *s, int threads)
{
	s->threads = threads;
}

void matmul_forget(struct matmul_state *s, const void *from, size_t bytes)
{
	packed_weights_forget(s->packed, from, bytes);
}

void matmul_lend(struct matmul_state *s, void *memory, size_t bytes)
{
	packed_weights_lend(s->packed, memory, bytes);
}

size_t matmul_packed_bytes(const struct matmul_state *s)
{
	return packed_weights_bytes(s->packed);
}

/* --- the slots --- */

static int pairs_of(const struct backend *b)
{
	return b->products == PRODUCTS_BFLOAT16;
}

void cpu_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate)
{
	struct product p = {.pairs = pairs_of(b),
	                    .n = w.rows,
	                    .bias = bias,
	                    .c = y.data,
	                    .c_row = y.stride,
	                    .accumulate = accumulate};
	left_rows(state_of(b), &p, x);
	weight_product(state_of(b), p, w, 1);
}

void cpu_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	struct product p = {
	    .pairs = pairs_of(b), .n = w.cols, .c = dx.data, .c_row = dx.stride, .accumulate = accumulate};
	left_rows(state_of(b), &p, dy);
	weight_product(state_of(b), p, w, 0);
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
	/* dw += dy^T x: x is the operand to pack */
	struct product p = {.pairs = pairs_of(b), .n = dw.cols, .c = dw.data, .c_row = dw.stride, .accumulate = 1};
	if (dy.rows) {
		left_columns(state_of(b), &p, dy);
		weight_product(state_of(b), p, x, 0);
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
