/* Reads a golden case written by tools/golden_model.py. */
#ifndef FAVOR_TESTS_MODEL_GOLDEN_H
#define FAVOR_TESTS_MODEL_GOLDEN_H

#include "model/batch.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden_case {
	int32_t *ids, count;
	struct image_input images[4];
	int image_count;
	float *pixels;
	int32_t *responses, *start, groups, tokens;
	float *logp, *weight;
	int32_t *greedy, greedy_count;
};

static inline int32_t *golden_ints(const struct safetensors *s, int n, const char *what, int32_t *count)
{
	char name[64];
	snprintf(name, sizeof name, "%d.%s", n, what);
	const struct st_tensor *t = safetensors_find(s, name);
	*count = 0;
	if (!t)
		return NULL;
	int32_t *v = favor_malloc((size_t)t->count * sizeof *v);
	for (int64_t i = 0; i < t->count; i++) {
		int64_t x;
		memcpy(&x, t->data + 8 * i, 8);
		v[i] = (int32_t)x;
	}
	*count = (int32_t)t->count;
	return v;
}

static inline float *golden_floats(const struct safetensors *s, const char *name)
{
	const struct st_tensor *t = safetensors_find(s, name);
	if (!t)
		return NULL;
	float *v = favor_malloc((size_t)t->count * sizeof *v);
	if (safetensors_copy(t, v, NULL))
		abort();
	return v;
}

/* 0 if there is no case n. */
static inline int golden_case(struct golden_case *c, const struct safetensors *s, int n, int patch_dim)
{
	char name[64];
	int32_t grids, starts;
	*c = (struct golden_case){0};
	c->ids = golden_ints(s, n, "ids", &c->count);
	if (!c->ids)
		return 0;
	int32_t *grid = golden_ints(s, n, "grid", &grids);
	snprintf(name, sizeof name, "%d.pixel_values", n);
	c->pixels = golden_floats(s, name);
	const float *p = c->pixels;
	for (int i = 0; i < grids / 3; i++) {
		c->images[i] = (struct image_input){grid[3 * i], grid[3 * i + 1], grid[3 * i + 2], p};
		p += (int64_t)grid[3 * i] * grid[3 * i + 1] * grid[3 * i + 2] * patch_dim;
	}
	c->image_count = grids / 3;
	free(grid);
	c->responses = golden_ints(s, n, "responses", &c->tokens);
	c->start = golden_ints(s, n, "start", &starts);
	c->groups = starts - 1;
	c->greedy = golden_ints(s, n, "greedy", &c->greedy_count);
	snprintf(name, sizeof name, "%d.logp", n);
	c->logp = golden_floats(s, name);
	snprintf(name, sizeof name, "%d.weight", n);
	c->weight = golden_floats(s, name);
	return 1;
}

static inline void golden_free(struct golden_case *c)
{
	free(c->ids);
	free(c->pixels);
	free(c->responses);
	free(c->start);
	free(c->greedy);
	free(c->logp);
	free(c->weight);
}

#endif
