/* A checkpoint with every kind of content, for the tests of this room. */
#ifndef TESTS_CHECKPOINT_SAMPLE_H
#define TESTS_CHECKPOINT_SAMPLE_H

#include "checkpoint/checkpoint.h"

/* Scalars, empty tensors, 1 to 5 dimensions, odd bits (NaN, -0, denormals), frozen tensors, empty and binary files,
 * metrics with slashes and NaN, samples with Unicode. All owned: sample_free. */
void sample_make(struct checkpoint *c, int64_t step);
void sample_free(struct checkpoint *c);
/* New zeroed tensors of c's names and shapes with room for all parts that c's tensors have; free with
 * sample_free_tensors. */
struct checkpoint_tensor *sample_room(const struct checkpoint *c);
void sample_free_tensors(struct checkpoint_tensor *tensors, int count);
int64_t sample_elements(const struct checkpoint_tensor *t);
/* Bits of all parts equal. */
int sample_equal(const struct checkpoint_tensor *a, const struct checkpoint_tensor *b);

/* A new empty folder under the temporary directory; new string. sample_remove removes it with the files in it and in
 * its "checkpoints". */
char *sample_folder(void);
void sample_remove(char *folder);
/* Bytes of a file; the caller frees. */
unsigned char *sample_read(const char *path, size_t *n);
void sample_write(const char *path, const void *data, size_t n);

#endif
