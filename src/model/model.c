/* Loading, drawing and writing of weights. Binds and checks everything before the first use, so that later code relies
 * on shapes. */
#include "model/model.h"

#include "backend/ops.h"
#include "base/rng.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *backend_chunk(void *owner, size_t bytes)
{
	return op_alloc(owner, bytes);
}

static void backend_chunk_release(void *owner, void *p)
{
	op_release(owner, p);
}

void run_arena_init(struct arena *a, struct backend *b)
{
	arena_init_owner(a, b, backend_chunk, backend_chunk_release);
}

float *run_floats(const struct run *r, int64_t n)
{
	return arena_alloc(r->arena, (size_t)n * sizeof(float));
}

struct tensor run_tensor(const struct run *r, int64_t rows, int64_t cols)
{
	return tensor_of(run_floats(r, rows * cols), rows, cols);
}

struct tensor run_operand(const struct run *r, int64_t rows, int64_t cols)
{
	const enum element type = r->backend->operand;
	return tensor_of_type(arena_alloc(r->arena, (size_t)(rows * cols) * element_size(type)), rows, cols, type);
}

struct tensor run_as_operand(const struct run *r, struct tensor x)
{
	if (x.type == r->backend->operand)
		return x;
	struct tensor y = run_operand(r, x.rows, x.cols);
	op_cast(r->backend, y, x);
	return y;
}

void *run_upload(const struct run *r, const void *from, size_t bytes)
{
	void *p = arena_alloc(r->arena, bytes);
	if (bytes)
		op_upload(r->backend, p, from, bytes);
	return p;
}

struct segment *run_segments(const struct run *r, const struct segment *segments, int count)
{
	struct segment *there = arena_alloc(r->arena, (size_t)count * sizeof *there);
	op_segments(r->backend, there, segments, count, 0);
	return there;
}

/* Shapes alone: no memory for weights yet. */
struct model *model_shapes(const char *folder, struct backend *b, struct favor_error *e)
{
	struct model_config c;
	if (model_config_load(&c, folder, e))
		return NULL;
	struct model *m = favor_calloc(1, sizeof *m);
	m->config = c;
	m->backend = b;
	params_list(&m->params, &m->config);
	/* all weights pass through this machine's memory, at least once, as float32 */
	const double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (memory > 0 && (double)m->params.total * sizeof(float) > memory) {
		favor_fail(e, "%s/config.json: a model of %.3g parameters takes %.3g GiB, and this machine has %.3g GiB", folder,
		           (double)m->params.total, (double)m->params.total * sizeof(float) / 0x1p30, memory / 0x1p30);
		model_destroy(m);
		return NULL;
	}
	return m;
}

static void model_allocate(struct model *m)
{
	const size_t bytes = (size_t)m->params.total * sizeof(float);
	m->block = op_alloc(m->backend, bytes);
	op_zero(m->backend, m->block, bytes);
	weights_bind(&m->w, &m->config, m->block);
}

struct model *model_empty(const char *folder, struct backend *b, struct favor_error *e)
{
	struct model *m = model_shapes(folder, b, e);
	if (m)
		model_allocate(m);
	return m;
}

void model_destroy(struct model *m)
{
	if (!m)
		return;
	weights_unbind(&m->w);
	feature_cache_destroy(m->features);
	if (m->block)
		op_release(m->backend, m->block);
	params_list_free(&m->params);
	free(m);
}

void model_keep_features(struct model *m, size_t bytes)
{
	feature_cache_destroy(m->features);
	m->features = bytes ? feature_cache_new(m->backend, m->config.hidden_size, bytes) : NULL;
}

void model_changed(struct model *m)
{
	op_weights_changed(m->backend);
}

static void shape_text(char *to, size_t n, const int64_t *shape, int ndim)
{
	size_t used = (size_t)snprintf(to, n, "[");
	for (int i = 0; i < ndim && used < n; i++)
		used += (size_t)snprintf(to + used, n - used, i ? ", %lld" : "%lld", (long long)shape[i]);
	if (used < n)
		snprintf(to + used, n - used, "]");
}

/* Newer writers put the towers below "model." and call the decoder "language_model". */
static const struct st_tensor *find_tensor(const struct safetensors *s, const char *name)
{
	const struct st_tensor *t = safetensors_find(s, name);
	char other[200];
	if (!t) {
		if (!strncmp(name, "visual.", 7))
			snprintf(other, sizeof other, "model.%s", name);
		else if (!strncmp(name, "model.", 6))
			snprintf(other, sizeof other, "model.language_model.%s", name + 6);
		else
			return NULL;
		t = safetensors_find(s, other);
	}
	return t;
}

