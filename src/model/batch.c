/* Packing. Called by the learner (groups), the session (prompts) and favor score. */
#include "model/batch.h"

#include <stdlib.h>
#include <string.h>

void batch_init(struct batch *b, const struct model_config *c)
{
	*b = (struct batch){.config = c};
}

void batch_clear(struct batch *b)
{
	b->rows = b->segments = b->images = b->targets = 0;
	b->patches = b->features = 0;
}

void batch_free(struct batch *b)
{
	free(b->ids);
	free(b->position);
	free(b->feature);
	free(b->segment);
	free(b->image);
	free(b->target_row);
	free(b->target_id);
	*b = (struct batch){0};
}

static int32_t grown(int32_t capacity, int32_t need)
{
	while (capacity < need)
		capacity = capacity ? 2 * capacity : 256;
	return capacity;
}

static void reserve_rows(struct batch *b, int32_t more)
{
	if (b->rows + more <= b->row_capacity)
		return;
	b->row_capacity = grown(b->row_capacity, b->rows + more);
	b->ids = favor_realloc(b->ids, (size_t)b->row_capacity * sizeof *b->ids);
	b->position = favor_realloc(b->position, (size_t)b->row_capacity * 3 * sizeof *b->position);
	b->feature = favor_realloc(b->feature, (size_t)b->row_capacity * sizeof *b->feature);
}

static void add_segment(struct batch *b, struct segment s)
{
	if (b->segments == b->segment_capacity) {
		b->segment_capacity = grown(b->segment_capacity, b->segments + 1);
		b->segment = favor_realloc(b->segment, (size_t)b->segment_capacity * sizeof *b->segment);
	}
	b->segment[b->segments++] = s;
}

void batch_add_target(struct batch *b, int32_t row, int32_t id)
{
	if (b->targets == b->target_capacity) {
		b->target_capacity = grown(b->target_capacity, b->targets + 1);
		b->target_row = favor_realloc(b->target_row, (size_t)b->target_capacity * sizeof *b->target_row);
		b->target_id = favor_realloc(b->target_id, (size_t)b->target_capacity * sizeof *b->target_id);
	}
	b->target_row[b->targets] = row;
	b->target_id[b->targets++] = id;
}

int batch_positions(const struct model_config *c, const int32_t *ids, int32_t n, const struct image_input *images,
                    int32_t image_count, int32_t *position, int32_t *next, struct favor_error *e)
{
	int32_t at = 0, used = 0, merge = c->vision.merge_size;
	for (int32_t i = 0; i < n;) {
		if (ids[i] != c->image_token) {
			position[3 * i] = position[3 * i + 1] = position[3 * i + 2] = at++;
			i++;
			continue;
		}
		if (used == image_count)
			return favor_fail(e, "the prompt has image tokens for more than its %d images", image_count);
		const struct image_input *im = &images[used++];
		int32_t t = im->grid_t, h = im->grid_h / merge, w = im->grid_w / merge, largest = 0;
		if ((int64_t)t * h * w > n - i)
			return favor_fail(e, "image %d has %d tokens, but the prompt ends after %d of them", used, t * h * w,
			                  n - i);
		for (int32_t k = 0; k < t * h * w; k++, i++) {
			if (ids[i] != c->image_token)
				return favor_fail(e, "image %d has %d tokens, but the prompt holds %d of them in a row", used,
				                  t * h * w, k);
			position[3 * i] = at + k / (h * w);
			position[3 * i + 1] = at + k / w % h;
			position[3 * i + 2] = at + k % w;
		}
		largest = t > h ? t : h;
		at += largest > w ? largest : w;
	}
	if (used != image_count)
		return favor_fail(e, "the prompt has image tokens for %d of its %d images", used, image_count);
	*next = at;
	return 0;
}

static int check_ids(const struct batch *b, const int32_t *ids, int32_t n, struct favor_error *e)
{
	for (int32_t i = 0; i < n; i++)
		if (ids[i] < 0 || ids[i] >= b->config->vocab_size)
			return favor_fail(e,
			                  "token %d at position %d is outside the model's vocabulary of %d: tokenizer.json and "
			                  "config.json don't belong together",
			                  ids[i], i, b->config->vocab_size);
	return 0;
}

int batch_add_prompt(struct batch *b, const int32_t *ids, int32_t n, const struct image_input *images,
                     int32_t image_count, struct prefix *prefix, struct favor_error *e)
{
	if (n < 1)
		return favor_fail(e, "the prompt is empty");
	reserve_rows(b, n);
	*prefix = (struct prefix){.row = b->rows, .rows = n};
	if (check_ids(b, ids, n, e) || batch_positions(b->config, ids, n, images, image_count,
	                                               b->position + 3 * (int64_t)b->rows, &prefix->next_position, e))
		return -1;
	int32_t merge2 = b->config->vision.merge_size * b->config->vision.merge_size;
	int64_t feature = b->features;
	for (int32_t i = 0; i < n; i++) {
		b->ids[b->rows + i] = ids[i];
		b->feature[b->rows + i] = ids[i] == b->config->image_token ? (int32_t)feature++ : -1;
	}
	if (b->images + image_count > b->image_capacity) {
		b->image_capacity = grown(b->image_capacity, b->images + image_count);
		b->image = favor_realloc(b->image, (size_t)b->image_capacity * sizeof *b->image);
	}
	for (int32_t i = 0; i < image_count; i++) {
		b->image[b->images++] = images[i];
		b->patches += (int64_t)images[i].grid_t * images[i].grid_h * images[i].grid_w;
	}
	b->features = b->patches / merge2;
	add_segment(b, (struct segment){.q_start = b->rows, .q_len = n, .kv_start = b->rows, .kv_len = n, .causal = 1});
	b->rows += n;
	return 0;
}

int batch_add_response(struct batch *b, const struct prefix *prefix, const int32_t *ids, int32_t n,
                       struct favor_error *e)
{
	if (n < 1)
		return favor_fail(e, "a response is empty");
	if (check_ids(b, ids, n, e))
		return -1;
	int32_t first = b->rows;
	reserve_rows(b, n);
	batch_add_target(b, prefix->row + prefix->rows - 1, ids[0]);
	for (int32_t i = 0; i + 1 < n; i++) {
		b->ids[first + i] = ids[i];
		b->feature[first + i] = -1; /* a sampled image token is a token, not an image */
		for (int axis = 0; axis < 3; axis++)
			b->position[3 * (first + i) + axis] = prefix->next_position + i;
		batch_add_target(b, first + i, ids[i + 1]);
	}
	if (n > 1)
		add_segment(b, (struct segment){.q_start = first,
		                                .q_len = n - 1,
		                                .prefix_start = prefix->row,
		                                .prefix_len = prefix->rows,
		                                .kv_start = first,
		                                .kv_len = n - 1,
		                                .causal = 1});
	b->rows += n - 1;
	return 0;
}
