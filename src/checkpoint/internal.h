/* Shared by the checkpoint room's own files. */
#ifndef FAVOR_CHECKPOINT_INTERNAL_H
#define FAVOR_CHECKPOINT_INTERNAL_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/h5.h"

/* Product of the shape; a scalar has 1. */
int64_t checkpoint_elements(const struct checkpoint_tensor *t);
/* Pointers to the tensors in the order of their names (bytes). The caller frees the array. */
const struct checkpoint_tensor **checkpoint_sorted(const struct checkpoint_tensor *tensors, int count);
/* The digest is folded from the tensors' hashes, in name order, from HASH_START. */
uint64_t checkpoint_hash(const struct checkpoint_tensor *t);
uint64_t checkpoint_digest_add(uint64_t digest, uint64_t hash);

/* A checkpoint opened for reading its tensors one by one. */
struct checkpoint_reader {
	struct h5_source source;
	hid_t model, exp_avg, exp_avg_sq;
	struct checkpoint head; /* owned: what checkpoint_open gives */
	char *favor_version;    /* owned */
};
/* -1 with a message; reader_close frees also after a failure. reader_open is reader_open_here behind checkpoint_probe. */
int reader_open(struct checkpoint_reader *r, const char *path, struct favor_error *e);
int reader_open_here(struct checkpoint_reader *r, const char *path, struct favor_error *e);
/* checkpoint_probe.c: opens the file in a process of its own first. -1 with a message if that process does not survive. */
int checkpoint_probe(const char *path, struct favor_error *e);
void reader_close(struct checkpoint_reader *r);
/* 1 if the tensor has moments. */
int reader_has_moments(const struct checkpoint_reader *r, const char *name);
/* Fills the arrays whose pointers are set in t (each of checkpoint_elements floats), which must have the shape that the
 * file has. */
int reader_read(struct checkpoint_reader *r, const struct checkpoint_tensor *t);

#endif
