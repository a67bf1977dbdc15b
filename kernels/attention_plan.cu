// Plans of attention: host code alone. Segments become tiles of rows for queries' sums, and tiles of keys with items for the keys'
// gradients. Nothing of how a segment is cut depends on another segment, but for keys, which are cut where any segment's
// stretch of keys begins or ends.
#include "attention.cuh"

#include <stdlib.h>

namespace kernels
{
namespace
{

// Rows of a key item: enough work for a block of threads; more where many key heads give work enough.
int64_t item_rows(int64_t kv_heads)
{
	return kv_heads < 8 ? 1024 : 4096;
}

// Writes records to a list, or only counts them.
template <class T> struct Writer {
	int32_t *at; // may be null
	int64_t count;
	void put(const T &record)
	{
		if (at)
			memcpy(at + count * INTS<T>, &record, sizeof record);
		count++;
	}
	int32_t *end() const
	{
		return at ? at + count * INTS<T> : nullptr;
	}
};

bool inside(int64_t start, int64_t length, int64_t rows)
{
	return length >= 0 && (length == 0 || (start >= 0 && start + length <= rows));
}

// What all plans say first.
template <class P> void begin(P *plan, const struct kernel_attention &a, int64_t count)
{
	*plan = {};
	plan->heads = a.heads;
	plan->kv_heads = a.kv_heads;
	plan->q_rows = a.q_rows;
	plan->k_rows = a.k_rows;
	plan->segments = (int32_t)count;
}

bool good_segments(const Segment *segments, int64_t count, const struct kernel_attention &a)
{
	if (count < 0 || count > INT32_MAX / 64 || !good_heads(a.heads, a.kv_heads) || a.q_rows < 0 || a.k_rows < 0 ||
	    a.q_rows > INT32_MAX / MAX_GROUP || a.k_rows > INT32_MAX / 2)
		return false;
	for (int64_t i = 0; i < count; i++) {
		const Segment &s = segments[i];
		if (!inside(s.q_start, s.q_len, a.q_rows) || !inside(s.prefix_start, s.prefix_len, a.k_rows) ||
		    !inside(s.kv_start, s.kv_len, a.k_rows))
			return false;
	}
	return true;
}

int64_t seen_keys(const Segment &s, int64_t query)
{
	int64_t own = s.causal ? query + s.kv_len - s.q_len + 1 : s.kv_len;
	return s.prefix_len + (own < 0 ? 0 : own < s.kv_len ? own : s.kv_len);
}

// The longest first, so that none begins when all others end.
int by_keys(const void *x, const void *y)
{
	const AttentionTile *a = (const AttentionTile *)x, *b = (const AttentionTile *)y;
	if (a->keys != b->keys)
		return a->keys < b->keys ? 1 : -1;
	if (a->segment != b->segment)
		return a->segment < b->segment ? -1 : 1;
	return a->first < b->first ? -1 : a->first > b->first;
}

void put_tiles(Writer<AttentionTile> &out, const Segment *segments, int64_t count, int64_t group)
{
	for (int64_t i = 0; i < count; i++) {
		const int64_t rows = segments[i].q_len * group;
		for (int64_t first = 0; first < rows; first += TILE) {
			int64_t here = rows - first < TILE ? rows - first : TILE;
			out.put({(int32_t)i, (int32_t)first, (int32_t)here,
			         (int32_t)seen_keys(segments[i], (first + here - 1) / group)});
		}
	}
	if (out.at)
		qsort(out.at, (size_t)out.count, sizeof(AttentionTile), by_keys);
}

int by_number(const void *x, const void *y)
{
	int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
	return a < b ? -1 : a > b;
}

// The items of one tile for one stretch of keys [start, start + length) of segment i.
void put_items(Writer<KeyItem> &out, int32_t tile, int32_t key, const Segment &s, int64_t i, bool own, int64_t group,
               int64_t most)
{
	int64_t first = 0; // the first query that sees the tile's first key
	if (own && s.causal)
		first = (int64_t)key - s.kv_start - (s.kv_len - s.q_len);
	const int64_t rows = s.q_len * group;
	for (int64_t row = (first < 0 ? 0 : first) * group; row < rows; row += most)
		out.put({tile, (int32_t)i, own, (int32_t)row, (int32_t)(rows - row < most ? rows - row : most)});
}

// Whether the stretch holds key row `key`, and with it all of the tile that begins there.
bool holds(int64_t start, int64_t length, int64_t key)
{
	return key >= start && key < start + length;
}

// Returns 0, or -1 if there is no memory.
int put_keys(Writer<KeyTile> &tiles, Writer<KeyItem> &items, const Segment *segments, int64_t count, int64_t group,
             int64_t most)
{
	int32_t *cuts = (int32_t *)malloc((size_t)(4 * count + 1) * sizeof *cuts), n = 0, distinct = 0;
	int32_t *holders = (int32_t *)malloc((size_t)(count + 1) * sizeof *holders);
	if (!cuts || !holders) {
		free(cuts);
		free(holders);
		return -1;
	}
	for (int64_t i = 0; i < count; i++) {
		const Segment &s = segments[i];
		if (s.prefix_len) {
			cuts[n++] = s.prefix_start;
			cuts[n++] = s.prefix_start + s.prefix_len;
		}
		if (s.kv_len) {
			cuts[n++] = s.kv_start;
			cuts[n++] = s.kv_start + s.kv_len;
		}
	}
	qsort(cuts, (size_t)n, sizeof *cuts, by_number);
	for (int32_t c = 0; c < n; c++)
		if (c == 0 || cuts[c] != cuts[c - 1])
			cuts[distinct++] = cuts[c];
	for (int32_t c = 0; c + 1 < distinct; c++) {
		int32_t held = 0;
		for (int64_t i = 0; i < count; i++)
			if (holds(segments[i].prefix_start, segments[i].prefix_len, cuts[c]) ||
			    holds(segments[i].kv_start, segments[i].kv_len, cuts[c]))
				holders[held++] = (int32_t)i;
		if (!held)
			continue;
		for (int32_t key = cuts[c]; key < cuts[c + 1]; key += TILE) {
			const int64_t first = items.count;
			for (int32_t h = 0; h < held; h++) {
				const Segment &s = segments[holders[h]];
				if (holds(s.prefix_start, s.prefix_len, cuts[c]))
					put_items(items, (int32_t)tiles.count, key, s, holders[h], false, group, most);
				if (holds(s.kv_start, s.kv_len, cuts[c]))
					put_items(items, (int32_t)tiles.count, key, s, holders[h], true, group, most);
			}
			int32_t keys = cuts[c + 1] - key < TILE ? cuts[c + 1] - key : TILE;
			tiles.put({key, keys, (int32_t)first, (int32_t)(items.count - first)});
		}
	}
	free(cuts);
	free(holders);
	return 0;
}

int64_t chunks_of(int64_t keys)
{
	return (keys + KERNEL_ATTENTION_CHUNK - 1) / KERNEL_ATTENTION_CHUNK;
}

struct Entry {
	int32_t index, prefix_start, prefix_len, idle;
};

// Those with a query first; by prefix; then as they came.
int by_prefix(const void *x, const void *y)
{
	const Entry *a = (const Entry *)x, *b = (const Entry *)y;
	if (a->idle != b->idle)
		return a->idle - b->idle;
	if (a->prefix_start != b->prefix_start)
		return a->prefix_start < b->prefix_start ? -1 : 1;
	if (a->prefix_len != b->prefix_len)
		return a->prefix_len < b->prefix_len ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

// Items for rows [first, end), for each chunk of `keys` keys.
void put_chunks(Writer<DecodeItem> &out, int64_t first, int64_t end, int64_t keys, int32_t own)
{
	for (int64_t c = 0; c < chunks_of(keys); c++)
		for (int64_t row = first; row < end; row += TILE)
			out.put({(int32_t)row, (int32_t)(end - row < TILE ? end - row : TILE), (int32_t)c, own});
}

// Numbers that do not fit int32 make no plan.
bool fits(int64_t n)
{
	return n <= INT32_MAX / 8;
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_attention_plan(struct kernel_attention_plan *plan, int32_t *list,
                                         const struct kernel_segment *segments, int64_t count,
                                         const struct kernel_attention *a, int backward)
{
	if (!good_segments(segments, count, *a))
		return -1;
	const int64_t group = a->heads / a->kv_heads, most = item_rows(a->kv_heads);
	Writer<Segment> all = {list, 0};
	for (int64_t i = 0; i < count; i++)
		all.put(segments[i]);
	Writer<AttentionTile> tiles = {all.end(), 0};
	put_tiles(tiles, segments, count, group);
	Writer<KeyTile> key_tiles = {nullptr, 0};
	Writer<KeyItem> items = {nullptr, 0};
	if (backward && put_keys(key_tiles, items, segments, count, group, most))
		return -1;
	if (!fits(tiles.count) || !fits(key_tiles.count) || !fits(items.count))
		return -1;
	if (backward && list) { // now that it is known where the items begin
		int32_t *at = tiles.end();
		items = {at + key_tiles.count * INTS<KeyTile>, 0};
		key_tiles = {at, 0};
		if (put_keys(key_tiles, items, segments, count, group, most))
			return -1;
	}
	begin(plan, *a, count);
	plan->tiles = (int32_t)tiles.count;
	plan->key_tiles = (int32_t)key_tiles.count;
	plan->key_items = (int32_t)items.count;
	return count * INTS<Segment> + tiles.count * INTS<AttentionTile> + key_tiles.count * INTS<KeyTile> +
	       items.count * INTS<KeyItem>;
}

extern "C" int64_t kernel_decode_plan(struct kernel_decode_plan *plan, int32_t *list,
                                      const struct kernel_segment *segments, int64_t count,
                                      const struct kernel_attention *a, int64_t items)
{
	if (!good_segments(segments, count, *a) || items < 0 || !fits(items))
		return -1;
	for (int64_t i = 0; i < count; i++)
		if (segments[i].q_len > 1)
			return -1;
	const int64_t group = a->heads / a->kv_heads;
	Entry *entries = (Entry *)malloc((size_t)(count + 1) * sizeof *entries);
	if (!entries)
		return -1;
	int64_t busy = 0, partials = 0;
	for (int64_t i = 0; i < count; i++) {
		const Segment &s = segments[i];
		entries[i] = {(int32_t)i, s.prefix_len ? s.prefix_start : 0, s.prefix_len, s.q_len == 0};
		busy += s.q_len;
	}
	qsort(entries, (size_t)count, sizeof *entries, by_prefix);

	Writer<Segment> all = {list, 0};
	for (int64_t i = 0; i < count; i++)
		all.put(segments[i]);
	Writer<int32_t> order = {all.end(), 0};
	for (int64_t i = 0; i < count; i++)
		order.put(entries[i].index);
	Writer<int32_t> first = {order.end(), 0};
	for (int64_t i = 0; i < count; i++) {
		first.put((int32_t)partials);
		if (i < busy)
			partials += chunks_of(entries[i].prefix_len) + chunks_of(segments[entries[i].index].kv_len);
	}
	Writer<DecodeItem> out = {first.end(), 0};
	for (int64_t i = 0, end; i < busy; i = end) {
		end = i + 1;
		while (end < busy && entries[end].prefix_len == entries[i].prefix_len &&
		       entries[end].prefix_start == entries[i].prefix_start)
			end++;
		put_chunks(out, i * group, end * group, entries[i].prefix_len, 0);
	}
	for (int64_t i = 0; i < busy; i++)
		put_chunks(out, i * group, (i + 1) * group, segments[entries[i].index].kv_len, 1);
	while (out.count < items)
		out.put({0, 0, 0, 0});
	free(entries);
	if (!fits(out.count) || !fits(partials))
		return -1;
	begin(plan, *a, count);
	plan->items = (int32_t)out.count;
	plan->partials = (int32_t)partials;
	return count * (INTS<Segment> + 2) + out.count * INTS<DecodeItem>;
}
