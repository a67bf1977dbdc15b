/* Opening the CUDA backend. Part of the program; the backend itself is a shared object. */
#ifndef FAVOR_BACKEND_CUDA_OPEN_H
#define FAVOR_BACKEND_CUDA_OPEN_H

#include "backend/backend.h"

/* The CUDA backend for the process that is `place` among those of this host that compute: on GPU number place % GPUs, of
 * those that it sees. The shared object is FAVOR_CUDA_LIBRARY's if that is set, else libfavor_cuda.so beside the program or in
 * the library folder. NULL with a message: no driver, no GPU, no such file, one of another version. `device` (size bytes):
 * the GPU's name. */
struct backend *backend_cuda_open(int place, char *device, size_t size, struct favor_error *e);
/* What there is of it, in words, for favor doctor: "libfavor_cuda.so: CUDA 13.0, ..." or why it can't be opened. 0 if it can
 * be (a GPU is not asked for). */
int backend_cuda_describe(char *text, size_t size);

#endif
