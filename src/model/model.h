/* A model: read-only shapes and weights. One block holds all weights in the order of params.h; the session (session.h)
 * is one timeline over them, the pass (pass.h) one forward and backward. */
#ifndef FAVOR_MODEL_MODEL_H
#define FAVOR_MODEL_MODEL_H

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/feature_cache.h"
#include "model/hf_config.h"
#include "model/params.h"

#include <stdint.h>

struct model {
	struct model_config config;
	struct param_list params;
	struct backend *backend; /* borrowed */
	float *block;            /* [params.total], backend memory, owned */
	struct weights w;        /* into block */
	uint64_t version;        /* policy version: optimiser steps that made these weights */
	struct feature_cache *features; /* see model_keep_features; owned. NULL: none are kept */
};

/* What a computation runs on: memory for activations, and a sign of life for long ones. */
struct run {
	struct backend *backend;
	struct arena *arena;    /* backend memory (run_arena_init); the caller marks and resets */
	int (*tick)(void *arg); /* called between layers; may be NULL. Not 0: give up, now and in all calls to come */
	void *tick_arg;
};
void run_arena_init(struct arena *a, struct backend *b);
static inline int run_tick(const struct run *r)
{
	return r->tick ? r->tick(r->tick_arg) : 0;
}
/* rows x cols floats of the arena, uninitialised: residual stream, its gradient, logits. */
struct tensor run_tensor(const struct run *r, int64_t rows, int64_t cols);
/* The same of the backend's operand type: what feeds a matrix product, and the gradient of such. */
struct tensor run_operand(const struct run *r, int64_t rows, int64_t cols);
/* x as products take it: x itself if it is of the operand type, else a copy in the arena. */
struct tensor run_as_operand(const struct run *r, struct tensor x);
/* n floats of the arena, uninitialised. */
float *run_floats(const struct run *r, int64_t n);
/* As op_segments, in the arena. */
struct segment *run_segments(const struct run *r, const struct segment *segments, int count);
void *run_upload(const struct run *r, const void *from, size_t bytes);

/* A Hugging Face folder: config.json + safetensors. NULL on error: a missing or misshapen tensor is named with both
 * shapes. Tensors that the model has not are named in *warning (owned by the caller, NULL if none; may be NULL). */
struct model *model_open(const char *folder, struct backend *b, char **warning, struct favor_error *e);
/* config.json alone, weights drawn: normal with std 0.5 / sqrt(inputs), norms 1, biases 0. A function of the seed
 * alone. */
struct model *model_random(const char *folder, struct backend *b, uint64_t seed, struct favor_error *e);
/* config.json alone; weights zero, to be filled (from a checkpoint or a publish). */
struct model *model_empty(const char *folder, struct backend *b, struct favor_error *e);
/* config.json alone, block NULL: for sizes and plans. */
struct model *model_shapes(const char *folder, struct backend *b, struct favor_error *e);
/* The same, with the weights' files looked at as model_open does: each tensor is there in its shape. */
struct model *model_checked(const char *folder, struct backend *b, struct favor_error *e);
void model_destroy(struct model *m);
/* From now on features of images are kept in so many bytes of backend memory and not computed twice: for a vision tower
 * whose weights stay as they are now. What was kept is dropped; 0: nothing is kept any more. */
void model_keep_features(struct model *m, size_t bytes);
/* Tells the backend that the weights at m->block have changed. */
void model_changed(struct model *m);
/* DIR/model.safetensors under the Hugging Face names, F32 or BF16. */
int model_write(const struct model *m, const char *dir, int bf16, struct favor_error *e);

#endif
