/* Attention, forward: online softmax over blocks of ATTENTION_BLOCK keys.
 *
 * For a tile of queries (attention_tiles.h) and one block of keys after the other:
 *     s = q k^T                        (q already scaled)
 *     m' = max(m, max_j s_j),  c = exp(m - m'),  p_j = exp(s_j - m')
 *     l = c l + sum_j p_j,     o = c o + sum_j p_j v_j
 * and in the end o / l and lse = m + log l. A query's numbers depend on its own blocks alone: each score is one chain
 * over the head dimension, each output one chain over the keys it sees, and the sum of a block's p has a fixed shape.
 * Hidden keys of a block are not added as zeros, they are left out. */
#include "backend/cpu/attention.h"

#include "backend/cpu/attention_tiles.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/tile.h"
#include "backend/cpu/vmath.h"

#include <omp.h>
#include <string.h>

enum { BLOCK = ATTENTION_BLOCK, SUM_LANES = 16 };

/* What all threads share, for reading. */
struct job {
	struct tensor o, q, k, v;
	float *lse;
	float scale;
	int group, depth, padded; /* query heads per key head; head dimension; the same padded to whole vectors */
	const struct segment *segments;
};

/* One thread's tile. */
struct work {
	float *q, *o, *s;    /* [rows, depth], [rows, padded], [rows, BLOCK] */
	float *k, *v;        /* this block: keys transposed [depth, BLOCK], values [BLOCK, padded] if copied */
	float *most, *sum;       /* [rows]: m and l */
	float *top, *correction; /* [rows]: m' and c */
	float *lanes, *across;   /* [rows, SUM_LANES], [SUM_LANES, rows up to a multiple of 4] */
	int32_t *visible;        /* [rows]: keys of this block that the row sees */
};

static size_t work_floats(const struct job *j, size_t rows)
{
	size_t depth = (size_t)j->depth, padded = (size_t)j->padded;
	size_t floats = rows * (depth + padded + BLOCK + 2 * SUM_LANES + 5) + 3 * SUM_LANES + BLOCK * (depth + padded);
	return (floats + 15) / 16 * 16;
}

static struct work work_at(float *p, const struct job *j, size_t rows)
{
	struct work w;
	w.k = p;
	w.v = w.k + j->depth * BLOCK;
	w.o = w.v + j->padded * BLOCK;
	w.s = w.o + rows * (size_t)j->padded;
	w.q = w.s + rows * BLOCK;
	w.most = w.q + rows * (size_t)j->depth;
	w.sum = w.most + rows;
	w.top = w.sum + rows;
	w.correction = w.top + rows;
	w.lanes = w.correction + rows;
	w.across = w.lanes + rows * SUM_LANES;
	w.visible = (int32_t *)(w.across + (rows + 3) * SUM_LANES);
	return w;
}

/* A row's scores in one block, SUM_LANES at a time: [rows, BLOCK] -> their lane-wise maximum. Hides what is hidden. */
static void lane_maxima(float *restrict lanes, float *restrict s, const int32_t *visible, int32_t rows)
{
	for (int32_t r = 0; r < rows; r++, s += BLOCK, lanes += SUM_LANES) {
		for (int j = visible[r]; j < BLOCK; j++)
			s[j] = -INFINITY;
		for (int l = 0; l < SUM_LANES; l++) {
			float a = s[l] > s[l + 16] ? s[l] : s[l + 16], b = s[l + 32] > s[l + 48] ? s[l + 32] : s[l + 48];
			lanes[l] = a > b ? a : b;
		}
	}
}

