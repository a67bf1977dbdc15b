/* The real device, for tests/gpu.sh. A kernel that traps takes the context with it: tests look at device_orders first. */
#include "device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#define WANT(call) want((call), #call)

static void want(cudaError_t code, const char *call)
{
	if (code == cudaSuccess)
		return;
	fprintf(stderr, "%s: %s\n", call, cudaGetErrorString(code));
	exit(1);
}

void *device_alloc(size_t bytes)
{
	void *p = NULL;
	WANT(cudaMalloc(&p, bytes ? bytes : 1));
	WANT(cudaMemset(p, 0xff, bytes ? bytes : 1));
	return p;
}

void device_release(void *p)
{
	WANT(cudaFree(p));
}

void device_upload(void *to, const void *from, size_t bytes)
{
	WANT(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

void device_download(void *to, const void *from, size_t bytes)
{
	WANT(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

int device_wait(void)
{
	return cudaDeviceSynchronize();
}

int device_orders(void)
{
	return 1;
}

void device_set_order(int order)
{
	(void)order;
}

const char *device_trap_message(void)
{
	return "";
}
