/* Opening of model paths. Called by every command that takes a model. */
#include "app/assets.h"

#include "backend/ops.h"
#include "base/file.h"
#include "data/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything small that makes a folder a Hugging Face model besides its weights. */
static const char *const MODEL_FILES[] = {"config.json",
                                          "generation_config.json",
                                          "tokenizer.json",
                                          "tokenizer_config.json",
                                          "preprocessor_config.json",
                                          "processor_config.json",
                                          "chat_template.json",
                                          "chat_template.jinja",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "vocab.json",
                                          "merges.txt"};

#define MODEL_FILE_MAX ((size_t)256 << 20) /* bytes of one of them; the largest known tokenizer.json has some 30 MB */

int is_checkpoint(const char *path)
{
	size_t n = strlen(path);
	struct stat st;
	return (n > 3 && !strcmp(path + n - 3, ".h5")) && !(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

int assets_files(const char *folder, struct checkpoint_file **files, int32_t *count, struct favor_error *e)
{
	const int n = sizeof MODEL_FILES / sizeof *MODEL_FILES;
	*files = favor_calloc((size_t)n, sizeof **files);
	*count = 0;
	for (int i = 0; i < n; i++) {
		char *path = favor_format("%s/%s", folder, MODEL_FILES[i]);
		if (access(path, F_OK) == 0) {
			struct checkpoint_file *f = &(*files)[*count];
			f->data = file_read(path, MODEL_FILE_MAX, &f->size, e);
			if (!f->data) {
				free(path);
				assets_files_free(*files, *count);
				*files = NULL;
				return -1;
			}
			f->name = favor_strdup(MODEL_FILES[i]);
			++*count;
		}
		free(path);
	}
	return 0;
}

void assets_files_free(struct checkpoint_file *files, int32_t count)
{
	for (int32_t i = 0; files && i < count; i++) {
		free(files[i].name);
		free(files[i].data);
	}
	free(files);
}

/* One of the names that favor itself puts into a checkpoint: no path, no program, no weights in disguise. */
static int is_model_file(const char *name)
{
	for (size_t i = 0; i < sizeof MODEL_FILES / sizeof *MODEL_FILES; i++)
		if (!strcmp(name, MODEL_FILES[i]))
			return 1;
	return 0;
}

int assets_write_files(const struct checkpoint *c, const char *dir, struct favor_error *e)
{
	for (int32_t i = 0; i < c->file_count; i++) {
		const struct checkpoint_file *f = &c->files[i];
		if (!is_model_file(f->name))
			return favor_fail(e, "the checkpoint holds a file named \"%.100s\", which is none of a model's: it is not written",
			                  f->name);
		char *path = favor_format("%s/%s", dir, f->name);
		/* a link that somebody has put there is not followed out of the folder */
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
		FILE *out = fd < 0 ? NULL : fdopen(fd, "wb");
		int bad = !out || fwrite(f->data, 1, f->size, out) != f->size;
		if (out && fclose(out))
			bad = 1;
		if (bad)
			favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
		free(path);
		if (bad)
			return -1;
	}
	return 0;
}

static void remove_folder(const char *folder)
{
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		char *path = favor_format("%s/%s", folder, entry->d_name);
		unlink(path);
		free(path);
	}
	if (d)
		closedir(d);
	rmdir(folder);
}

/* The folder of a path: itself, or the checkpoint's files laid out in a private temporary folder. */
static int open_folder(struct assets *a, const char *path, struct favor_error *e)
{
	struct stat st;
	if (!is_checkpoint(path)) {
		if (stat(path, &st) || !S_ISDIR(st.st_mode))
			return favor_fail(e, "%s: is neither a model folder nor a checkpoint (.h5); nothing is downloaded: give the path of a "
			                     "folder that is here", path);
		a->folder = favor_strdup(path);
		return 0;
	}
	struct checkpoint c;
	if (checkpoint_open(path, &c, e))
		return -1;
	const char *base = getenv("TMPDIR");
	a->folder = favor_format("%s/favor-XXXXXX", base && *base ? base : "/tmp");
	int result;
	if (!mkdtemp(a->folder)) {
		result = favor_fail(e, "%s: a temporary folder can't be made: %s", a->folder, strerror(errno));
	} else {
		a->temporary = 1;
		result = assets_write_files(&c, a->folder, e);
		if (result)
			favor_fail_prefix(e, "%s", path);
	}
	checkpoint_free(&c);
	return result;
}

/* Where tensors of a checkpoint go: through memory on the host for one of them. */
struct reading {
	struct model *model;
	float *exp_avg, *exp_avg_sq; /* of weights [own_first, own_end) */
	int64_t own_first, own_end;
	float *host[3]; /* values and both moments; owned */
};

/* The part of a parameter whose moments are wanted; 0 if there is none. */
static int own_part(const struct reading *r, const struct param *p, int64_t *from, int64_t *to)
{
	*from = p->offset > r->own_first ? p->offset : r->own_first;
	*to = p->offset + p->count < r->own_end ? p->offset + p->count : r->own_end;
	return *from < *to;
}

static void take_tensor(void *arg, int tensor)
{
	const struct reading *r = arg;
	const struct param *p = &r->model->params.params[tensor];
	struct backend *b = r->model->backend;
	int64_t from, to;
	op_upload(b, r->model->block + p->offset, r->host[0], (size_t)p->count * sizeof(float));
	if (!own_part(r, p, &from, &to))
		return;
	op_upload(b, r->exp_avg + (from - r->own_first), r->host[1] + (from - p->offset), (size_t)(to - from) * sizeof(float));
	op_upload(b, r->exp_avg_sq + (from - r->own_first), r->host[2] + (from - p->offset), (size_t)(to - from) * sizeof(float));
}

int64_t assets_staging_bytes(const struct model *m, int moments)
{
	return params_largest(&m->params) * (int64_t)sizeof(float) * (moments ? 3 : 1);
}

int assets_read_weights(const char *checkpoint, struct model *m, float *exp_avg, float *exp_avg_sq, int64_t own_first,
                        int64_t own_count, struct favor_error *e)
{
	const int n = m->params.count;
	struct checkpoint_tensor *t = favor_calloc((size_t)n, sizeof *t);
	struct reading r = {.model = m,
	                    .exp_avg = exp_avg,
	                    .exp_avg_sq = exp_avg_sq,
	                    .own_first = own_first,
	                    .own_end = own_first + (exp_avg ? own_count : 0)};
	for (int i = 0; i < 3; i++)
		r.host[i] = i == 0 || exp_avg ? favor_malloc((size_t)params_largest(&m->params) * sizeof(float)) : NULL;
	for (int i = 0; i < n; i++) {
		const struct param *p = &m->params.params[i];
		int64_t from, to;
		const int moments = own_part(&r, p, &from, &to);
		t[i] = (struct checkpoint_tensor){.name = p->name,
		                                  .ndim = p->ndim,
		                                  .values = r.host[0],
		                                  .exp_avg = moments ? r.host[1] : NULL,
		                                  .exp_avg_sq = moments ? r.host[2] : NULL};
		memcpy(t[i].shape, p->shape, sizeof p->shape);
	}
	const int result = checkpoint_read_each(checkpoint, t, n, take_tensor, &r, e);
	model_changed(m);
	for (int i = 0; i < 3; i++)
		free(r.host[i]);
	free(t);
	return result;
}

static int open_model(struct assets *a, const char *path, enum weights_from from, uint64_t seed, struct backend *b,
                      int warn, struct favor_error *e)
{
	char *warning = NULL;
	if (from == WEIGHTS_RANDOM)
		a->model = model_random(a->folder, b, seed, e);
	else if (from == WEIGHTS_SHAPES || (from == WEIGHTS_CHECKED && is_checkpoint(path)))
		a->model = model_shapes(a->folder, b, e);
	else if (from == WEIGHTS_CHECKED)
		a->model = model_checked(a->folder, b, e);
	else if (from == WEIGHTS_EMPTY || is_checkpoint(path))
		a->model = model_empty(a->folder, b, e);
	else
		a->model = model_open(a->folder, b, &warning, e);
	if (!a->model)
		return -1;
	if (warn && warning)
		fprintf(stderr, "favor: warning: %s\n", warning);
	free(warning);
	if (from == WEIGHTS_FILE && is_checkpoint(path))
		return assets_read_weights(path, a->model, NULL, NULL, 0, 0, e);
	return 0;
}

int assets_open(struct assets *a, const char *path, enum weights_from from, uint64_t seed, struct backend *b, int warn,
                struct favor_error *e)
{
	*a = (struct assets){0};
	if (open_folder(a, path, e))
		return -1;
	if (from != WEIGHTS_NONE && open_model(a, path, from, seed, b, warn, e))
		return -1;
	a->tokenizer = tokenizer_open(a->folder, e);
	int assumed = a->tokenizer ? image_settings_load(&a->settings, a->folder, e) : -1;
	if (assumed < 0)
		return -1;
	if (assumed && warn)
		fprintf(stderr, "favor: warning: %s: no image settings (preprocessor_config.json or processor_config.json): images are prepared as "
		        "Qwen2-VL's\n", path);
	if (a->model) {
		const struct vision_config *v = &a->model->config.vision;
		if (v->patch_size != a->settings.patch_size || v->temporal_patch_size != a->settings.temporal_patch_size ||
		    v->merge_size != a->settings.merge_size)
			return favor_fail(e,
			                  "%s: the image settings' patch, temporal and merge sizes %d, %d, %d differ from "
			                  "config.json's %d, %d, %d",
			                  a->folder, a->settings.patch_size, a->settings.temporal_patch_size,
			                  a->settings.merge_size, v->patch_size, v->temporal_patch_size, v->merge_size);
	}
	char *difference = warn ? template_difference(a->folder) : NULL;
	if (difference)
		fprintf(stderr, "favor: warning: %s\n", difference);
	free(difference);
	return 0;
}

void assets_close(struct assets *a)
{
	model_destroy(a->model);
	tokenizer_destroy(a->tokenizer);
	if (a->temporary)
		remove_folder(a->folder);
	free(a->folder);
	*a = (struct assets){0};
}

struct tokenizer *assets_tokenizer(const char *path, struct favor_error *e)
{
	struct assets a = {0};
	if (!open_folder(&a, path, e))
		a.tokenizer = tokenizer_open(a.folder, e);
	struct tokenizer *t = a.tokenizer;
	a.tokenizer = NULL;
	assets_close(&a);
	return t;
}

int assets_image_settings(const char *path, struct image_settings *s, struct favor_error *e)
{
	struct assets a = {0};
	int result = open_folder(&a, path, e) || image_settings_load(s, a.folder, e) < 0 ? -1 : 0;
	assets_close(&a);
	return result;
}

struct encoder assets_encoder(const struct assets *a)
{
	return (struct encoder){.tokenizer = a->tokenizer,
	                        .settings = a->settings,
	                        .image_token = a->model ? a->model->config.image_token
	                                                : tokenizer_id(a->tokenizer, "<|image_pad|>")};
}
