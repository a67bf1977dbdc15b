/* Attention, backward, from the forward's lse, without an array of T x T:
 *     p_ij = exp(s_ij - lse_i),   delta_i = do_i . o_i,   ds_ij = p_ij (do_i . v_j - delta_i)
 *     dv_j += sum_i p_ij do_i,    dk_j += scale sum_i ds_ij q_i,    dq_i += scale sum_j ds_ij k_j
 * No two threads add to the same row, and every sum has one order whatever the number of threads. Two ways, which give
 * the same bits:
 *  - together: what shares no keys (key heads, and groups of segments) is a part of its own; a thread goes through a
 *    part's tiles of queries and adds to dq, dk and dv at once;
 *  - apart, where there are too few parts for the threads: one pass over tiles of queries for dq (and delta), one over
 *    chunks of CHUNK key rows for dk and dv, which computes the scores again. */
#include "backend/cpu/attention.h"

#include "backend/cpu/attention_tiles.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/tile.h"
#include "backend/cpu/vmath.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 64 };

/* What all threads share. */
struct job {
	struct tensor dq, dk, dv, do_, o, q, k, v;
	const float *lse;
	float *delta; /* [heads, q.rows] as lse; the first pass fills it */
	float scale;
	int group, depth, padded; /* query heads per key head; head dimension; the same padded to whole vectors */
	const struct segment *segments;
	int segment_count, tile_queries;
	const struct attention_tile *tiles;
	int64_t tile_count;
};

/* Tiles [first, end) and all the keys that they see, which no other tile sees: key rows [key, key_end). */
struct part {
	int64_t first, end, key, key_end;
};

/* One thread's buffers. */
struct work {
	float *q, *do_;     /* tile of queries, [rows, padded]; q times scale */
	float *p, *ds;      /* [rows, CHUNK] */
	float *k, *v;       /* keys and values transposed [depth, CHUNK] */
	float *rows_k;      /* keys as they are [CHUNK, padded], if copied (first pass) */
	float *dq;          /* [rows, padded] (first pass) */
	float *dk, *dv;     /* of a part's keys, or of a chunk's [CHUNK, padded] */
	int64_t first_key;  /* the part's */
	float *lse, *delta; /* [rows] */
	int32_t *from, *to; /* [rows]: the row sees keys [from, to) of the chunk */
};

/* key_rows: of dk and dv. */
static size_t work_floats(const struct job *j, size_t rows, size_t key_rows)
{
	size_t padded = (size_t)j->padded;
	size_t floats = rows * (3 * padded + 2 * CHUNK + 4) + CHUNK * (2 * (size_t)j->depth + padded) + 2 * key_rows * padded;
	return (floats + 15) / 16 * 16;
}

static struct work work_at(float *at, const struct job *j, size_t rows, size_t key_rows)
{
	size_t depth = (size_t)j->depth, padded = (size_t)j->padded;
	struct work w;
	w.k = at;
	w.v = w.k + depth * CHUNK;
	w.rows_k = w.v + depth * CHUNK;
	w.dk = w.rows_k + CHUNK * padded;
	w.dv = w.dk + key_rows * padded;
	w.q = w.dv + key_rows * padded;
	w.do_ = w.q + rows * padded;
	w.dq = w.do_ + rows * padded;
	w.p = w.dq + rows * padded;
	w.ds = w.p + rows * CHUNK;
	w.lse = w.ds + rows * CHUNK;
	w.delta = w.lse + rows;
	w.from = (int32_t *)(w.delta + rows);
	w.to = w.from + rows;
	return w;
}

/* Row `query` of q and do, its heads under kv_head, becomes rows [row, row + group) of the tile. */
static void load_query(const struct job *j, struct work *w, int kv_head, int64_t query, int64_t row)
{
	int64_t column = (int64_t)kv_head * j->group * j->depth;
	tile_copy(w->q + row * j->padded, j->padded, j->q.data + query * j->q.stride + column, j->depth, j->group, j->depth,
	          j->scale);
	tile_copy(w->do_ + row * j->padded, j->padded, j->do_.data + query * j->do_.stride + column, j->depth, j->group,
	          j->depth, 1);
	for (int g = 0; g < j->group; g++)
		w->lse[row + g] = j->lse[((int64_t)kv_head * j->group + g) * j->q.rows + query];
}

