/* safetensors files by memory map: one file, or shards named by model.safetensors.index.json. Values are converted to
 * float32 when they are copied out. Header sizes and offsets are checked against the file before they are used. */
#ifndef FAVOR_MODEL_SAFETENSORS_H
#define FAVOR_MODEL_SAFETENSORS_H

#include "base/error.h"

#include <stdint.h>
#include <stddef.h>

enum st_dtype { ST_F32, ST_F16, ST_BF16, ST_I64, ST_OTHER };

struct st_tensor {
	char *name; /* owned by the set */
	enum st_dtype dtype;
	char dtype_name[8];
	int ndim;
	int64_t shape[6];
	const unsigned char *data; /* into the map */
	int64_t count;
	const char *file; /* owned by the set */
};

struct safetensors;

/* folder/model.safetensors, else the shards of folder/model.safetensors.index.json. NULL on error. */
struct safetensors *safetensors_open(const char *folder, struct favor_error *e);
struct safetensors *safetensors_open_file(const char *path, struct favor_error *e);
void safetensors_close(struct safetensors *s);
int safetensors_count(const struct safetensors *s);
const struct st_tensor *safetensors_at(const struct safetensors *s, int i);
const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name); /* NULL if absent */
/* count float32 values; -1 if its dtype is no float. */
int safetensors_copy(const struct st_tensor *t, float *to, struct favor_error *e);

/* One tensor to write; F32, or BF16 rounded to nearest even from float32 values. */
struct st_out {
	const char *name;
	int ndim;
	int64_t shape[6];
	enum st_dtype dtype; /* of the file: ST_F32 (values), ST_BF16 (values), ST_I64 (integers) */
	const float *values;
	const int64_t *integers;
};
/* Atomic: temporary file, fsync, rename. */
int safetensors_write(const char *path, const struct st_out *tensors, int n, struct favor_error *e);

#endif
