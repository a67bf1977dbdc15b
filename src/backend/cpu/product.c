/* Blocked product. A thread has a rectangle of c. For every DEPTH of k and ROWS_BLOCK rows it goes through its panels
 * of b (one fits the first cache) and through the block's rows, KERNEL_ROWS at a time (the block fits the second
 * cache):
 *
 *   KERNEL_ROWS x PANEL elements of c stay in registers while k runs; each step loads two vectors of b and broadcasts
 *   one element of a per row.
 *
 * Rows of a that lie contiguous are read in place where they are few or the kernel's rows are; else a is copied,
 * KERNEL_ROWS rows side by side. */
#include "backend/cpu/product.h"

#include "backend/cpu/vec.h"
#include "base/bf16.h"

#include <omp.h>
#include <string.h>

enum {
	VECTORS = PANEL / TILE_LANES,
	KERNEL_ROWS = TILE_LANES == 16 ? 12 : 6, /* x VECTORS accumulators, of 32 registers with AVX-512, else of 16 */
	ROWS_BLOCK = TILE_LANES == 16 ? 192 : 96, /* a multiple of KERNEL_ROWS; x DEPTH: in the second cache */
	DEPTH = 512, /* deeper saves passes over c; x PANEL: in the first cache, with AVX-512 in the second, which is fast enough */
	TURN_ROWS = 12, /* KERNEL_ROWS where rows are turned: a multiple of 4 */
	LINE = 64,                               /* bytes in a cache line */
	STEPS = 8,                               /* of k between two fetches of panels */
	SAME_SET = 1024, /* rows so many floats apart, or a multiple, fall into the same few lines of the first cache */
	AHEAD_ROWS = 4 * KERNEL_ROWS, /* up to so many rows, memory is slower than the kernel: fetch the next panel early */
	PACK_STEP = 8,
	PAIRS_BLOCK = 256, /* of k, rounded at a time; even */
	PACK_WORTH_THREADS = 1 << 14,
};

/* --- the kernel --- */

/* What a kernel fetches early, meanwhile. */
enum fetch {
	FETCH_PANEL,  /* cache lines of the next panel, one behind the other, `lines` every STEPS of k */
	FETCH_BOTH,   /* those of the next panel, and the rows of c that come next */
	FETCH_ROWS,   /* those, and the rows of a: they lie apart, too short for the machine to foresee them */
};

/* One step of k: of floats, or of pairs. */
ALWAYS_INLINE void step(vec (*sum)[VECTORS], int rows, const union product_word *a, int64_t a_row, const union product_word *b,
                        int pairs)
{
	vec right[VECTORS];
	for (int v = 0; v < VECTORS; v++)
		right[v] = vec_load_once(&b[v * TILE_LANES].number);
	for (int i = 0; i < rows; i++) {
		const union product_word *left = &a[i * a_row];
		for (int v = 0; v < VECTORS; v++)
			sum[i][v] = pairs ? vec_fused_pairs(vec_all_pairs(left->pair), right[v], sum[i][v])
			                  : vec_fused(vec_all(left->number), right[v], sum[i][v]);
	}
}

/* c[rows, PANEL] = start + a b; row i of `start` is start + i * start_row; NULL: 0. a and b are floats or pairs.
 * Constants where it is inlined: rows; a_row or a_col; pairs; fetch. */
ALWAYS_INLINE void kernel(int rows, float *c, int64_t c_row, const float *start, int64_t start_row,
                          const union product_word *a, int64_t a_row, int64_t a_col, const union product_word *b, int pairs,
                          int64_t depth, enum fetch fetch, const char *next, int lines)
{
	const int steps = fetch == FETCH_ROWS ? LINE / (int)sizeof(float) : STEPS;
	vec sum[KERNEL_ROWS][VECTORS];
	for (int i = 0; i < rows; i++)
		for (int v = 0; v < VECTORS; v++)
			sum[i][v] = start ? vec_load(start + i * start_row + v * TILE_LANES) : (vec){0};
	for (int i = 0; fetch != FETCH_PANEL && i < rows; i++)
		__builtin_prefetch(c + (rows + i) * c_row, 1, 3);
	int64_t k = 0;
	for (; k + steps <= depth; k += steps) {
		for (int l = 0; fetch != FETCH_ROWS && l < lines; l++, next += LINE)
			__builtin_prefetch(next, 0, 2);
		for (int i = 0; fetch == FETCH_ROWS && i < rows; i++)
			__builtin_prefetch(a + (rows + i) * a_row + k, 0, 3);
#pragma GCC unroll 4
		for (int s = 0; s < steps; s++)
			step(sum, rows, a + (k + s) * a_col, a_row, b + (k + s) * PANEL, pairs);
	}
	for (; k < depth; k++)
		step(sum, rows, a + k * a_col, a_row, b + k * PANEL, pairs);
	for (int i = 0; i < rows; i++)
		for (int v = 0; v < VECTORS; v++)
			vec_store(c + i * c_row + v * TILE_LANES, sum[i][v]);
}

