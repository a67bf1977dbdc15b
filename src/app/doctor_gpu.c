/* Is there a GPU that favor could use? The driver's library is opened by name, so that this runs on machines without
 * one and needs no CUDA toolkit. */
#include "app/doctor.h"
#include "backend/cuda/open.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Functions of a library whose headers are not here. */
static void *function(void *library, const char *name, int *missing)
{
	void *p = dlsym(library, name);
	*missing |= !p;
	return p;
}

static void read_driver(struct doctor_facts *f, void *cuda)
{
	int missing = 0, version = 0, count = 0, code;
	int (*init)(unsigned), (*driver_version)(int *), (*device_count)(int *), (*device_name)(char *, int, int),
		(*device_memory)(size_t *, int);
	*(void **)&init = function(cuda, "cuInit", &missing);
	*(void **)&driver_version = function(cuda, "cuDriverGetVersion", &missing);
	*(void **)&device_count = function(cuda, "cuDeviceGetCount", &missing);
	*(void **)&device_name = function(cuda, "cuDeviceGetName", &missing);
	*(void **)&device_memory = function(cuda, "cuDeviceTotalMem_v2", &missing);
	if (missing) {
		f->gpu_trouble = 1;
		snprintf(f->gpu, sizeof f->gpu, "libcuda.so.1 is there but lacks what a driver has");
		return;
	}
	code = init(0);
	if (code || device_count(&count) || count == 0) {
		/* 100: no device; a toolkit's stub library says 34 */
		f->gpu_trouble = code != 100 && code != 34 && access("/dev/nvidiactl", F_OK) == 0;
		snprintf(f->gpu, sizeof f->gpu, "a driver library without a device (cuInit says %d)", code);
		return;
	}
	char name[64] = "?";
	size_t bytes = 0;
	device_name(name, sizeof name, 0);
	device_memory(&bytes, 0);
	driver_version(&version);
	f->gpus = count;
	snprintf(f->gpu, sizeof f->gpu, "%d x %s (%.0f GiB), driver for CUDA %d.%d", count, name,
	         (double)bytes / (1 << 30), version / 1000, version / 10 % 100);
}

void doctor_gpu(struct doctor_facts *f)
{
	f->gpu_backend_opens = !backend_cuda_describe(f->gpu_backend, sizeof f->gpu_backend);
	void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (cuda) {
		read_driver(f, cuda); /* stays open: a driver is not made to be unloaded */
	} else {
		f->gpu_trouble = access("/dev/nvidiactl", F_OK) == 0;
		snprintf(f->gpu, sizeof f->gpu, "%s",
		         f->gpu_trouble ? "an NVIDIA device is there, but libcuda.so.1 can't be loaded" : "no CUDA driver");
	}
}