static void load_keys(const struct job *j, struct work *w, int kv_head, int64_t key, int32_t count)
{
	int64_t column = (int64_t)kv_head * j->depth;
	tile_transpose(w->k, CHUNK, j->k.data + key * j->k.stride + column, j->k.stride, count, j->depth);
	tile_transpose(w->v, CHUNK, j->v.data + key * j->v.stride + column, j->v.stride, count, j->depth);
}

/* p and ds of rows [first, end) against the loaded keys; 0 where a key is hidden. */
static void differentiate_scores(const struct job *j, struct work *w, int64_t first, int64_t end)
{
	int64_t width = j->padded;
	tile_product_ragged(w->p + first * CHUNK, CHUNK, w->q + first * width, width, w->k, CHUNK, end - first,
	                    w->to + first, j->depth);
	tile_product_ragged(w->ds + first * CHUNK, CHUNK, w->do_ + first * width, width, w->v, CHUNK, end - first,
	                    w->to + first, j->depth);
	for (int64_t r = first; r < end; r++) {
		float *restrict p = w->p + r * CHUNK, *restrict ds = w->ds + r * CHUNK;
		float lse = w->lse[r], delta = w->delta[r];
		int32_t from = w->from[r], to = w->to[r];
		for (int32_t i = 0; i < from; i++)
			p[i] = ds[i] = 0;
#pragma omp simd
		for (int32_t i = from; i < to; i++) {
			float weight = vexp(p[i] - lse);
			ds[i] = weight * (ds[i] - delta);
			p[i] = weight;
		}
		for (int32_t i = to > from ? to : from; i < CHUNK; i++)
			p[i] = ds[i] = 0;
	}
}

/* --- tiles of queries: delta and dq, and together with them dk and dv --- */

/* Rows [first, end) of the tile meet the keys [key, key + count). */
static void dq_block(const struct job *j, struct work *w, int kv_head, int64_t first, int64_t end, int64_t key,
                     int32_t count, int together)
{
	const float *rows_k = j->k.data + key * j->k.stride + (int64_t)kv_head * j->depth;
	int64_t rows_stride = j->k.stride;
	load_keys(j, w, kv_head, key, count);
	if (j->padded != j->depth) {
		tile_copy(w->rows_k, j->padded, rows_k, rows_stride, count, j->depth, 1);
		rows_k = w->rows_k;
		rows_stride = j->padded;
	}
	differentiate_scores(j, w, first, end);
	tile_product(w->dq + first * j->padded, j->padded, w->ds + first * CHUNK, CHUNK, 1, rows_k, rows_stride,
	             end - first, j->padded, count, 1);
	if (!together)
		return;
	const int64_t width = j->padded, at = (key - w->first_key) * width;
	tile_product(w->dv + at, width, w->p + first * CHUNK, 1, CHUNK, w->do_ + first * width, width, count, width,
	             end - first, 1);
	tile_product(w->dk + at, width, w->ds + first * CHUNK, 1, CHUNK, w->q + first * width, width, count, width,
	             end - first, 1);
}

static void dq_own_keys(const struct job *j, struct work *w, int kv_head, const struct attention_span *span,
                        int together)
{
	const struct segment *s = span->segment;
	int32_t end = span->row + span->count * j->group;
	for (int32_t start = 0; start < s->kv_len; start += CHUNK) {
		int32_t count = s->kv_len - start < CHUNK ? s->kv_len - start : CHUNK, first = end;
		for (int32_t r = end - 1; r >= span->row; r--) {
			int32_t sees = attention_own_keys(s, span->query + (r - span->row) / j->group) - start;
			w->from[r] = 0;
			w->to[r] = sees < count ? sees : count;
			if (sees > 0)
				first = r;
		}
		if (first == end)
			break;
		dq_block(j, w, kv_head, first, end, (int64_t)s->kv_start + start, count, together);
	}
}

