/* Inside the checkpoint room: HDF5's C interface cut down to what a checkpoint needs. Nothing here prints; the reason
 * of a failure is taken from HDF5's error stack right after the call that failed. What is read is not trusted: layout,
 * filters, types and sizes are checked against the size of the file before anything is allocated. */
#ifndef FAVOR_CHECKPOINT_H5_H
#define FAVOR_CHECKPOINT_H5_H

#include "base/error.h"

#include <hdf5.h>
#include <stddef.h>
#include <stdint.h>

enum { H5_DIMS_MAX = 5, H5_CHUNK_BYTES = 8 << 20 };

/* Stops HDF5 from printing its error stack, and from flushing files once more at exit that could not be written (a full
 * disk). */
void h5_quiet(void);
/* Why the last HDF5 call failed: the innermost entry of the stack as text, errno if the entry has one (else 0). */
int h5_reason(char *text, size_t n);
/* Closes any kind of identifier but files, and leaves the error stack as it is; a negative one is left alone. */
void h5_close(hid_t id);

/* Writing: 0, or -1 with the reason left in HDF5's stack. */
hid_t h5_create_file(const char *path);
hid_t h5_create_group(hid_t loc, const char *name);
int h5_write_attribute(hid_t loc, const char *name, hid_t type, const void *value);
/* An attribute of variable length, UTF-8: h5py gives str. */
int h5_write_text(hid_t loc, const char *name, const char *text);
/* A dataset of fixed size: chunked with fletcher32, or contiguous if it is scalar or has no elements. A name with
 * slashes makes groups. */
int h5_write_data(hid_t loc, const char *name, hid_t type, int ndim, const hsize_t *dims, const void *data);
/* A dataset [count] of texts of one fixed length (UTF-8, filled up with NUL), so that the checksum covers them. */
int h5_write_strings(hid_t loc, const char *name, int count, const char *const *texts);

/* Reading: -1 with a message in e that begins with the file's path. */
struct h5_source {
	const char *path; /* borrowed */
	hid_t file;       /* owned by whoever called h5_open_file */
	uint64_t size;    /* of the file, bytes */
	struct favor_error *e;
};
int h5_open_file(struct h5_source *s, const char *path, struct favor_error *e);
void h5_close_file(struct h5_source *s);
int h5_open_group(const struct h5_source *s, const char *name, hid_t *group);
/* Names of the members, in order of creation if the file knows it, else sorted. The caller owns both levels. Links are
 * refused. */
int h5_names(const struct h5_source *s, hid_t group, const char *group_name, int *count, char ***names);
int h5_read_int64(const struct h5_source *s, const char *name, int64_t *value);
int h5_read_uint64(const struct h5_source *s, const char *name, uint64_t *value);

struct h5_data {
	hid_t dataset, type; /* type: in the file */
	int ndim;
	hsize_t dims[H5_DIMS_MAX];
	size_t elements, bytes; /* bytes: elements times the size of the type in the file */
};
/* Opens and checks; `what` names it in messages ("tensor lm_head.weight"). type: what the elements must be in the file;
 * 0 for strings of fixed length. h5_close_data frees also after a failure. */
int h5_open_data(const struct h5_source *s, hid_t loc, const char *name, const char *what, hid_t type,
                 struct h5_data *d);
int h5_read_data(const struct h5_source *s, const struct h5_data *d, const char *what, void *to);
void h5_close_data(struct h5_data *d);
/* What h5_write_strings wrote. The caller owns both levels, also after a failure. */
int h5_read_strings(const struct h5_source *s, hid_t loc, const char *name, const char *what, int *count,
                    char ***texts);

#endif
