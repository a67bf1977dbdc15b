/* Finds, checks and opens the CUDA backend's shared object. It stays open: the driver is not made to be unloaded. */
#include "backend/cuda/open.h"

#include "backend/cuda/library.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A look at the driver before a few hundred MiB of libraries are loaded for nothing. */
static int driver_is_there(struct favor_error *e)
{
	void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	int (*init)(unsigned) = NULL, (*device_count)(int *) = NULL, count = 0;
	if (!cuda) {
		favor_fail(e, "there is no CUDA driver (libcuda.so.1)");
		return 0;
	}
	*(void **)&init = dlsym(cuda, "cuInit");
	*(void **)&device_count = dlsym(cuda, "cuDeviceGetCount");
	const int code = init && device_count ? init(0) : -1;
	if (code || device_count(&count) || count == 0) {
		favor_fail(e, "the CUDA driver finds no GPU (cuInit says %d)", code);
		return 0;
	}
	return 1;
}

/* dlopen of FOLDER/libfavor_cuda.so, if there is such a file. *found: its path. */
static void *open_in(const char *folder, char *found, size_t size)
{
	const int n = snprintf(found, size, "%s/%s", folder, CUDA_LIBRARY_FILE);
	if (n < 0 || (size_t)n >= size || access(found, F_OK))
		return NULL;
	return dlopen(found, RTLD_NOW | RTLD_LOCAL);
}

/* Beside the program, or where it is installed. */
static void *open_file(char *found, size_t size, struct favor_error *e)
{
	const char *named = getenv("FAVOR_CUDA_LIBRARY");
	if (named && *named) {
		snprintf(found, size, "%s", named);
		void *library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
		if (!library)
			favor_fail(e, "FAVOR_CUDA_LIBRARY: %s", dlerror());
		return library;
	}
	char program[PATH_MAX], beside[PATH_MAX + 16];
	const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
	program[n > 0 ? n : 0] = 0;
	char *slash = strrchr(program, '/');
	if (slash)
		*slash = 0;
	snprintf(beside, sizeof beside, "%s/../lib/favor", program);
	const char *const folders[] = {program, beside, FAVOR_LIBRARY_FOLDER};
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		void *library = open_in(folders[i], found, size);
		if (library)
			return library;
		if (access(found, F_OK) == 0) {
			favor_fail(e, "%s can't be loaded: %s (jobs/install_cuda.sh installs the toolkit's libraries)", found,
			           dlerror());
			return NULL;
		}
	}
	favor_fail(e, "there is no %s beside the program or in %s: this build has no CUDA backend (-Dcuda=enabled)",
	           CUDA_LIBRARY_FILE, FAVOR_LIBRARY_FOLDER);
	return NULL;
}

/* NULL with a message. */
static const struct cuda_library *open_library(char *path, size_t size, struct favor_error *e)
{
	void *file = open_file(path, size, e);
	if (!file)
		return NULL;
	const struct cuda_library *l = dlsym(file, CUDA_LIBRARY_SYMBOL);
	if (!l) {
		favor_fail(e, "%s: is no CUDA backend of favor (it has no %s)", path, CUDA_LIBRARY_SYMBOL);
		return NULL;
	}
	if (l->format != CUDA_LIBRARY_FORMAT || l->backend_bytes != sizeof(struct backend) ||
	    l->tensor_bytes != sizeof(struct tensor) || strcmp(l->version, FAVOR_VERSION)) {
		favor_fail(e, "%s: belongs to another build of favor (%s, table %u of %u bytes; this is %s, %d of %zu): build both "
		              "together", path, l->format == CUDA_LIBRARY_FORMAT ? l->version : "unknown", l->format,
		           l->backend_bytes, FAVOR_VERSION, CUDA_LIBRARY_FORMAT, sizeof(struct backend));
		return NULL;
	}
	return l;
}

struct backend *backend_cuda_open(int place, char *device, size_t size, struct favor_error *e)
{
	const char *named = getenv("FAVOR_CUDA_LIBRARY");
	const struct cuda_host host = {(cuda_die)favor_die}; /* (its _Noreturn is no part of its type) */
	char path[PATH_MAX + 64], why[512] = "";
	if (!(named && *named) && !driver_is_there(e))
		return NULL;
	const struct cuda_library *l = open_library(path, sizeof path, e);
	if (!l || (named && *named && l->needs_driver && !driver_is_there(e)))
		return NULL;
	struct backend *b = l->open(&host, place, device, size, why, sizeof why);
	if (!b)
		favor_fail(e, "%s: %s", path, why);
	return b;
}

int backend_cuda_describe(char *text, size_t size)
{
	struct favor_error e = {""};
	char path[PATH_MAX + 64], what[512];
	const struct cuda_library *l = open_library(path, sizeof path, &e);
	if (!l) {
		snprintf(text, size, "%s", e.message);
		return -1;
	}
	const char *slash = strrchr(path, '/');
	l->describe(what, sizeof what);
	snprintf(text, size, "%s, %s", slash ? slash + 1 : path, what);
	return 0;
}