static void load_span(const struct job *j, struct work *w, int kv_head, const struct attention_span *span)
{
	for (int32_t i = 0; i < span->count; i++) {
		int64_t query = (int64_t)span->segment->q_start + span->query + i, row = span->row + (int64_t)i * j->group;
		load_query(j, w, kv_head, query, row);
		for (int g = 0; g < j->group; g++) {
			int64_t head = (int64_t)kv_head * j->group + g;
			const float *o = j->o.data + query * j->o.stride + head * j->depth, *do_ = w->do_ + (row + g) * j->padded;
			float delta = 0;
			for (int d = 0; d < j->depth; d++)
				delta = fmaf(do_[d], o[d], delta);
			w->delta[row + g] = j->delta[head * j->q.rows + query] = delta;
		}
	}
}

static void store_span(const struct job *j, struct work *w, int kv_head, const struct attention_span *span)
{
	for (int32_t i = 0; i < span->count; i++) {
		int64_t query = (int64_t)span->segment->q_start + span->query + i, row = span->row + (int64_t)i * j->group;
		for (int g = 0; g < j->group; g++) {
			float *dq = j->dq.data + query * j->dq.stride + ((int64_t)kv_head * j->group + g) * j->depth;
			const float *from = w->dq + (row + g) * j->padded;
			for (int d = 0; d < j->depth; d++)
				dq[d] = fmaf(j->scale, from[d], dq[d]);
		}
	}
}

static void dq_tile(const struct job *j, struct work *w, const struct attention_tile *tile, int kv_head, int together)
{
	const struct segment *s = &j->segments[tile->segment];
	int32_t rows = tile->count * j->group;
	memset(w->dq, 0, (size_t)rows * (size_t)j->padded * sizeof(float));
	for (struct attention_span span = {0}; attention_next_span(&span, tile, j->segments, j->group);)
		load_span(j, w, kv_head, &span);
	for (int32_t start = 0; start < s->prefix_len; start += CHUNK) {
		int32_t count = s->prefix_len - start < CHUNK ? s->prefix_len - start : CHUNK;
		for (int32_t r = 0; r < rows; r++) {
			w->from[r] = 0;
			w->to[r] = count;
		}
		dq_block(j, w, kv_head, 0, rows, (int64_t)s->prefix_start + start, count, together);
	}
	for (struct attention_span span = {0}; attention_next_span(&span, tile, j->segments, j->group);) {
		dq_own_keys(j, w, kv_head, &span, together);
		store_span(j, w, kv_head, &span);
	}
}

/* --- chunks of keys: dk and dv --- */

/* The queries [first, q_len) of a segment against the loaded chunk, whose first key row is `chunk`. They see key rows
 * [start, start + len), of which, if causal, query i only the first attention_own_keys. Returns 1 if any key was seen.
 */
static int dkv_part(const struct job *j, struct work *w, int kv_head, const struct segment *s, int64_t chunk,
                    int64_t start, int64_t len, int causal)
{
	int64_t low = start > chunk ? start : chunk, high = start + len < chunk + CHUNK ? start + len : chunk + CHUNK;
	if (low >= high)
		return 0;
	/* query i sees key row `low` if low - start < attention_own_keys = i + kv_len - q_len + 1 */
	int64_t first = causal ? low - start - (s->kv_len - s->q_len) : 0, width = j->padded;
	if (first < 0)
		first = 0;
	for (int64_t at = first; at < s->q_len; at += j->tile_queries) {
		int64_t count = s->q_len - at < j->tile_queries ? s->q_len - at : j->tile_queries, rows = count * j->group;
		for (int64_t i = 0; i < count; i++) {
			int64_t query = s->q_start + at + i, row = i * j->group;
			int64_t end = causal ? start + attention_own_keys(s, (int32_t)(at + i)) : high;
			load_query(j, w, kv_head, query, row);
			for (int g = 0; g < j->group; g++) {
				w->delta[row + g] = j->delta[((int64_t)kv_head * j->group + g) * j->q.rows + query];
				w->from[row + g] = (int32_t)(low - chunk);
				w->to[row + g] = (int32_t)((end < high ? end : high) - chunk);
			}
		}
		differentiate_scores(j, w, 0, rows);
		int64_t skip = low - chunk;
		tile_product(w->dv + skip * width, width, w->p + skip, 1, CHUNK, w->do_, width, high - low, width, rows, 1);
		tile_product(w->dk + skip * width, width, w->ds + skip, 1, CHUNK, w->q, width, high - low, width, rows, 1);
	}
	return first < s->q_len;
}

