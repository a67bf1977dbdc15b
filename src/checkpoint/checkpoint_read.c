/* Reading a checkpoint. Opening checks that all of it is there (names, types, shapes, sizes, moments in pairs); reading
 * a tensor checks its checksums; verifying makes the digest again. */
#include "base/hash.h"
#include "checkpoint/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_names(int count, char **names)
{
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

void checkpoint_free(struct checkpoint *c)
{
	free(c->config);
	free(c->ranks);
	for (int i = 0; i < c->tensor_count; i++)
		free(c->tensors[i].name);
	free(c->tensors);
	for (int i = 0; i < c->file_count; i++) {
		free(c->files[i].name);
		free(c->files[i].data);
	}
	free(c->files);
	for (int i = 0; i < c->history_columns; i++) {
		free(c->history[i].name);
		free(c->history[i].values);
	}
	free(c->history);
	free_names(c->sample_count, c->samples);
	*c = (struct checkpoint){0};
}

static void shape_text(char *text, size_t n, int ndim, const int64_t *shape)
{
	size_t used = (size_t)snprintf(text, n, "[");
	for (int i = 0; i < ndim && used < n; i++)
		used += (size_t)snprintf(text + used, n - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
	if (used < n)
		snprintf(text + used, n - used, "]");
}

static int same_shape(const struct checkpoint_tensor *t, const struct h5_data *d)
{
	int same = t->ndim == d->ndim;
	for (int i = 0; same && i < d->ndim; i++)
		same = (hsize_t)t->shape[i] == d->dims[i];
	return same;
}

static void take_shape(struct checkpoint_tensor *t, const struct h5_data *d)
{
	t->ndim = d->ndim;
	for (int i = 0; i < d->ndim; i++)
		t->shape[i] = (int64_t)d->dims[i];
}

/* One dataset of a tensor: opened, its shape compared with t's (or taken, where t has none yet), and read if `to` is
 * set. */
static int read_part(struct checkpoint_reader *r, hid_t group, const char *part, struct checkpoint_tensor *t, int take,
                     float *to)
{
	const struct h5_source *s = &r->source;
	struct h5_data d;
	char *what = favor_format("%s %.400s", part, t->name);
	int rc = h5_open_data(s, group, t->name, what, H5T_IEEE_F32LE, &d);
	if (rc == 0 && take) {
		take_shape(t, &d);
	} else if (rc == 0 && !same_shape(t, &d)) {
		struct checkpoint_tensor found = {0};
		char has[128], wants[128];
		take_shape(&found, &d);
		shape_text(has, sizeof has, found.ndim, found.shape);
		shape_text(wants, sizeof wants, t->ndim, t->shape);
		rc = favor_fail(s->e, "%s: %s has the shape %s, where %s is wanted: the checkpoint is of another model",
		                s->path, what, has, wants);
	}
	if (rc == 0 && to)
		rc = h5_read_data(s, &d, what, to);
	h5_close_data(&d);
	free(what);
	return rc;
}

int reader_has_moments(const struct checkpoint_reader *r, const char *name)
{
	return H5Lexists(r->exp_avg, name, H5P_DEFAULT) > 0;
}

int reader_read(struct checkpoint_reader *r, const struct checkpoint_tensor *t)
{
	struct checkpoint_tensor copy = *t; /* read_part changes only what it takes */
	if (read_part(r, r->model, "tensor", &copy, 0, t->values) != 0)
		return -1;
	if (t->exp_avg && read_part(r, r->exp_avg, "exp_avg of", &copy, 0, t->exp_avg) != 0)
		return -1;
	return t->exp_avg_sq ? read_part(r, r->exp_avg_sq, "exp_avg_sq of", &copy, 0, t->exp_avg_sq) : 0;
}

/* The text of that name from /text; the attribute of the same name is for other readers. */
static int read_text(const struct h5_source *s, const char *name, char **text)
{
	char *place = favor_format("text/%s", name), **texts;
	int count, rc = h5_read_strings(s, s->file, place, place, &count, &texts);
	if (rc == 0 && count == 1) {
		*text = texts[0];
		texts[0] = NULL; /* the caller's now */
	} else if (rc == 0) {
		rc = favor_fail(s->e, "%s: %s is not one text, as a checkpoint has it", s->path, place);
	}
	free_names(count, texts);
	free(place);
	return rc;
}

static int read_attributes(struct checkpoint_reader *r)
{
	const struct h5_source *s = &r->source;
	struct checkpoint *c = &r->head;
	int64_t format = 0;
	if (H5Aexists(s->file, "format") <= 0)
		return favor_fail(s->e, "%s: is an HDF5 file but no checkpoint of favor (the attribute format is missing)",
		                  s->path);
	if (h5_read_int64(s, "format", &format) != 0)
		return -1;
	if (format != CHECKPOINT_FORMAT)
		return favor_fail(s->e,
		                  "%s: is of checkpoint format %lld, this favor (%s) reads %d; use the version that wrote it",
		                  s->path, (long long)format, FAVOR_VERSION, CHECKPOINT_FORMAT);
	char *digest = NULL;
	int rc = h5_read_int64(s, "step", &c->step);
	if (rc == 0)
		rc = h5_read_uint64(s, "seed", &c->seed);
	if (rc == 0)
		rc = h5_read_uint64(s, "cursor", &c->cursor);
	if (rc == 0)
		rc = h5_read_uint64(s, "policy_version", &c->policy_version);
	if (rc == 0)
		rc = read_text(s, "favor_version", &r->favor_version);
	if (rc == 0)
		rc = read_text(s, "config", &c->config);
	if (rc == 0)
		rc = read_text(s, "ranks", &c->ranks);
	if (rc == 0)
		rc = read_text(s, "digest", &digest);
	if (rc == 0 && (strlen(digest) != 16 || strspn(digest, "0123456789abcdef") != 16))
		rc = favor_fail(s->e, "%s: the text digest is not 16 hexadecimal digits: the file is damaged", s->path);
	if (rc == 0)
		memcpy(c->digest, digest, sizeof c->digest);
	free(digest);
	return rc;
}

/* Every member of the group must be a tensor's moment. */
static int count_members(const struct h5_source *s, hid_t group, const char *name, int expected)
{
	H5G_info_t info;
	if (H5Gget_info(group, &info) < 0 || info.nlinks != (hsize_t)expected)
		return favor_fail(s->e, "%s: %s has other tensors than /model and the other moment: the file is damaged",
		                  s->path, name);
	return 0;
}

static int read_tensor_list(struct checkpoint_reader *r)
{
	const struct h5_source *s = &r->source;
	int count = 0, moments = 0;
	char **names = NULL;
	if (h5_open_group(s, "model", &r->model) != 0 || h5_open_group(s, "optimizer/exp_avg", &r->exp_avg) != 0 ||
	    h5_open_group(s, "optimizer/exp_avg_sq", &r->exp_avg_sq) != 0)
		return -1;
	int rc = h5_names(s, r->model, "/model", &count, &names);
	r->head.tensors = favor_calloc((size_t)count, sizeof *r->head.tensors);
	for (int i = 0; i < count && rc == 0; i++) {
		struct checkpoint_tensor *t = &r->head.tensors[r->head.tensor_count++];
		t->name = names[i];
		names[i] = NULL; /* owned by the tensor now */
		rc = read_part(r, r->model, "tensor", t, 1, NULL);
		if (rc == 0 && reader_has_moments(r, t->name)) {
			moments++;
			rc = read_part(r, r->exp_avg, "exp_avg of", t, 0, NULL);
			if (rc == 0)
				rc = read_part(r, r->exp_avg_sq, "exp_avg_sq of", t, 0, NULL);
		}
	}
	free_names(count, names);
	if (rc == 0)
		rc = count_members(s, r->exp_avg, "/optimizer/exp_avg", moments);
	return rc == 0 ? count_members(s, r->exp_avg_sq, "/optimizer/exp_avg_sq", moments) : rc;
}

static int read_files(struct checkpoint_reader *r)
{
	const struct h5_source *s = &r->source;
	struct checkpoint *c = &r->head;
	hid_t group = -1;
	int count = 0;
	char **names = NULL;
	int rc = h5_open_group(s, "files", &group);
	if (rc == 0)
		rc = h5_names(s, group, "/files", &count, &names);
	c->files = favor_calloc((size_t)count, sizeof *c->files);
	for (int i = 0; i < count && rc == 0; i++) {
		struct checkpoint_file *f = &c->files[c->file_count++];
		struct h5_data d;
		char *what = favor_format("file %.400s", names[i]);
		f->name = names[i];
		names[i] = NULL;
		rc = h5_open_data(s, group, f->name, what, H5T_STD_U8LE, &d);
		if (rc == 0) {
			/* a NUL after the end lets texts be used as they are */
			f->data = favor_calloc(d.bytes + 1, 1);
			f->size = d.bytes;
			rc = h5_read_data(s, &d, what, f->data);
		}
		h5_close_data(&d);
		free(what);
	}
	free_names(count, names);
	h5_close(group);
	return rc;
}

static int read_history(struct checkpoint_reader *r)
{
	const struct h5_source *s = &r->source;
	struct checkpoint *c = &r->head;
	hid_t group = -1;
	int count = 0;
	char **names = NULL;
	int rc = h5_open_group(s, "history", &group);
	if (rc == 0)
		rc = h5_read_strings(s, s->file, "text/columns", "text/columns", &count, &names);
	c->history = favor_calloc((size_t)count, sizeof *c->history);
	for (int i = 0; i < count && rc == 0; i++) {
		struct checkpoint_column *column = &c->history[c->history_columns++];
		struct h5_data d;
		char *what = favor_format("history %.400s", names[i]);
		column->name = names[i];
		names[i] = NULL;
		rc = h5_open_data(s, group, column->name, what, H5T_IEEE_F64LE, &d);
		if (rc == 0 && (d.ndim != 1 || d.dims[0] > INT32_MAX || (i > 0 && d.dims[0] != (hsize_t)c->history_rows)))
			rc = favor_fail(s->e, "%s: %s has another number of steps than the other metrics: the file is damaged",
			                s->path, what);
		if (rc == 0) {
			c->history_rows = (int32_t)d.dims[0];
			column->values = favor_calloc(d.elements, sizeof *column->values);
			rc = h5_read_data(s, &d, what, column->values);
		}
		h5_close_data(&d);
		free(what);
	}
	free_names(count, names);
	h5_close(group);
	return rc;
}

int reader_open(struct checkpoint_reader *r, const char *path, struct favor_error *e)
{
	*r = (struct checkpoint_reader){.source.file = -1, .model = -1, .exp_avg = -1, .exp_avg_sq = -1};
	return checkpoint_probe(path, e) != 0 ? -1 : reader_open_here(r, path, e);
}

int reader_open_here(struct checkpoint_reader *r, const char *path, struct favor_error *e)
{
	*r = (struct checkpoint_reader){.model = -1, .exp_avg = -1, .exp_avg_sq = -1};
	if (h5_open_file(&r->source, path, e) != 0 || read_attributes(r) != 0 || read_tensor_list(r) != 0 ||
	    read_files(r) != 0 || read_history(r) != 0)
		return -1;
	return h5_read_strings(&r->source, r->source.file, "samples/json", "samples", &r->head.sample_count,
	                       &r->head.samples);
}

void reader_close(struct checkpoint_reader *r)
{
	h5_close(r->exp_avg_sq);
	h5_close(r->exp_avg);
	h5_close(r->model);
	h5_close_file(&r->source);
	checkpoint_free(&r->head);
	free(r->favor_version);
	*r = (struct checkpoint_reader){.source.file = -1, .model = -1, .exp_avg = -1, .exp_avg_sq = -1};
}

int checkpoint_open(const char *path, struct checkpoint *c, struct favor_error *e)
{
	struct checkpoint_reader r;
	*c = (struct checkpoint){0};
	int rc = reader_open(&r, path, e);
	if (rc == 0) {
		*c = r.head;
		r.head = (struct checkpoint){0}; /* the caller's now */
	}
	reader_close(&r);
	return rc;
}

int checkpoint_read_each(const char *path, struct checkpoint_tensor *wanted, int count, void (*took)(void *arg, int tensor),
                         void *arg, struct favor_error *e)
{
	struct checkpoint_reader r;
	int rc = reader_open(&r, path, e);
	for (int i = 0; i < count && rc == 0; i++) {
		const struct checkpoint_tensor *t = &wanted[i];
		favor_alive();
		if (H5Lexists(r.model, t->name, H5P_DEFAULT) <= 0)
			rc = favor_fail(e, "%s: the tensor %s is not in the checkpoint: it is of another model", path, t->name);
		else if ((t->exp_avg || t->exp_avg_sq) && !reader_has_moments(&r, t->name))
			rc = favor_fail(e, "%s: the tensor %s has no optimiser state in the checkpoint: it was not trained there",
			                path, t->name);
		else
			rc = reader_read(&r, t);
		if (rc == 0 && took)
			took(arg, i);
	}
	reader_close(&r);
	return rc;
}

int checkpoint_read_tensors(const char *path, struct checkpoint_tensor *wanted, int count, struct favor_error *e)
{
	return checkpoint_read_each(path, wanted, count, NULL, NULL, e);
}

int checkpoint_verify(const char *path, char digest[17], struct favor_error *e)
{
	struct checkpoint_reader r;
	int rc = reader_open(&r, path, e);
	struct checkpoint *c = &r.head;
	const struct checkpoint_tensor **sorted = rc == 0 ? checkpoint_sorted(c->tensors, c->tensor_count) : NULL;
	uint64_t made = HASH_START;
	for (int i = 0; rc == 0 && i < c->tensor_count; i++) {
		struct checkpoint_tensor t = *sorted[i];
		size_t n = (size_t)checkpoint_elements(&t); /* bounded by the file's size: reader_open has checked it */
		int moments = reader_has_moments(&r, t.name);
		t.values = favor_malloc(n * sizeof(float));
		t.exp_avg = moments ? favor_malloc(n * sizeof(float)) : NULL;
		t.exp_avg_sq = moments ? favor_malloc(n * sizeof(float)) : NULL;
		favor_alive();
		rc = reader_read(&r, &t);
		if (rc == 0)
			made = checkpoint_digest_add(made, checkpoint_hash(&t));
		free(t.values);
		free(t.exp_avg);
		free(t.exp_avg_sq);
	}
	if (rc == 0) {
		snprintf(digest, 17, "%016llx", (unsigned long long)made);
		if (strcmp(digest, c->digest) != 0)
			rc = favor_fail(
				e, "%s: the digest of the tensors is %s, the file says %s: it was changed after it was written", path,
				digest, c->digest);
	}
	free(sorted);
	reader_close(&r);
	return rc;
}
