/* Host memory for the backends that live in it. */
#ifndef FAVOR_BACKEND_HOST_MEMORY_H
#define FAVOR_BACKEND_HOST_MEMORY_H

#include <stddef.h>

/* At least `bytes` bytes, 64-byte aligned, to be given back by free; NULL if there is no more. Large blocks are asked
 * for in huge pages, where the system gives them on request: products walk through them in long strides, and a page
 * fault for every 4 KiB is a large part of the first touch. */
void *host_memory(size_t bytes);

#endif
