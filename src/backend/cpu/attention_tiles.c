/* The cutting itself: whole numbers only, called once per attention op, and per tile by whoever walks its spans. */
#include "backend/cpu/attention_tiles.h"

static int same_prefix(const struct segment *a, const struct segment *b)
{
	return a->prefix_len > 0 && a->prefix_len == b->prefix_len && a->prefix_start == b->prefix_start;
}

int attention_tile_queries(const struct segment *segments, int segment_count, int group, int kv_heads, int threads)
{
	int64_t total = 0;
	for (int s = 0; s < segment_count; s++)
		total += segments[s].q_len;
	int64_t queries = group < ATTENTION_TILE_ROWS ? ATTENTION_TILE_ROWS / group : 1;
	while (queries > 1 && (total + queries - 1) / queries * kv_heads < threads)
		queries = (queries + 1) / 2;
	return (int)queries;
}

int64_t attention_tiles(struct attention_tile *tiles, const struct segment *segments, int segment_count, int queries)
{
	int64_t count = 0;
	int32_t room = 0; /* queries that the last tile may still take */
	for (int s = 0; s < segment_count; s++) {
		if (s > 0 && !same_prefix(&segments[s - 1], &segments[s]))
			room = 0;
		for (int32_t q = 0; q < segments[s].q_len;) {
			int32_t left = segments[s].q_len - q;
			if (room == 0) {
				if (tiles)
					tiles[count] = (struct attention_tile){s, q, 0};
				count++;
				room = queries;
			}
			int32_t take = left < room ? left : room;
			if (tiles)
				tiles[count - 1].count += take;
			room -= take;
			q += take;
		}
	}
	return count;
}

int attention_next_span(struct attention_span *span, const struct attention_tile *tile, const struct segment *segments,
                        int group)
{
	int32_t done = 0;
	if (!span->segment) {
		span->segment = &segments[tile->segment];
		span->query = tile->query;
		span->row = 0;
	} else {
		span->row += span->count * group;
		done = span->row / group;
		span->segment++;
		span->query = 0;
	}
	if (done == tile->count)
		return 0;
	while (span->segment->q_len == 0) /* a segment without queries lies between two parts of a tile */
		span->segment++;
	int32_t left = tile->count - done, in_segment = span->segment->q_len - span->query;
	span->count = left < in_segment ? left : in_segment;
	return 1;
}
