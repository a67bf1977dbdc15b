/* A packed batch: what one forward pass takes. Rows of several prompts and their responses stand one behind the other;
 * segments say who sees whom:
 *
 *   rows:      [ prompt A | response A0 | response A1 | ... | prompt B | response B0 | ... ]
 *   segments:    prompt: causal over itself;  response: sees its whole prompt, causal over itself
 *
 * A response of n tokens takes n - 1 rows (its last token predicts nothing) and n targets (its first is predicted by
 * the prompt's last row). All arrays are host memory, owned by the batch. */
#ifndef FAVOR_MODEL_BATCH_H
#define FAVOR_MODEL_BATCH_H

#include "backend/backend.h"
#include "base/error.h"
#include "base/image_input.h"
#include "model/hf_config.h"

#include <stdint.h>

struct batch {
	const struct model_config *config; /* borrowed */
	int32_t rows, row_capacity;
	int32_t *ids;      /* [rows] */
	int32_t *position; /* [rows, 3]: temporal, height, width (M-RoPE) */
	int32_t *feature;  /* [rows]: row of the merged vision features, or -1 */
	int32_t segments, segment_capacity;
	struct segment *segment;
	int32_t images, image_capacity;
	struct image_input *image;
	int64_t patches, features; /* rows of all images before and after merging */
	int32_t targets, target_capacity;
	int32_t *target_row; /* [targets]: the row whose output predicts it */
	int32_t *target_id;
};

/* A prompt inside a batch. */
struct prefix {
	int32_t row, rows;
	int32_t next_position; /* of the first response token, all three axes */
};

void batch_init(struct batch *b, const struct model_config *c);
void batch_clear(struct batch *b); /* keeps memory */
void batch_free(struct batch *b);

/* M-RoPE positions of a prompt (transformers' get_rope_index): text counts up on all axes; an image's tokens stand at
 * (t, h, w) from the position after what is before it; what follows starts after the largest. position [n, 3]. -1 if
 * image tokens and images do not match. */
int batch_positions(const struct model_config *c, const int32_t *ids, int32_t n, const struct image_input *images,
                    int32_t image_count, int32_t *position, int32_t *next, struct favor_error *e);

/* Appends a prompt. ids must be in the vocabulary, image tokens expanded. */
int batch_add_prompt(struct batch *b, const int32_t *ids, int32_t n, const struct image_input *images,
                     int32_t image_count, struct prefix *prefix, struct favor_error *e);
/* Appends a response of n >= 1 tokens and its n targets. */
int batch_add_response(struct batch *b, const struct prefix *prefix, const int32_t *ids, int32_t n,
                       struct favor_error *e);
void batch_add_target(struct batch *b, int32_t row, int32_t id);

#endif