static void add_rows(struct tensor to, int64_t row, int64_t column, const float *from, int64_t width, int64_t rows,
                     int64_t cols)
{
	for (int64_t i = 0; i < rows; i++)
		for (int64_t d = 0; d < cols; d++)
			to.data[(row + i) * to.stride + column + d] += from[i * width + d];
}

static void dkv_chunk(const struct job *j, struct work *w, int kv_head, int64_t chunk)
{
	int64_t count = j->k.rows - chunk < CHUNK ? j->k.rows - chunk : CHUNK;
	size_t bytes = (size_t)CHUNK * (size_t)j->padded * sizeof(float);
	int loaded = 0, seen = 0;
	for (int i = 0; i < j->segment_count; i++) {
		const struct segment *s = &j->segments[i];
		int touches = (s->prefix_start < chunk + count && s->prefix_start + s->prefix_len > chunk) ||
		              (s->kv_start < chunk + count && s->kv_start + s->kv_len > chunk);
		if (!touches)
			continue;
		if (!loaded) {
			load_keys(j, w, kv_head, chunk, (int32_t)count);
			memset(w->dk, 0, bytes);
			memset(w->dv, 0, bytes);
			loaded = 1;
		}
		seen |= dkv_part(j, w, kv_head, s, chunk, s->prefix_start, s->prefix_len, 0);
		seen |= dkv_part(j, w, kv_head, s, chunk, s->kv_start, s->kv_len, s->causal);
	}
	if (!seen)
		return;
	int64_t column = (int64_t)kv_head * j->depth;
	add_rows(j->dk, chunk, column, w->dk, j->padded, count, j->depth);
	add_rows(j->dv, chunk, column, w->dv, j->padded, count, j->depth);
}

/* --- parts --- */

/* The key rows that a segment sees, prefix and own: the smallest range around both. */
static void key_range(const struct segment *s, int64_t *first, int64_t *end)
{
	*first = INT64_MAX;
	*end = 0;
	if (s->prefix_len) {
		*first = s->prefix_start;
		*end = (int64_t)s->prefix_start + s->prefix_len;
	}
	if (s->kv_len) {
		*first = s->kv_start < *first ? s->kv_start : *first;
		*end = (int64_t)s->kv_start + s->kv_len > *end ? (int64_t)s->kv_start + s->kv_len : *end;
	}
}

/* One past the last key row that any segment reads. */
static int64_t key_rows_used(const struct segment *segments, int count)
{
	int64_t last = 0;
	for (int i = 0; i < count; i++) {
		int64_t first, end;
		key_range(&segments[i], &first, &end);
		last = end > last ? end : last;
	}
	return last;
}

/* Cuts the tiles into parts, [at most tile_count]; returns how many. Segments whose keys overlap stand one behind the
 * other, as batches pack them; if some don't, all are one part. */
static int64_t make_parts(const struct job *j, struct part *parts)
{
	int64_t count = 0;
	for (int64_t t = 0; t < j->tile_count; t++) {
		struct part own = {.first = t, .end = t + 1, .key = INT64_MAX};
		for (struct attention_span span = {0}; attention_next_span(&span, &j->tiles[t], j->segments, j->group);) {
			int64_t first, end;
			key_range(span.segment, &first, &end);
			own.key = first < own.key ? first : own.key;
			own.key_end = end > own.key_end ? end : own.key_end;
		}
		struct part *last = count ? &parts[count - 1] : NULL;
		int sees = own.key < own.key_end, last_sees = last && last->key < last->key_end;
		if (!last || (sees && last_sees && (own.key >= last->key_end || own.key_end <= last->key))) {
			parts[count++] = own;
			continue;
		}
		last->end = own.end;
		last->key = own.key < last->key ? own.key : last->key;
		last->key_end = own.key_end > last->key_end ? own.key_end : last->key_end;
	}
	for (int64_t i = 1; i < count; i++)
		if (parts[i].key < parts[i - 1].key_end) { /* not in ascending order of keys */
			parts[0].end = j->tile_count;
			for (int64_t k = 1; k < count; k++) {
				parts[0].key = parts[k].key < parts[0].key ? parts[k].key : parts[0].key;
				parts[0].key_end = parts[k].key_end > parts[0].key_end ? parts[k].key_end : parts[0].key_end;
			}
			return 1;
		}
	return count;
}