struct kernel_call {
	float *c;
	int64_t c_row;
	const float *start;
	int64_t start_row;
	const union product_word *a;
	int64_t a_row; /* 0: a is packed, [depth][KERNEL_ROWS] */
	const union product_word *b;
	int pairs;
	int64_t depth;
	enum fetch fetch; /* FETCH_PANEL only with a_row */
	const char *next; /* FETCH_PANEL: from where on */
	int lines;
};

#define KERNEL_CALL(rows, a_row, a_col, pairs, fetch)                                                                  \
	kernel(rows, k->c, k->c_row, k->start, k->start_row, k->a, a_row, a_col, k->b, pairs, k->depth, fetch, k->next,    \
	       k->lines)
#define KERNEL_OF(rows, pairs)                                                                                         \
	if (!k->a_row)                                                                                                     \
		KERNEL_CALL(rows, 1, KERNEL_ROWS, pairs, FETCH_BOTH);                                                        \
	else if (k->fetch == FETCH_PANEL)                                                                                  \
		KERNEL_CALL(rows, k->a_row, 1, pairs, FETCH_PANEL);                                                            \
	else                                                                                                               \
		KERNEL_CALL(rows, k->a_row, 1, pairs, FETCH_ROWS)
#define KERNEL(rows)                                                                                                   \
	case rows:                                                                                                         \
		if (k->pairs) {                                                                                                \
			KERNEL_OF(rows, 1);                                                                                        \
		} else {                                                                                                       \
			KERNEL_OF(rows, 0);                                                                                        \
		}                                                                                                              \
		break

static void kernel_rows(const struct kernel_call *k, int64_t rows)
{
	switch (rows) {
		KERNEL(1);
		KERNEL(2);
		KERNEL(3);
		KERNEL(4);
		KERNEL(5);
		KERNEL(6);
#if defined __AVX512F__
		KERNEL(7);
		KERNEL(8);
		KERNEL(9);
		KERNEL(10);
		KERNEL(11);
		KERNEL(12);
#endif
	}
}

/* start[rows, PANEL] = c + bias, in columns [0, width). */
static void start_from_both(float *start, const float *c, int64_t c_row, const float *bias, int64_t rows, int64_t width)
{
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < width; j++)
			start[i * PANEL + j] = c[i * c_row + j] + bias[j];
}

/* The last panel, where c has fewer than PANEL columns: through a copy, so that nothing beside c is touched. */
static void kernel_narrow(const struct kernel_call *k, int64_t rows, int64_t width)
{
	float c[KERNEL_ROWS * PANEL], start[KERNEL_ROWS * PANEL] = {0};
	for (int64_t i = 0; k->start && i < rows; i++)
		memcpy(start + i * PANEL, k->start + i * k->start_row, (size_t)width * sizeof(float));
	struct kernel_call whole = *k;
	whole.c = c;
	whole.start = start;
	whole.c_row = whole.start_row = PANEL;
	kernel_rows(&whole, rows);
	for (int64_t i = 0; i < rows; i++)
		memcpy(k->c + i * k->c_row, c + i * PANEL, (size_t)width * sizeof(float));
}

/* --- packing --- */

/* Columns of b that lie contiguous, all rows: a vector transposes better than a loop. */
static void pack_panel(float *to, const float *b, int64_t b_col, int64_t k, int64_t width)
{
	int64_t whole = k / 4 * 4;
	tile_transpose(to, PANEL, b, b_col, width, whole);
	for (int64_t i = whole; i < k; i++)
		for (int64_t j = 0; j < PANEL; j++)
			to[i * PANEL + j] = j < width ? b[j * b_col + i] : 0;
}

