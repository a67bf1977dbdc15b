/* The emulated device: its memory is the heap. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

void emulation_set_order(unsigned order); /* emulation/emulation.h, which is C++ */
int emulation_wait(void);
const char *emulation_trap_message(void);

void *device_alloc(size_t bytes)
{
	void *p = NULL;
	if (posix_memalign(&p, 256, bytes ? bytes : 1))
		abort();
	memset(p, 0xff, bytes);
	return p;
}

void device_release(void *p)
{
	free(p);
}

void device_upload(void *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
}

void device_download(void *to, const void *from, size_t bytes)
{
	memcpy(to, from, bytes);
}

int device_wait(void)
{
	return emulation_wait();
}

int device_orders(void)
{
	return 3;
}

void device_set_order(int order)
{
	emulation_set_order((unsigned)order);
}

const char *device_trap_message(void)
{
	return emulation_trap_message();
}
