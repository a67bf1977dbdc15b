/* See feature_cache.h. One block, filled as a ring: what is overwritten is what has come first.
 *
 *   block   [ 7 | 8 | 9 |  ..  | 4 | 5 | 6 |  ]      oldest: 4; next goes behind 9, and takes 4's place
 */
#include "model/feature_cache.h"

#include "backend/ops.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

struct kept {
	struct feature_key key;
	int64_t first, rows;
};

struct feature_cache {
	struct backend *backend; /* borrowed */
	int64_t columns, capacity; /* of the block, in floats and rows */
	float *block;              /* [capacity, columns], backend memory, owned */
	int64_t next;              /* row behind the newest */
	struct kept *kept;         /* [room], owned: from the oldest to the newest */
	int64_t count, room;
};

struct feature_key feature_key(const struct image_input *image, int64_t patch_dim)
{
	const int64_t patches = (int64_t)image->grid_t * image->grid_h * image->grid_w;
	return (struct feature_key){
	    .hash = hash_block(HASH_START, image->values, (size_t)(patches * patch_dim) * sizeof *image->values),
	    .grid_t = image->grid_t,
	    .grid_h = image->grid_h,
	    .grid_w = image->grid_w};
}

static int same(const struct feature_key *a, const struct feature_key *b)
{
	return a->hash == b->hash && a->grid_t == b->grid_t && a->grid_h == b->grid_h && a->grid_w == b->grid_w;
}

struct feature_cache *feature_cache_new(struct backend *b, int64_t columns, size_t bytes)
{
	struct feature_cache *c = favor_calloc(1, sizeof *c);
	const size_t row = (size_t)columns * sizeof(float);
	*c = (struct feature_cache){.backend = b, .columns = columns, .capacity = (int64_t)(bytes / row)};
	if (c->capacity)
		c->block = op_alloc(b, (size_t)c->capacity * row);
	return c;
}

void feature_cache_destroy(struct feature_cache *c)
{
	if (!c)
		return;
	if (c->block)
		op_release(c->backend, c->block);
	free(c->kept);
	free(c);
}

static struct tensor rows_of(const struct feature_cache *c, int64_t first, int64_t rows)
{
	return tensor_of(c->block + first * c->columns, rows, c->columns);
}

struct tensor feature_cache_find(const struct feature_cache *c, const struct feature_key *key)
{
	for (int64_t i = c->count; i-- > 0;)
		if (same(&c->kept[i].key, key))
			return rows_of(c, c->kept[i].first, c->kept[i].rows);
	return TENSOR_NONE;
}

static void drop_oldest(struct feature_cache *c, int64_t n)
{
	if (!n)
		return;
	c->count -= n;
	memmove(c->kept, c->kept + n, (size_t)c->count * sizeof *c->kept);
}

struct tensor feature_cache_keep(struct feature_cache *c, const struct feature_key *key, int64_t rows)
{
	int64_t oldest = 0; /* that stays */
	if (rows > c->capacity)
		return TENSOR_NONE;
	if (c->next + rows > c->capacity) {
		while (oldest < c->count && c->kept[oldest].first >= c->next)
			oldest++;
		c->next = 0;
	}
	while (oldest < c->count && c->kept[oldest].first >= c->next && c->kept[oldest].first < c->next + rows)
		oldest++;
	drop_oldest(c, oldest);
	if (c->count == c->room) {
		c->room = c->room ? 2 * c->room : 64;
		c->kept = favor_realloc(c->kept, (size_t)c->room * sizeof *c->kept);
	}
	c->kept[c->count++] = (struct kept){.key = *key, .first = c->next, .rows = rows};
	c->next += rows;
	return rows_of(c, c->next - rows, rows);
}

int64_t feature_cache_count(const struct feature_cache *c)
{
	return c->count;
}
