/* How attention's work is cut up, for the forward and the backward pass.
 *
 * A tile is a run of queries that are computed together, each with the query heads that share one key head: row
 * r = (query in the tile) * group + (head in the group). A tile may run over several segments if they have the same
 * prefix: in decoding, G segments of one query each then read the prefix's keys and values once. */
#ifndef FAVOR_BACKEND_CPU_ATTENTION_TILES_H
#define FAVOR_BACKEND_CPU_ATTENTION_TILES_H

#include "backend/backend.h"

struct attention_tile {
	int32_t segment, query, count; /* from query `query` of segment `segment` on, `count` queries */
};

/* The part of a tile that lies in one segment. */
struct attention_span {
	const struct segment *segment;
	int32_t query, count; /* queries [query, query + count) of the segment */
	int32_t row;          /* the first one's row in the tile */
};

/* Most rows in a tile: the queries, outputs and scores of a tile then fit the second cache beside a block of keys. */
enum { ATTENTION_TILE_ROWS = 192 };

/* Queries per tile: ATTENTION_TILE_ROWS rows, or fewer if only then all threads have work. At least 1. */
int attention_tile_queries(const struct segment *segments, int segment_count, int group, int kv_heads, int threads);
/* Cuts all segments into tiles and returns how many; writes them to `tiles` unless it is NULL. */
int64_t attention_tiles(struct attention_tile *tiles, const struct segment *segments, int segment_count, int queries);
/* Steps through the spans of a tile: start with *span = {0}; returns 0 when there is none left. */
int attention_next_span(struct attention_span *span, const struct attention_tile *tile, const struct segment *segments,
                        int group);

/* How many of the segment's own keys query i sees (may be <= 0). */
static inline int32_t attention_own_keys(const struct segment *s, int32_t i)
{
	return s->causal ? i + s->kv_len - s->q_len + 1 : s->kv_len;
}

#endif