/* Every parameter's tensor, before anything is allocated by config.json's word. found [params.count] is filled. */
static int find_weights(const struct model *m, const struct safetensors *s, const char *folder,
                        const struct st_tensor **found, struct favor_error *e)
{
	for (int i = 0; i < m->params.count; i++) {
		const struct param *p = &m->params.params[i];
		const struct st_tensor *t = find_tensor(s, p->name);
		char want[160], have[160];
		shape_text(want, sizeof want, p->shape, p->ndim);
		if (!t)
			return favor_fail(e, "%s: tensor \"%s\" %s is missing", folder, p->name, want);
		int same = t->ndim == p->ndim;
		for (int d = 0; same && d < p->ndim; d++)
			same = t->shape[d] == p->shape[d];
		if (!same) {
			shape_text(have, sizeof have, t->shape, t->ndim);
			return favor_fail(e, "%s: tensor \"%s\" has shape %s, but config.json makes it %s", t->file, p->name, have,
			                  want);
		}
		found[i] = t;
	}
	return 0;
}

static int load_weights(struct model *m, const struct safetensors *s, const char *folder, char **warning,
                        struct favor_error *e)
{
	const int used = m->params.count;
	const struct st_tensor **found = favor_calloc((size_t)used, sizeof *found);
	float *values = NULL;
	int result = -1;
	if (find_weights(m, s, folder, found, e))
		goto done;
	model_allocate(m);
	int64_t largest = 0;
	for (int i = 0; i < used; i++)
		if (m->params.params[i].count > largest)
			largest = m->params.params[i].count;
	values = favor_malloc((size_t)largest * sizeof *values);
	for (int i = 0; i < used; i++) {
		const struct param *p = &m->params.params[i];
		favor_alive();
		if (safetensors_copy(found[i], values, e))
			goto done;
		op_upload(m->backend, m->block + p->offset, values, (size_t)p->count * sizeof *values);
	}
	if (warning && safetensors_count(s) > used &&
	    !(m->config.tied && safetensors_find(s, "lm_head.weight") && safetensors_count(s) == used + 1)) {
		*warning = favor_format("%s: %d tensors are not part of the model and were not read", folder,
		                        safetensors_count(s) - used);
	}
	result = 0;
done:
	free(values);
	free(found);
	return result;
}

struct model *model_open(const char *folder, struct backend *b, char **warning, struct favor_error *e)
{
	if (warning)
		*warning = NULL;
	struct model *m = model_shapes(folder, b, e);
	if (!m)
		return NULL;
	struct safetensors *s = safetensors_open(folder, e);
	if (!s || load_weights(m, s, folder, warning, e)) {
		model_destroy(m);
		m = NULL;
	}
	safetensors_close(s);
	return m;
}

struct model *model_checked(const char *folder, struct backend *b, struct favor_error *e)
{
	struct model *m = model_shapes(folder, b, e);
	if (!m)
		return NULL;
	struct safetensors *s = safetensors_open(folder, e);
	const struct st_tensor **found = favor_calloc((size_t)m->params.count, sizeof *found);
	if (!s || find_weights(m, s, folder, found, e)) {
		model_destroy(m);
		m = NULL;
	}
	free(found);
	safetensors_close(s);
	return m;
}

struct model *model_random(const char *folder, struct backend *b, uint64_t seed, struct favor_error *e)
{
	struct model *m = model_empty(folder, b, e);
	if (!m)
		return NULL;
	for (int i = 0; i < m->params.count; i++) {
		const struct param *p = &m->params.params[i];
		favor_alive();
		float *values = favor_malloc((size_t)p->count * sizeof *values);
		size_t length = strlen(p->name);
		int bias = length > 5 && !strcmp(p->name + length - 5, ".bias");
		double fan_in = p->ndim == 5 ? (double)m->config.vision.patch_dim : (double)p->shape[1];
		double std = 0.5 / sqrt(fan_in); /* 0.02 at a width of 768; narrower models need more to start from */
		for (int64_t j = 0; j < p->count; j++)
			values[j] = p->ndim > 1
			                ? (float)(std * rng_normal(seed, RNG_INIT, (uint64_t)i, (uint32_t)(j >> 32), (uint32_t)j))
			            : bias ? 0.0f
			                   : 1.0f;
		op_upload(b, m->block + p->offset, values, (size_t)p->count * sizeof *values);
		free(values);
	}
	return m;
}

int model_write(const struct model *m, const char *dir, int bf16, struct favor_error *e)
{
	struct st_out *out = favor_calloc((size_t)m->params.count, sizeof *out);
	float *values = favor_malloc((size_t)m->params.total * sizeof *values);
	op_download(m->backend, values, m->block, (size_t)m->params.total * sizeof *values);
	for (int i = 0; i < m->params.count; i++) {
		const struct param *p = &m->params.params[i];
		out[i] = (struct st_out){
		    .name = p->name, .ndim = p->ndim, .dtype = bf16 ? ST_BF16 : ST_F32, .values = values + p->offset};
		memcpy(out[i].shape, p->shape, sizeof p->shape);
	}
	char *path = favor_format("%s/model.safetensors", dir);
	int result = safetensors_write(path, out, m->params.count, e);
	free(path);
	free(values);
	free(out);
	return result;
}
