/* HDF5 checkpoints: global tensors under their Hugging Face names, so that any rank count reads what any other wrote
 * and h5ls, h5dump and h5py read them with no help. Appear whole or not at all: temporary file, fletcher32, fsync,
 * rename, directory fsync. Takes named blocks; knows nothing of models. Not collective: one rank writes, any reads.
 *
 *   /model/<name>  /optimizer/exp_avg/<name>  /optimizer/exp_avg_sq/<name>      float32, chunked, fletcher32
 *   /files/<file name>                                                        bytes of config.json, tokenizer.json, ...
 *   /history/<metric>                                                         float64 [steps]
 *   /samples/json                                                             the newest samples, a JSON line each
 *   /text/<name>                         the attributes that are texts again, with checksums; names of metrics
 *   attributes on /: format, favor_version, step, seed, cursor, policy_version, config (YAML), ranks, digest (hex) */
#ifndef FAVOR_CHECKPOINT_CHECKPOINT_H
#define FAVOR_CHECKPOINT_CHECKPOINT_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define CHECKPOINT_FORMAT 1

struct checkpoint_tensor {
	char *name; /* Hugging Face name */
	int ndim;
	int64_t shape[5];
	float *values;               /* writing: borrowed; reading: where to put them (borrowed) */
	float *exp_avg, *exp_avg_sq; /* NULL: no optimiser state (frozen, or a model alone) */
};
struct checkpoint_file {
	char *name; /* "config.json" */
	char *data;
	size_t size;
};
struct checkpoint_column {
	char *name; /* metric */
	double *values;
};

struct checkpoint {
	int64_t step;          /* optimiser steps done */
	uint64_t seed, cursor; /* cursor: index of the next group (or example) */
	uint64_t policy_version;
	char *config; /* effective YAML */
	char *ranks;  /* "rollout 2, reward 1, learner 1" */
	int32_t tensor_count;
	struct checkpoint_tensor *tensors;
	/* writing: called for each tensor, one after the other, before what its pointers point to is looked at, once: fills
	 * that, and tensors may share the memory. NULL: all is there already */
	void (*bring)(void *arg, int tensor);
	void *bring_arg;
	int32_t file_count;
	struct checkpoint_file *files;
	int32_t history_rows, history_columns;
	struct checkpoint_column *history;
	int32_t sample_count;
	char **samples;  /* JSON lines */
	char digest[17]; /* hex of a hash over names, shapes and bytes of all model and optimiser tensors, in name order */
};

/* Writes path (through path.tmp-PID). Fills c->digest. A full disk or any I/O error is -1 with a message; then no file
 * is left. Places where tests let it fail (base/fault.h), in this order: "checkpoint half" (of the tensors are written),
 * "checkpoint digest" (all but the digest is), "checkpoint close", "checkpoint fsync", "checkpoint rename", "checkpoint
 * folder fsync"; each is the moment before what it names. */
int checkpoint_write(const char *path, struct checkpoint *c, struct favor_error *e);
/* Everything but the tensors' values: tensors get name and shape with values NULL. All owned by c; checkpoint_free. */
int checkpoint_open(const char *path, struct checkpoint *c, struct favor_error *e);
void checkpoint_free(struct checkpoint *c); /* frees what checkpoint_open allocated */
/* Reads values (and moments where pointers are set) of the tensors wanted, checking shapes and checksums; names that
 * are missing or of another shape are errors that give both shapes. */
int checkpoint_read_tensors(const char *path, struct checkpoint_tensor *wanted, int count, struct favor_error *e);
/* The same; `took` is called with the number of each tensor when it is read: tensors may share their memory. */
int checkpoint_read_each(const char *path, struct checkpoint_tensor *wanted, int count, void (*took)(void *arg, int tensor),
                         void *arg, struct favor_error *e);
/* Reads everything again and compares the digest. */
int checkpoint_verify(const char *path, char digest[17], struct favor_error *e);
uint64_t checkpoint_digest(const struct checkpoint_tensor *tensors, int count);

/* runs/x/checkpoints/step-000100.h5. New string, owned. */
char *checkpoint_path(const char *run_dir, int64_t step);
/* Newest checkpoint in run_dir/checkpoints that opens and is complete; broken ones are skipped with a warning on
 * stderr. NULL if none (not an error). */
char *checkpoint_latest(const char *run_dir);
/* Removes all but the newest `keep` (0 = none removed), and left-over temporary files. */
int checkpoint_prune(const char *run_dir, int keep, struct favor_error *e);
/* "HDF5 1.10.8" of the library that this process has loaded. */
void checkpoint_library(char *text, size_t size);
/* favor inspect: text or JSON to `out` (a FILE *). */
int checkpoint_inspect(const char *path, int json, void *out, struct favor_error *e);

#endif