/* Rows [first, end) of b, each contiguous, into all panels. */
static void pack_rows_of_b(float *to, const float *b, int64_t b_row, int64_t k, int64_t n, int64_t first, int64_t end)
{
	for (int64_t column = 0; column < n; column += PANEL, to += PANEL * k) {
		for (int64_t i = first; i < end; i++) {
			const float *from = b + i * b_row + column;
			float *at = to + i * PANEL;
			if (n - column >= PANEL) {
				for (int v = 0; v < VECTORS; v++)
					vec_store(at + v * TILE_LANES, vec_load(from + v * TILE_LANES));
				continue;
			}
			for (int64_t j = 0; j < PANEL; j++)
				at[j] = j < n - column ? from[j] : 0;
		}
	}
}

void product_pack(union product_word *words, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads)
{
	float *to = &words->number;
	if (b_col == 1) {
#pragma omp parallel for num_threads(threads) schedule(static) if (n * k > PACK_WORTH_THREADS)
		for (int64_t first = 0; first < k; first += PACK_STEP)
			pack_rows_of_b(to, b, b_row, k, n, first, k - first < PACK_STEP ? k : first + PACK_STEP);
		return;
	}
#pragma omp parallel for num_threads(threads) schedule(static) if (n * k > PACK_WORTH_THREADS)
	for (int64_t p = 0; p < product_panels(n); p++)
		pack_panel(to + p * PANEL * k, b + p * PANEL * b_col, b_col, k, n - p * PANEL < PANEL ? n - p * PANEL : PANEL);
}

void product_pack_pairs(union product_word *to, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads)
{
	const int64_t words = product_pairs(k);
#pragma omp parallel for num_threads(threads) schedule(static) if (n * k > PACK_WORTH_THREADS)
	for (int64_t p = 0; p < product_panels(n); p++) {
		float wide[PAIRS_BLOCK * PANEL] __attribute__((aligned(64)));
		int64_t width = n - p * PANEL < PANEL ? n - p * PANEL : PANEL;
		for (int64_t first = 0; first < k; first += PAIRS_BLOCK) {
			int64_t depth = k - first < PAIRS_BLOCK ? k - first : PAIRS_BLOCK;
			const float *from = b + first * b_row + p * PANEL * b_col;
			union product_word *at = to + (p * words + first / 2) * PANEL;
			if (b_col == 1)
				pack_rows_of_b(wide, from, b_row, depth, width, 0, depth);
			else
				pack_panel(wide, from, b_col, depth, width);
			if (depth % 2)
				memset(wide + depth * PANEL, 0, PANEL * sizeof *wide);
			for (int64_t i = 0; i < depth; i += 2) {
#pragma omp simd
				for (int64_t j = 0; j < PANEL; j++)
					at[i / 2 * PANEL + j].pair = bf16_pair(wide[i * PANEL + j], wide[(i + 1) * PANEL + j]);
			}
		}
	}
}

void product_pair_columns(union product_word *to, const float *a, int64_t a_row, int64_t m, int64_t k, int threads)
{
	const int64_t words = product_pairs(k);
#pragma omp parallel for num_threads(threads) schedule(static) if (m * k > PACK_WORTH_THREADS)
	for (int64_t i = 0; i < m; i++) {
		const float *from = a + i * a_row;
		union product_word *row = to + i * words;
#pragma omp simd
		for (int64_t j = 0; j < k / 2; j++)
			row[j].pair = bf16_pair(from[2 * j], from[2 * j + 1]);
		if (k % 2)
			row[k / 2].pair = bf16_pair(from[k - 1], 0);
	}
}

void product_pair_rows(union product_word *to, const float *a, int64_t a_col, int64_t m, int64_t k, int threads)
{
	const int64_t words = product_pairs(k);
#pragma omp parallel for num_threads(threads) schedule(static) if (m * k > PACK_WORTH_THREADS)
	for (int64_t j = 0; j < words; j++) {
		const float *first = a + 2 * j * a_col, *second = first + a_col;
		union product_word *row = to + j * m;
		const int both = 2 * j + 1 < k;
#pragma omp simd
		for (int64_t i = 0; i < m; i++)
			row[i].pair = bf16_pair(first[i], both ? second[i] : 0);
	}
}

