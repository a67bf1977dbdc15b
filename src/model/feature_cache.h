/* Features of images that a vision tower has seen, for one whose weights stay as they are (model.vision: frozen): rollout and
 * learner take the same image in a step, and an epoch later it comes again. An image is known by its patches, so it does
 * not matter where it comes from; of the hash that stands for them two in 10^5 images collide once in 10^9 runs. The newest
 * are kept. */
#ifndef FAVOR_MODEL_FEATURE_CACHE_H
#define FAVOR_MODEL_FEATURE_CACHE_H

#include "backend/backend.h"
#include "base/image_input.h"

#include <stddef.h>
#include <stdint.h>

struct feature_key {
	uint64_t hash;
	int32_t grid_t, grid_h, grid_w;
};
/* Of an image with patches of that many values. */
struct feature_key feature_key(const struct image_input *image, int64_t patch_dim);

struct feature_cache;
/* Room for bytes / (4 columns) rows of features, in backend memory. */
struct feature_cache *feature_cache_new(struct backend *b, int64_t columns, size_t bytes);
void feature_cache_destroy(struct feature_cache *c); /* NULL is fine */
/* The image's features, [rows, columns] in backend memory, there until the next feature_cache_keep; data NULL: it has none. */
struct tensor feature_cache_find(const struct feature_cache *c, const struct feature_key *key);
/* Where the caller puts the features of an image that has none, `rows` of them; the oldest ones make way. data NULL: there
 * would not be room if it were empty. */
struct tensor feature_cache_keep(struct feature_cache *c, const struct feature_key *key, int64_t rows);
/* Images in it. */
int64_t feature_cache_count(const struct feature_cache *c);

#endif
