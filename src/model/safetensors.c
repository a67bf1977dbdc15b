/* Reader by mmap and atomic writer. Format: 8 bytes little-endian header length, JSON header, data. */
#include "model/safetensors.h"

#include "base/bf16.h"
#include "model/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct st_map {
	char *path;
	unsigned char *data;
	size_t size;
};

struct safetensors {
	int map_count, count, capacity;
	struct st_map *maps;
	struct st_tensor *tensors; /* sorted by name once all files are read */
};

static const struct {
	const char *name;
	enum st_dtype dtype;
	int size;
} DTYPES[] = {{"F32", ST_F32, 4},   {"F16", ST_F16, 2},   {"BF16", ST_BF16, 2}, {"I64", ST_I64, 8},
              {"F64", ST_OTHER, 8}, {"I32", ST_OTHER, 4}, {"I16", ST_OTHER, 2}, {"I8", ST_OTHER, 1},
              {"U8", ST_OTHER, 1},  {"BOOL", ST_OTHER, 1}};

static int add_tensor(struct safetensors *s, const struct st_map *m, const unsigned char *base, size_t space,
                      const char *name, const json_t *v, struct favor_error *e)
{
	struct st_tensor t = {.file = m->path, .count = 1, .dtype = ST_OTHER};
	const char *dtype = json_string_value(json_object_get(v, "dtype"));
	const json_t *shape = json_object_get(v, "shape"), *offsets = json_object_get(v, "data_offsets");
	int size = 0;
	for (size_t i = 0; dtype && i < sizeof DTYPES / sizeof *DTYPES; i++)
		if (!strcmp(dtype, DTYPES[i].name)) {
			t.dtype = DTYPES[i].dtype;
			size = DTYPES[i].size;
		}
	if (!size)
		return favor_fail(e, "%s: tensor \"%s\" has dtype \"%s\"; favor reads F32, F16 and BF16", m->path, name,
		                  dtype ? dtype : "(none)");
	snprintf(t.dtype_name, sizeof t.dtype_name, "%s", dtype);
	if (!json_is_array(shape) || json_array_size(shape) > 6 || json_array_size(offsets) != 2)
		return favor_fail(e, "%s: the header's entry of tensor \"%s\" is malformed", m->path, name);
	t.ndim = (int)json_array_size(shape);
	for (int i = 0; i < t.ndim; i++) {
		const json_t *d = json_array_get(shape, (size_t)i);
		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return favor_fail(e, "%s: tensor \"%s\" has a size that is no natural number", m->path, name);
		t.shape[i] = json_integer_value(d);
		if (__builtin_mul_overflow(t.count, t.shape[i], &t.count))
			return favor_fail(e, "%s: tensor \"%s\" claims more elements than can be", m->path, name);
	}
	int64_t from = json_integer_value(json_array_get(offsets, 0)), to = json_integer_value(json_array_get(offsets, 1));
	int64_t bytes;
	if (from < 0 || to < from || (uint64_t)to > space)
		return favor_fail(e,
		                  "%s: tensor \"%s\" lies at bytes %lld to %lld, but the file holds %zu bytes of data: it is "
		                  "cut short; copy it again",
		                  m->path, name, (long long)from, (long long)to, space);
	if (__builtin_mul_overflow(t.count, (int64_t)size, &bytes) || bytes != to - from)
		return favor_fail(e, "%s: tensor \"%s\" has %lld elements of %s, but %lld bytes", m->path, name,
		                  (long long)t.count, dtype, (long long)(to - from));
	t.data = base + from;
	t.name = favor_strdup(name);
	if (s->count == s->capacity) {
		s->capacity = s->capacity ? 2 * s->capacity : 64;
		s->tensors = favor_realloc(s->tensors, (size_t)s->capacity * sizeof *s->tensors);
	}
	s->tensors[s->count++] = t;
	return 0;
}