/* a[rows, depth], whose columns are contiguous, becomes [rows / KERNEL_ROWS][depth][KERNEL_ROWS]. A few columns at a
 * time, so that each page is visited once. */
static void pack_a(union product_word *to, const union product_word *a, int64_t a_col, int64_t rows, int64_t depth)
{
	for (int64_t start = 0; start < depth; start += PACK_STEP) {
		int64_t end = depth - start < PACK_STEP ? depth : start + PACK_STEP;
		for (int64_t first = 0; first < rows; first += KERNEL_ROWS) {
			int64_t n = rows - first < KERNEL_ROWS ? rows - first : KERNEL_ROWS;
			const union product_word *from = a + first;
			union product_word *at = to + first * depth;
			for (int64_t k = start; k < end; k++) {
				if (n == KERNEL_ROWS)
					memcpy(at + k * KERNEL_ROWS, from + k * a_col, KERNEL_ROWS * sizeof *to);
				else
					memcpy(at + k * KERNEL_ROWS, from + k * a_col, (size_t)n * sizeof *to);
			}
		}
	}
}

/* The same of a[rows, depth] whose rows are contiguous. */
static void turn_a(union product_word *to, const union product_word *a, int64_t a_row, int64_t rows, int64_t depth)
{
	const int64_t whole = depth / 4 * 4;
	for (int64_t first = 0; first < rows; first += KERNEL_ROWS, to += KERNEL_ROWS * depth, a += KERNEL_ROWS * a_row) {
		const int64_t n = rows - first < KERNEL_ROWS ? rows - first : KERNEL_ROWS;
		tile_transpose(&to->number, KERNEL_ROWS, &a->number, a_row, n, whole);
		for (int64_t k = whole; k < depth; k++)
			for (int64_t i = 0; i < n; i++)
				to[k * KERNEL_ROWS + i] = a[i * a_row + k];
	}
}

/* --- blocks --- */

/* A rectangle of c: rows [row, row_end), panels [panel, panel_end). */
struct rectangle {
	int64_t row, row_end, panel, panel_end;
};

/* How the kernel gets its rows of a. */
enum left {
	LEFT_IN_PLACE,
	LEFT_COPIED, /* where they fall on the same few lines of the first cache */
	LEFT_TURNED, /* KERNEL_ROWS side by side */
};

static enum left left_of(const struct product *p)
{
	if (p->a_col != 1)
		return LEFT_TURNED;
	if (p->m <= AHEAD_ROWS)
		return LEFT_IN_PLACE;
	/* so many rows in place have more addresses than there are registers for them */
	if (KERNEL_ROWS == TURN_ROWS)
		return LEFT_TURNED;
	return p->a_row % SAME_SET == 0 ? LEFT_COPIED : LEFT_IN_PLACE;
}

