/* Device memory for the tests of the kernels: the same tests run on the emulation (device_emulated.c: device memory is
 * the heap, each block exactly as large as asked for) and, linked to another implementation, on a GPU. */
#ifndef FAVOR_TESTS_KERNELS_DEVICE_H
#define FAVOR_TESTS_KERNELS_DEVICE_H

#include <stddef.h>

/* Aligned to 256 bytes, filled with 0xff bytes: NaN as float32 and as bfloat16. Owned: device_release. */
void *device_alloc(size_t bytes);
void device_release(void *p);
void device_upload(void *to, const void *from, size_t bytes);
/* After all launches so far. */
void device_download(void *to, const void *from, size_t bytes);
/* Waits; what the launches said: 0 or an error code. */
int device_wait(void);
/* In how many orders threads can be made to run (1 on a GPU), and the choice of one. */
int device_orders(void);
void device_set_order(int order);
/* What the last trap printed ("" on a GPU, where it goes to stdout). */
const char *device_trap_message(void);

#endif