static int map_file(struct safetensors *s, const char *path, struct favor_error *e)
{
	int result = -1;
	json_t *header = NULL;
	struct st_map m = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st)) {
		favor_fail(e, "%s: %s", path, strerror(errno));
		goto done;
	}
	if (st.st_size < 8) {
		favor_fail(e, "%s: %lld bytes are no safetensors file", path, (long long)st.st_size);
		goto done;
	}
	m.size = (size_t)st.st_size;
	m.data = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (m.data == MAP_FAILED) {
		m.data = NULL;
		favor_fail(e, "%s: can't be mapped: %s", path, strerror(errno));
		goto done;
	}
	m.path = favor_strdup(path);
	s->maps = favor_realloc(s->maps, (size_t)(s->map_count + 1) * sizeof *s->maps);
	s->maps[s->map_count++] = m; /* from here on close frees it */
	uint64_t n = 0;
	for (int i = 0; i < 8; i++)
		n |= (uint64_t)m.data[i] << (8 * i);
	if (n > m.size - 8 || n > (uint64_t)100 << 20) {
		favor_fail(e, "%s: the header claims %llu bytes, the file has %zu: cut short, or no safetensors file", path,
		           (unsigned long long)n, m.size);
		goto done;
	}
	json_error_t je;
	header = json_loadb((const char *)m.data + 8, (size_t)n, JSON_REJECT_DUPLICATES, &je);
	if (!json_is_object(header)) {
		favor_fail(e, "%s: the header is not valid JSON: %s", path, header ? "no object" : je.text);
		goto done;
	}
	const char *name;
	json_t *v;
	json_object_foreach(header, name, v)
	{
		if (strcmp(name, "__metadata__") == 0)
			continue;
		if (add_tensor(s, &s->maps[s->map_count - 1], m.data + 8 + n, m.size - 8 - (size_t)n, name, v, e))
			goto done;
	}
	result = 0;
done:
	if (fd >= 0)
		close(fd);
	json_decref(header);
	return result;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

/* Every distinct file of the index's weight_map, once. */
static int map_shards(struct safetensors *s, const char *folder, const char *index_path, struct favor_error *e)
{
	int result = -1;
	json_t *index = json_file(index_path, e), *seen = json_object();
	if (!index)
		goto done;
	json_t *map = json_object_get(index, "weight_map"), *v;
	const char *name;
	if (!json_is_object(map)) {
		favor_fail(e, "%s: \"weight_map\" is missing", index_path);
		goto done;
	}
	json_object_foreach(map, name, v)
	{
		const char *file = json_string_value(v);
		if (!file || strchr(file, '/') || file[0] == '.') {
			favor_fail(e, "%s: the shard of \"%s\" must be a file name in the same folder", index_path, name);
			goto done;
		}
		if (json_object_get(seen, file))
			continue;
		json_object_set_new(seen, file, json_true());
		char *path = favor_format("%s/%s", folder, file);
		int bad = map_file(s, path, e);
		free(path);
		if (bad)
			goto done;
	}
	result = 0;
done:
	json_decref(index);
	json_decref(seen);
	return result;
}

/* Sorts, refuses doubles; closes s if something was bad. */
static struct safetensors *finish(struct safetensors *s, int bad, const char *origin, struct favor_error *e)
{
	if (s->count)
		qsort(s->tensors, (size_t)s->count, sizeof *s->tensors, by_name);
	for (int i = 1; !bad && i < s->count; i++)
		if (!strcmp(s->tensors[i].name, s->tensors[i - 1].name))
			bad = favor_fail(e, "%s: tensor \"%s\" is in two shards", origin, s->tensors[i].name);
	if (bad) {
		safetensors_close(s);
		return NULL;
	}
	return s;
}

struct safetensors *safetensors_open_file(const char *path, struct favor_error *e)
{
	struct safetensors *s = favor_calloc(1, sizeof *s);
	return finish(s, map_file(s, path, e), path, e);
}

struct safetensors *safetensors_open(const char *folder, struct favor_error *e)
{
	struct safetensors *s = favor_calloc(1, sizeof *s);
	char *single = favor_format("%s/model.safetensors", folder);
	char *index = favor_format("%s/model.safetensors.index.json", folder);
	int bad;
	if (access(single, F_OK) == 0)
		bad = map_file(s, single, e);
	else if (access(index, F_OK) == 0)
		bad = map_shards(s, folder, index, e);
	else
		bad = favor_fail(e, "%s: neither model.safetensors nor model.safetensors.index.json is there", folder);
	free(single);
	free(index);
	return finish(s, bad, folder, e);
}

void safetensors_close(struct safetensors *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->count; i++)
		free(s->tensors[i].name);
	for (int i = 0; i < s->map_count; i++) {
		munmap(s->maps[i].data, s->maps[i].size);
		free(s->maps[i].path);
	}
	free(s->tensors);
	free(s->maps);
	free(s);
}

int safetensors_count(const struct safetensors *s)
{
	return s->count;
}

const struct st_tensor *safetensors_at(const struct safetensors *s, int i)
{
	return &s->tensors[i];
}

