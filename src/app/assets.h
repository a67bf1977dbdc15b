/* What a model path holds: weights, tokeniser, image settings. M is a Hugging Face folder or a checkpoint (.h5); a
 * checkpoint carries the folder's small files and is opened through a private temporary folder. */
#ifndef FAVOR_APP_ASSETS_H
#define FAVOR_APP_ASSETS_H

#include "backend/backend.h"
#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "data/encode.h"
#include "data/image.h"
#include "data/tokenizer.h"
#include "model/model.h"

struct assets {
	char *folder;  /* where config.json, tokenizer.json, ... stand; owned */
	int temporary; /* folder is ours and is removed by assets_close */
	struct tokenizer *tokenizer;
	struct image_settings settings;
	struct model *model; /* NULL with WEIGHTS_NONE */
};

/* SHAPES: parameters without memory for them; CHECKED: that, and the weights' files hold them all. */
enum weights_from { WEIGHTS_FILE, WEIGHTS_RANDOM, WEIGHTS_EMPTY, WEIGHTS_SHAPES, WEIGHTS_CHECKED, WEIGHTS_NONE };

/* Opens all of it; warnings (unknown tensors, no image settings, another chat template) go to stderr if `warn`. -1 on
 * bad input. Close in any case. */
int assets_open(struct assets *a, const char *path, enum weights_from from, uint64_t seed, struct backend *b, int warn,
                struct favor_error *e);
void assets_close(struct assets *a);
/* Tokeniser alone, from a folder or a checkpoint. NULL on error; the caller destroys it. */
struct tokenizer *assets_tokenizer(const char *path, struct favor_error *e);
/* Image settings alone. */
int assets_image_settings(const char *path, struct image_settings *s, struct favor_error *e);

int is_checkpoint(const char *path);
/* The small files of a model folder as a checkpoint carries them; owned by the caller (assets_files_free). */
int assets_files(const char *folder, struct checkpoint_file **files, int32_t *count, struct favor_error *e);
void assets_files_free(struct checkpoint_file *files, int32_t count);
/* Writes the checkpoint's files into dir (which is there). Files that favor does not
 * put into checkpoints are refused; links are not followed. */
int assets_write_files(const struct checkpoint *c, const char *dir, struct favor_error *e);
/* Bytes on the host that tensors pass through on their way to and from a checkpoint, one at a time: values and, for who has
 * moments, both of these, of the largest. */
int64_t assets_staging_bytes(const struct model *m, int moments);
/* Reads /model of a checkpoint, and of /optimizer, if the blocks are given, the moments of weights [own_first, own_first +
 * own_count). Tensor by tensor: after a failure some are read. */
int assets_read_weights(const char *checkpoint, struct model *m, float *exp_avg, float *exp_avg_sq, int64_t own_first,
                        int64_t own_count, struct favor_error *e);
/* An encoder over the assets. */
struct encoder assets_encoder(const struct assets *a);

#endif
