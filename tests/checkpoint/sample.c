#include "sample.h"

#include "base/rng.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int ndim;
	int64_t shape[5];
	int trained;
} TENSORS[] = {
	{"model.layers.1.mlp.weight", 2, {37, 53}, 1},
	{"model.layers.0.mlp.weight", 2, {53, 37}, 1},
	{"visual.patch_embed.proj.weight", 5, {3, 3, 2, 4, 4}, 0},
	{"model.norm.weight", 1, {37}, 1},
	{"scalar", 0, {0}, 1},
	{"empty", 2, {0, 4}, 1},
	{"empty.frozen", 1, {0}, 0},
	{"one", 1, {1}, 0},
	{"Größe", 3, {2, 1, 3}, 1}, /* names are UTF-8 */
};
enum { TENSOR_COUNT = sizeof TENSORS / sizeof *TENSORS, ROWS = 7, COLUMNS = 4 };
static const char *const METRICS[COLUMNS] = {"reward", "rewards/format/mean", "kl", "rewards/accuracy/mean"};

int64_t sample_elements(const struct checkpoint_tensor *t)
{
	int64_t n = 1;
	for (int i = 0; i < t->ndim; i++)
		n *= t->shape[i];
	return n;
}

static float *random_values(int64_t n, uint64_t which)
{
	float *x = favor_malloc((size_t)n * sizeof *x);
	for (int64_t i = 0; i < n; i++)
		x[i] = (float)rng_normal(1, RNG_INIT, which, 0, (uint32_t)i);
	return x;
}

void sample_make(struct checkpoint *c, int64_t step)
{
	*c = (struct checkpoint){.step = step,
	                         .seed = UINT64_MAX,
	                         .cursor = 1ull << 40,
	                         .policy_version = (uint64_t)step,
	                         .tensor_count = TENSOR_COUNT,
	                         .history_rows = ROWS,
	                         .history_columns = COLUMNS};
	c->config = favor_strdup("method: grpo\nlearner:\n  lr: 1.0e-05 # \"größer\"\n");
	c->ranks = favor_strdup("rollout 2, reward 1, learner 1");
	c->tensors = favor_calloc(TENSOR_COUNT, sizeof *c->tensors);
	for (int i = 0; i < TENSOR_COUNT; i++) {
		struct checkpoint_tensor *t = &c->tensors[i];
		t->name = favor_strdup(TENSORS[i].name);
		t->ndim = TENSORS[i].ndim;
		memcpy(t->shape, TENSORS[i].shape, sizeof t->shape);
		uint64_t which = 10 * (uint64_t)i + 1000 * (uint64_t)step;
		t->values = random_values(sample_elements(t), which);
		if (TENSORS[i].trained) {
			t->exp_avg = random_values(sample_elements(t), which + 1);
			t->exp_avg_sq = random_values(sample_elements(t), which + 2);
		}
	}
	uint32_t odd[] = {0x7fc12345, 0x80000000, 0x00000001, 0x7f800000, 0xff800000, 0x7f7fffff};
	memcpy(c->tensors[0].values, odd, sizeof odd);
	c->file_count = 3;
	c->files = favor_calloc(3, sizeof *c->files);
	c->files[0] = (struct checkpoint_file){favor_strdup("tokenizer.json"), favor_strdup("{\"a\": 1}"), 8};
	c->files[1] = (struct checkpoint_file){favor_strdup("config.json"), favor_malloc(256), 256};
	for (int i = 0; i < 256; i++)
		c->files[1].data[i] = (char)i;
	c->files[2] = (struct checkpoint_file){favor_strdup("empty.txt"), favor_strdup(""), 0};
	c->history = favor_calloc(COLUMNS, sizeof *c->history);
	for (int k = 0; k < COLUMNS; k++) {
		c->history[k].name = favor_strdup(METRICS[k]);
		c->history[k].values = favor_calloc(ROWS, sizeof(double));
		for (int i = 0; i < ROWS; i++)
			c->history[k].values[i] = i == 2 ? NAN : rng_normal(2, RNG_INIT, (uint64_t)k, 0, (uint32_t)i);
	}
	c->sample_count = 3;
	c->samples = favor_calloc(3, sizeof *c->samples);
	c->samples[0] = favor_strdup("{\"response\": \"<think>läuft 🏃</think>\"}");
	c->samples[1] = favor_strdup("");
	c->samples[2] = favor_strdup("{}");
}

void sample_free_tensors(struct checkpoint_tensor *tensors, int count)
{
	for (int i = 0; i < count; i++) {
		free(tensors[i].name);
		free(tensors[i].values);
		free(tensors[i].exp_avg);
		free(tensors[i].exp_avg_sq);
	}
	free(tensors);
}

void sample_free(struct checkpoint *c)
{
	sample_free_tensors(c->tensors, c->tensor_count);
	c->tensors = NULL;
	c->tensor_count = 0;
	checkpoint_free(c);
}

struct checkpoint_tensor *sample_room(const struct checkpoint *c)
{
	struct checkpoint_tensor *room = favor_calloc((size_t)c->tensor_count, sizeof *room);
	for (int i = 0; i < c->tensor_count; i++) {
		const struct checkpoint_tensor *t = &c->tensors[i];
		size_t n = (size_t)sample_elements(t);
		room[i] = *t;
		room[i].name = favor_strdup(t->name);
		room[i].values = favor_calloc(n, sizeof(float));
		room[i].exp_avg = t->exp_avg ? favor_calloc(n, sizeof(float)) : NULL;
		room[i].exp_avg_sq = t->exp_avg_sq ? favor_calloc(n, sizeof(float)) : NULL;
	}
	return room;
}

int sample_equal(const struct checkpoint_tensor *a, const struct checkpoint_tensor *b)
{
	size_t bytes = (size_t)sample_elements(a) * sizeof(float);
	return strcmp(a->name, b->name) == 0 && a->ndim == b->ndim &&
	       memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0 &&
	       memcmp(a->values, b->values, bytes) == 0 && (!a->exp_avg || memcmp(a->exp_avg, b->exp_avg, bytes) == 0) &&
	       (!a->exp_avg_sq || memcmp(a->exp_avg_sq, b->exp_avg_sq, bytes) == 0);
}

char *sample_folder(void)
{
	const char *base = getenv("TMPDIR");
	char *folder = favor_format("%s/favor-test-XXXXXX", base && *base ? base : "/tmp");
	if (!mkdtemp(folder))
		favor_die("no folder can be made for the test");
	return folder;
}

static void remove_files(const char *folder)
{
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));) {
		char *path = favor_format("%s/%s", folder, entry->d_name);
		unlink(path);
		free(path);
	}
	if (d)
		closedir(d);
	rmdir(folder);
}

void sample_remove(char *folder)
{
	char *inner = favor_format("%s/checkpoints", folder);
	remove_files(inner);
	remove_files(folder);
	free(inner);
	free(folder);
}

unsigned char *sample_read(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		favor_die("%s can't be read", path);
	fseek(f, 0, SEEK_END);
	*n = (size_t)ftell(f);
	rewind(f);
	unsigned char *data = favor_malloc(*n);
	if (fread(data, 1, *n, f) != *n)
		favor_die("%s can't be read", path);
	fclose(f);
	return data;
}

void sample_write(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0)
		favor_die("%s can't be written", path);
}