/* Rows [row, row + rows) x the rectangle's panels, over [first, first + depth) of k. */
static void block_run(const struct product *p, const struct rectangle *r, int64_t row, int64_t rows, int64_t first,
                      int64_t depth, union product_word *packed)
{
	const union product_word *a = p->a + row * p->a_row + first * p->a_col;
	int64_t a_row = p->a_row;
	const enum left left = left_of(p);
	if (left == LEFT_TURNED && p->a_col != 1) {
		pack_a(packed, a, p->a_col, rows, depth);
	} else if (left == LEFT_TURNED) {
		turn_a(packed, a, p->a_row, rows, depth);
	} else if (left == LEFT_COPIED) {
		a_row = depth + LINE / (int64_t)sizeof *a;
		for (int64_t i = 0; i < rows; i++)
			memcpy(packed + i * a_row, a + i * p->a_row, (size_t)depth * sizeof *a);
		a = packed;
	}
	int64_t step = KERNEL_ROWS, parts = (rows + step - 1) / step;
	if (rows < 2 * KERNEL_ROWS && left != LEFT_TURNED) /* few rows: equal parts, 8 are 4 + 4 and not 6 + 2 */
		step = (rows + parts - 1) / parts;
	/* each part of the rows goes over the panel, and fetches its share of the next one meanwhile */
	const int64_t lines = (STEPS * PANEL * (int64_t)sizeof *a / LINE + parts - 1) / parts;
	const int ahead = rows <= AHEAD_ROWS && left != LEFT_TURNED;
	for (int64_t panel = r->panel; panel < r->panel_end; panel++) {
		int64_t column = panel * PANEL, width = p->n - column < PANEL ? p->n - column : PANEL;
		struct kernel_call k = {.c_row = p->c_row, .depth = depth, .pairs = p->pairs};
		k.lines = panel + 1 < r->panel_end ? (int)lines : 0;
		k.b = p->panels + (panel * p->k + first) * PANEL;
		for (int64_t i = 0; i < rows; i += step) {
			int64_t n = rows - i < step ? rows - i : step;
			k.c = p->c + (row + i) * p->c_row + column;
			float both[KERNEL_ROWS * PANEL];
			if (!first && p->accumulate && p->bias) {
				start_from_both(both, k.c, p->c_row, p->bias + column, n, width);
				k.start = both;
				k.start_row = PANEL;
			} else if (first || p->accumulate) {
				k.start = k.c;
				k.start_row = p->c_row;
			} else {
				k.start = p->bias ? p->bias + column : NULL;
				k.start_row = 0;
			}
			k.a = left == LEFT_TURNED ? packed + i * depth : a + i * a_row;
			k.a_row = left == LEFT_TURNED ? 0 : a_row;
			k.fetch = ahead && k.lines ? FETCH_PANEL : FETCH_ROWS;
			k.next = (const char *)(k.b + p->k * PANEL) + i / step * (depth / STEPS * lines * LINE);
			if (width == PANEL)
				kernel_rows(&k, n);
			else
				kernel_narrow(&k, n, width);
		}
	}
}

static void rectangle_run(const struct product *p, const struct rectangle *r)
{
	union product_word packed[ROWS_BLOCK * (DEPTH + LINE / (int)sizeof(union product_word))] __attribute__((aligned(64)));
	for (int64_t first = 0; first < p->k; first += DEPTH) {
		int64_t depth = p->k - first < DEPTH ? p->k - first : DEPTH;
		for (int64_t row = r->row; row < r->row_end; row += ROWS_BLOCK)
			block_run(p, r, row, r->row_end - row < ROWS_BLOCK ? r->row_end - row : ROWS_BLOCK, first, depth, packed);
	}
}

/* How many parts to cut the rows in, the panels in threads / that many: the cut with the smallest largest rectangle; of
 * equals the one with most parts of columns, whose threads share a and not b. Where a is copied, each thread copies the
 * rows of its rectangle, which takes about as long as a panel does. */
static int row_parts(int64_t row_units, int64_t panels, int copies, int threads)
{
	int best = 1;
	int64_t best_cost = INT64_MAX;
	for (int parts = 1; parts <= threads; parts++) {
		int across = threads / parts;
		int64_t cost = ((row_units + parts - 1) / parts) * ((panels + across - 1) / across + (copies != 0));
		if (cost < best_cost) {
			best = parts;
			best_cost = cost;
		}
	}
	return best;
}

static int64_t part_start(int64_t n, int parts, int i)
{
	return n * i / parts;
}

void product_run(const struct product *p, int threads)
{
	int64_t panels = product_panels(p->n), units = (p->m + KERNEL_ROWS - 1) / KERNEL_ROWS;
	if (p->k == 0 || p->m == 0 || p->n == 0) {
		for (int64_t i = 0; i < p->m; i++)
			for (int64_t j = 0; j < p->n; j++)
				p->c[i * p->c_row + j] = (p->accumulate ? p->c[i * p->c_row + j] : 0) + (p->bias ? p->bias[j] : 0);
		return;
	}
	int down = row_parts(units, panels, left_of(p) != LEFT_IN_PLACE, threads), across = threads / down;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
	for (int t = 0; t < down * across; t++) {
		int i = t / across, j = t % across;
		struct rectangle r = {.row = part_start(units, down, i) * KERNEL_ROWS,
		                      .row_end = part_start(units, down, i + 1) * KERNEL_ROWS,
		                      .panel = part_start(panels, across, j),
		                      .panel_end = part_start(panels, across, j + 1)};
		if (r.row_end > p->m)
			r.row_end = p->m;
		rectangle_run(p, &r);
	}
}