const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
	struct st_tensor key = {.name = (char *)(uintptr_t)name};
	return s->count ? bsearch(&key, s->tensors, (size_t)s->count, sizeof key, by_name) : NULL;
}

static float half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff, bits;
	if (exponent == 31)
		bits = sign | 0x7f800000u | fraction << 13;
	else if (exponent)
		bits = sign | (exponent + 112) << 23 | fraction << 13;
	else { /* subnormal: fraction * 2^-24, exact in float32 */
		float f = (float)fraction * 0x1.0p-24f;
		memcpy(&bits, &f, 4);
		bits |= sign;
	}
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

int safetensors_copy(const struct st_tensor *t, float *to, struct favor_error *e)
{
	const unsigned char *p = t->data;
	if (t->dtype == ST_F32)
		memcpy(to, p, (size_t)t->count * 4);
	else if (t->dtype == ST_BF16)
		for (int64_t i = 0; i < t->count; i++) {
			uint32_t bits = (uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24;
			memcpy(to + i, &bits, 4);
		}
	else if (t->dtype == ST_F16)
		for (int64_t i = 0; i < t->count; i++)
			to[i] = half_to_float((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
	else
		return favor_fail(e, "%s: tensor \"%s\" has dtype %s; favor reads F32, F16 and BF16", t->file, t->name,
		                  t->dtype_name);
	return 0;
}

static int write_values(FILE *f, const struct st_out *t, int64_t count)
{
	if (t->dtype == ST_F32)
		return fwrite(t->values, 4, (size_t)count, f) == (size_t)count ? 0 : -1;
	if (t->dtype == ST_I64)
		return fwrite(t->integers, 8, (size_t)count, f) == (size_t)count ? 0 : -1;
	for (int64_t i = 0; i < count; i++) {
		uint16_t h = bf16_of(t->values[i]);
		if (fwrite(&h, 2, 1, f) != 1)
			return -1;
	}
	return 0;
}

int safetensors_write(const char *path, const struct st_out *tensors, int n, struct favor_error *e)
{
	int result = -1;
	char *temporary = favor_format("%s.tmp-%ld", path, (long)getpid()), *header = NULL;
	json_t *root = json_object(), *meta = json_object();
	FILE *f = NULL;
	int64_t offset = 0, *counts = favor_calloc((size_t)n, sizeof *counts);
	json_object_set_new(meta, "format", json_string("pt"));
	json_object_set_new(root, "__metadata__", meta);
	for (int i = 0; i < n; i++) {
		json_t *shape = json_array();
		counts[i] = 1;
		for (int d = 0; d < tensors[i].ndim; d++) {
			counts[i] *= tensors[i].shape[d];
			json_array_append_new(shape, json_integer(tensors[i].shape[d]));
		}
		int64_t bytes = counts[i] * (tensors[i].dtype == ST_F32 ? 4 : tensors[i].dtype == ST_BF16 ? 2 : 8);
		json_object_set_new(root, tensors[i].name,
		                    json_pack("{s:s, s:o, s:[I, I]}", "dtype",
		                              tensors[i].dtype == ST_F32    ? "F32"
		                              : tensors[i].dtype == ST_BF16 ? "BF16"
		                                                            : "I64",
		                              "shape", shape, "data_offsets", (json_int_t)offset,
		                              (json_int_t)(offset + bytes)));
		offset += bytes;
	}
	header = json_dumps(root, JSON_COMPACT);
	size_t length = strlen(header), padded = (length + 7) / 8 * 8;
	f = fopen(temporary, "wb");
	if (!f)
		goto done;
	unsigned char size[8];
	for (int i = 0; i < 8; i++)
		size[i] = (unsigned char)((uint64_t)padded >> (8 * i));
	if (fwrite(size, 1, 8, f) != 8 || fwrite(header, 1, length, f) != length)
		goto done;
	for (size_t i = length; i < padded; i++)
		if (fputc(' ', f) == EOF)
			goto done;
	for (int i = 0; i < n; i++)
		if (write_values(f, &tensors[i], counts[i]))
			goto done;
	if (fflush(f) || fsync(fileno(f)))
		goto done;
	if (fclose(f)) {
		f = NULL;
		goto done;
	}
	f = NULL;
	if (rename(temporary, path))
		goto done;
	result = 0;
done:
	if (result)
		favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
	if (f)
		fclose(f);
	if (result)
		unlink(temporary);
	free(temporary);
	free(header);
	free(counts);
	json_decref(root);
	return result;
}