/* s -> exp(s - top), and its lane-wise sum. Hidden scores become exp(-inf) = 0. */
static void exponentials(float *restrict lanes, float *restrict s, const float *top, const int32_t *visible,
                         int32_t rows)
{
	for (int32_t r = 0; r < rows; r++, s += BLOCK, lanes += SUM_LANES) {
		float most = top[r];
		int seen = (visible[r] + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
		for (int j = 0; j < seen; j++)
			s[j] = vexp(s[j] - most);
		for (int j = seen; j < BLOCK; j++)
			s[j] = 0;
		for (int l = 0; l < SUM_LANES; l++)
			lanes[l] = (s[l] + s[l + 16]) + (s[l + 32] + s[l + 48]);
	}
}

/* s -> p for rows [first, end), with their m and l brought up to date; leaves c in w->correction. What is one number
 * per row is computed for many rows at once, across the transposed lanes. */
static void softmax_rows(struct work *w, int32_t first, int32_t end)
{
	int32_t rows = end - first, width = (rows + 3) / 4 * 4;
	float *s = w->s + first * BLOCK, *most = w->most + first, *sum = w->sum + first, *restrict top = w->top;
	float *restrict correction = w->correction + first, *restrict across = w->across;
	lane_maxima(w->lanes, s, w->visible + first, rows);
	tile_transpose(across, width, w->lanes, SUM_LANES, rows, SUM_LANES);
	for (int32_t r = 0; r < rows; r++)
		top[r] = most[r];
	for (int l = 0; l < SUM_LANES; l++)
		for (int32_t r = 0; r < rows; r++)
			top[r] = top[r] > across[l * width + r] ? top[r] : across[l * width + r];
	exponentials(w->lanes, s, top, w->visible + first, rows);
	tile_transpose(across, width, w->lanes, SUM_LANES, rows, SUM_LANES);
	for (int half = SUM_LANES / 2; half > 0; half /= 2)
		for (int32_t i = 0; i < half * width; i++)
			across[i] += across[half * width + i];
	for (int32_t r = 0; r < rows; r++) {
		correction[r] = vexp(most[r] - top[r]);
		most[r] = top[r];
		sum[r] = fmaf(sum[r], correction[r], across[r]);
	}
}

/* o += p v for rows [first, end), each over the keys that it sees. Rows that see equally many go together. */
static void add_values(const struct job *j, struct work *w, int32_t first, int32_t end, const float *values,
                       int64_t values_row)
{
	enum { TOGETHER = 6 };
	int64_t width = j->padded;
	int even = 1;
	for (int32_t r = first; r < end; r++)
		even &= w->visible[r] == w->visible[first];
	int32_t step = even ? end - first : TOGETHER;
	for (int32_t from = first; from < end; from += step) {
		int32_t to = from + step < end ? from + step : end, shared = BLOCK;
		for (int32_t r = from; r < to; r++)
			shared = w->visible[r] < shared ? w->visible[r] : shared;
		tile_product(w->o + from * width, width, w->s + from * BLOCK, BLOCK, 1, values, values_row, to - from, width,
		             shared, 1);
		for (int32_t r = from, next; r < to; r = next) { /* the others' rests */
			for (next = r + 1; next < to && w->visible[next] == w->visible[r]; next++)
				;
			if (w->visible[r] > shared)
				tile_product(w->o + r * width, width, w->s + r * BLOCK + shared, BLOCK, 1, values + shared * values_row,
				             values_row, next - r, width, w->visible[r] - shared, 1);
		}
	}
}

/* Scores of rows [first, end) of the tile with the keys [key, key + count), of which row r sees the first visible[r] >
 * 0. */
static void score_keys(const struct job *j, struct work *w, int kv_head, int32_t first, int32_t end, int64_t key,
                       int32_t count)
{
	tile_transpose(w->k, BLOCK, j->k.data + key * j->k.stride + (int64_t)kv_head * j->depth, j->k.stride, count,
	               j->depth);
	tile_product_ragged(w->s + first * BLOCK, BLOCK, w->q + first * j->depth, j->depth, w->k, BLOCK, end - first,
	                    w->visible + first, j->depth);
}

/* Scores of rows [first, end) into weights; o corrected. */
static void weigh_keys(const struct job *j, struct work *w, int32_t first, int32_t end)
{
	const int64_t width = j->padded;
	softmax_rows(w, first, end);
	for (int32_t r = first; r < end; r++)
		if (w->correction[r] != 1.0f)
			for (int64_t d = 0; d < width; d++)
				w->o[r * width + d] *= w->correction[r];
}

static void take_values(const struct job *j, struct work *w, int kv_head, int32_t first, int32_t end, int64_t key,
                        int32_t count)
{
	const float *values = j->v.data + key * j->v.stride + (int64_t)kv_head * j->depth;
	int64_t values_row = j->v.stride;
	if (j->padded != j->depth) {
		tile_copy(w->v, j->padded, values, values_row, count, j->depth, 1);
		values = w->v;
		values_row = j->padded;
	}
	add_values(j, w, first, end, values, values_row);
}

static void attend_prefix(const struct job *j, struct work *w, int kv_head, const struct segment *s, int32_t rows)
{
	for (int32_t start = 0; start < s->prefix_len; start += BLOCK) {
		const int64_t key = (int64_t)s->prefix_start + start;
		int32_t count = s->prefix_len - start < BLOCK ? s->prefix_len - start : BLOCK;
		for (int32_t r = 0; r < rows; r++)
			w->visible[r] = count;
		score_keys(j, w, kv_head, 0, rows, key, count);
		weigh_keys(j, w, 0, rows);
		take_values(j, w, kv_head, 0, rows, key, count);
	}
}

/* Of the span's rows, those that see any of its own keys from `start` on are the last ones: later queries see no fewer.
 * Fills visible, and returns the first of them. */
static int32_t own_keys_seen(const struct job *j, struct work *w, const struct attention_span *span, int32_t start)
{
	const struct segment *s = span->segment;
	int32_t end = span->row + span->count * j->group, first = end,
	        count = s->kv_len - start < BLOCK ? s->kv_len - start : BLOCK;
	for (int32_t r = span->row; r < end; r += j->group) {
		int32_t sees = attention_own_keys(s, span->query + (r - span->row) / j->group) - start;
		sees = sees < count ? sees : count;
		if (sees > 0 && first == end)
			first = r;
		for (int32_t g = 0; g < j->group; g++)
			w->visible[r + g] = sees > 0 ? sees : 0;
	}
	return first;
}

/* The segments' own keys: a block of each span, then the next. Softmax takes rows of several spans at once, since
 * in decoding each has few. */
static void attend_own_keys(const struct job *j, struct work *w, int kv_head, const struct attention_tile *tile,
                            int32_t rows)
{
	for (int32_t start = 0, any = 1; any; start += BLOCK) {
		any = 0;
		for (struct attention_span span = {0}; attention_next_span(&span, tile, j->segments, j->group);) {
			int32_t end = span.row + span.count * j->group, first = own_keys_seen(j, w, &span, start),
			        left = span.segment->kv_len - start;
			if (first == end)
				continue;
			any = 1;
			score_keys(j, w, kv_head, first, end, (int64_t)span.segment->kv_start + start, left < BLOCK ? left : BLOCK);
		}
		for (int32_t first = 0, end; any && first < rows; first = end) {
			for (end = first; end < rows && w->visible[end] > 0; end++)
				;
			if (end > first)
				weigh_keys(j, w, first, end);
			else
				end++;
		}
		for (struct attention_span span = {0}; any && attention_next_span(&span, tile, j->segments, j->group);) {
			int32_t end = span.row + span.count * j->group, first = span.row, left = span.segment->kv_len - start;
			while (first < end && !w->visible[first])
				first++;
			if (first < end)
				take_values(j, w, kv_head, first, end, (int64_t)span.segment->kv_start + start,
				            left < BLOCK ? left : BLOCK);
		}
	}
}

static void load_span(const struct job *j, struct work *w, int kv_head, const struct attention_span *span)
{
	for (int32_t i = 0; i < span->count; i++) {
		int64_t from = (int64_t)span->segment->q_start + span->query + i, row = span->row + (int64_t)i * j->group;
		tile_copy(w->q + row * j->depth, j->depth,
		          j->q.data + from * j->q.stride + (int64_t)kv_head * j->group * j->depth, j->depth, j->group, j->depth,
		          j->scale);
	}
}

static void store_span(const struct job *j, struct work *w, int kv_head, const struct attention_span *span)
{
	for (int32_t i = 0; i < span->count; i++) {
		int64_t to = (int64_t)span->segment->q_start + span->query + i;
		for (int g = 0; g < j->group; g++) {
			int64_t row = span->row + (int64_t)i * j->group + g, head = (int64_t)kv_head * j->group + g;
			float *o = j->o.data + to * j->o.stride + head * j->depth;
			float sum = w->sum[row], inverse = sum == 0 ? 0 : 1 / sum; /* 0: it sees no key at all */
			for (int64_t d = 0; d < j->depth; d++)
				o[d] = w->o[row * j->padded + d] * inverse;
			j->lse[head * j->q.rows + to] = w->most[row] + logf(sum);
		}
	}
}

static void attend_tile(const struct job *j, struct work *w, const struct attention_tile *tile, int kv_head)
{
	const struct segment *s = &j->segments[tile->segment];
	int32_t rows = tile->count * j->group;
	for (int32_t r = 0; r < rows; r++) {
		w->most[r] = -INFINITY;
		w->sum[r] = 0;
	}
	memset(w->o, 0, (size_t)rows * (size_t)j->padded * sizeof(float));
	for (struct attention_span span = {0}; attention_next_span(&span, tile, j->segments, j->group);)
		load_span(j, w, kv_head, &span);
	attend_prefix(j, w, kv_head, s, rows);
	attend_own_keys(j, w, kv_head, tile, rows);
	for (struct attention_span span = {0}; attention_next_span(&span, tile, j->segments, j->group);)
		store_span(j, w, kv_head, &span);
}

void cpu_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                   int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	int depth = (int)(q.cols / heads), group = heads / kv_heads;
	if (depth % 4 || depth > ATTENTION_MAX_DIM)
		favor_die("attention: head dimension %d is not a multiple of 4 up to %d", depth, ATTENTION_MAX_DIM);
	struct job j = {.o = o,
	                .q = q,
	                .k = k,
	                .v = v,
	                .lse = lse,
	                .scale = scale,
	                .group = group,
	                .depth = depth,
	                .padded = (int)tile_padded(depth),
	                .segments = segments};
	int queries = attention_tile_queries(segments, segment_count, group, kv_heads, b->threads);
	int64_t count = attention_tiles(NULL, segments, segment_count, queries), units = count * kv_heads;
	if (units == 0)
		return;
	int threads = units < b->threads ? (int)units : b->threads;
	size_t rows = (size_t)queries * (size_t)group, floats = work_floats(&j, rows);
	float *memory = cpu_scratch(b, (size_t)threads * floats * sizeof(float) +
	                                   (size_t)count * sizeof(struct attention_tile));
	struct attention_tile *tiles = (struct attention_tile *)(memory + (size_t)threads * floats);
	attention_tiles(tiles, segments, segment_count, queries);

	/* last tiles first: in a causal segment they are the longest */
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
	for (int64_t u = units - 1; u >= 0; u--) {
		struct work w = work_at(memory + (size_t)omp_get_thread_num() * floats, &j, rows);
		attend_tile(&j, &w, &tiles[u / kv_heads], (int)(u % kv_heads));
	}
}