static void run_part(const struct job *j, struct work *w, const struct part *part, int kv_head)
{
	const int64_t keys = part->key_end - part->key, column = (int64_t)kv_head * j->depth;
	const size_t bytes = (size_t)(keys > 0 ? keys : 0) * (size_t)j->padded * sizeof(float);
	memset(w->dk, 0, bytes);
	memset(w->dv, 0, bytes);
	w->first_key = part->key;
	for (int64_t t = part->first; t < part->end; t++)
		dq_tile(j, w, &j->tiles[t], kv_head, 1);
	add_rows(j->dk, part->key, column, w->dk, j->padded, keys, j->depth);
	add_rows(j->dv, part->key, column, w->dv, j->padded, keys, j->depth);
}

/* Do so many equal units keep the threads busy for at least three quarters of the time? */
static int fills(int64_t units, int64_t threads)
{
	return 4 * units >= 3 * threads * ((units + threads - 1) / threads);
}

void cpu_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                            struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                            int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	int depth = (int)(q.cols / heads), group = heads / kv_heads;
	if (depth % 4 || depth > ATTENTION_MAX_DIM)
		favor_die("attention: head dimension %d is not a multiple of 4 up to %d", depth, ATTENTION_MAX_DIM);
	struct job j = {.dq = dq,
	                .dk = dk,
	                .dv = dv,
	                .do_ = do_,
	                .o = o,
	                .q = q,
	                .k = k,
	                .v = v,
	                .lse = lse,
	                .scale = scale,
	                .group = group,
	                .depth = depth,
	                .padded = (int)tile_padded(depth),
	                .segments = segments,
	                .segment_count = segment_count};
	j.tile_queries = attention_tile_queries(segments, segment_count, group, kv_heads, b->threads);
	j.tile_count = attention_tiles(NULL, segments, segment_count, j.tile_queries);
	if (j.tile_count == 0)
		return;
	/* tiles and parts first: they say how much the threads need. Parts before tiles, which are aligned to less. */
	struct part *parts = favor_malloc((size_t)j.tile_count * (sizeof *parts + sizeof(struct attention_tile)));
	struct attention_tile *tiles = (struct attention_tile *)(parts + j.tile_count);
	attention_tiles(tiles, segments, segment_count, j.tile_queries);
	j.tiles = tiles;
	const int64_t part_count = make_parts(&j, parts);
	const int together = fills(part_count * kv_heads, b->threads);
	size_t key_rows = CHUNK;
	for (int64_t i = 0; together && i < part_count; i++)
		if (parts[i].key_end - parts[i].key > (int64_t)key_rows)
			key_rows = (size_t)(parts[i].key_end - parts[i].key);
	size_t threads = (size_t)b->threads, rows = (size_t)j.tile_queries * (size_t)group,
	       floats = work_floats(&j, rows, key_rows);
	float *memory = cpu_scratch(b, (threads * floats + (size_t)heads * (size_t)q.rows) * sizeof(float));
	j.delta = memory + threads * floats;
	const int64_t part_units = part_count * kv_heads, tile_units = j.tile_count * kv_heads,
	              chunk_units = (key_rows_used(segments, segment_count) + CHUNK - 1) / CHUNK * kv_heads;

#pragma omp parallel num_threads(b->threads)
	{
		struct work w = work_at(memory + (size_t)omp_get_thread_num() * floats, &j, rows, key_rows);
		if (together) {
#pragma omp for schedule(dynamic, 1)
			for (int64_t u = 0; u < part_units; u++)
				run_part(&j, &w, &parts[u / kv_heads], (int)(u % kv_heads));
		} else {
			/* last tiles first: in a causal segment they are the longest; its first keys are seen most */
#pragma omp for schedule(dynamic, 1)
			for (int64_t u = tile_units - 1; u >= 0; u--)
				dq_tile(&j, &w, &tiles[u / kv_heads], (int)(u % kv_heads), 0);
#pragma omp for schedule(dynamic, 1)
			for (int64_t u = 0; u < chunk_units; u++)
				dkv_chunk(&j, &w, (int)(u % kv_heads), u / kv_heads * CHUNK);
		}
	}
	free(parts);
}
