/* What passes between the program and the CUDA backend's shared object, which the program opens at run time
 * (backend/cuda/open.c), so that one build starts on machines with and without the toolkit's libraries. The shared object
 * gives one symbol, CUDA_LIBRARY_SYMBOL, a struct cuda_library; the program looks at format, sizes and version before it
 * calls anything in it. The shared object links to nothing of the program: what it needs is lent. */
#ifndef FAVOR_BACKEND_CUDA_LIBRARY_H
#define FAVOR_BACKEND_CUDA_LIBRARY_H

#include "backend/backend.h"

#define CUDA_LIBRARY_SYMBOL "favor_cuda_library"
#define CUDA_LIBRARY_FILE   "libfavor_cuda.so"

/* What the program lends. Copied. */
typedef void (*cuda_die)(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
struct cuda_host {
	cuda_die die; /* favor_die */
};

/* Goes up when the meaning of this struct or of the backend's table changes. */
enum { CUDA_LIBRARY_FORMAT = 6 };

struct cuda_library {
	uint32_t format;
	uint32_t backend_bytes, tensor_bytes; /* sizeof: another table shows */
	const char *version;                  /* FAVOR_VERSION of its build */
	int needs_driver;                     /* 0: an emulation, which runs anywhere */
	/* What it runs on, in words: "CUDA 13.0, cuBLASLt 13.1.0". At most size bytes. */
	void (*describe)(char *text, size_t size);
	/* A backend on the GPU with number place % number of GPUs that this process sees. NULL: `why` (size bytes) says what is
	 * missing. `device` (device_size bytes): the GPU's name. */
	struct backend *(*open)(const struct cuda_host *host, int place, char *device, size_t device_size, char *why,
	                        size_t size);
};

#endif
