/* Opens NCCL. It is not part of the toolkit and may be missing, or be too old; the emulation of it, which tests use, is in
 * the shared object itself. */
#include "backend/cuda/nccl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* Nonblocking communicators with a finalize of their own. */
static const int OLDEST = NCCL_VERSION(2, 18, 1);

static const char *library_name(void)
{
	const char *named = getenv("FAVOR_NCCL_LIBRARY");
	if (named && *named)
		return named;
	static const int here = 0;
	Dl_info self;
	if (FAVOR_CUDA_EMULATED && dladdr(&here, &self))
		return self.dli_fname;
	return "libnccl.so.2";
}

int cuda_nccl_open(struct nccl *n, char *text, size_t size)
{
	const char *name = library_name();
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(text, size, "no NCCL: %s", dlerror());
		return -1;
	}
	const struct {
		const char *name;
		void *to;
	} functions[] = {
	    {"ncclGetVersion", &n->get_version},      {"ncclGetUniqueId", &n->get_unique_id},
	    {"ncclCommInitRankConfig", &n->init_rank}, {"ncclCommGetAsyncError", &n->async_error},
	    {"ncclAllReduce", &n->all_reduce},        {"ncclReduce", &n->reduce},
	    {"ncclBroadcast", &n->broadcast},         {"ncclCommFinalize", &n->finalize},
	    {"ncclCommDestroy", &n->destroy},         {"ncclGetErrorString", &n->error_string},
	    {"ncclGetLastError", &n->last_error},
	};
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		*(void **)functions[i].to = dlsym(library, functions[i].name);
		if (!*(void **)functions[i].to) {
			snprintf(text, size, "no usable NCCL: %s has no %s", name, functions[i].name);
			return -1;
		}
	}
	int version = 0;
	if (n->get_version(&version) || version < OLDEST) {
		snprintf(text, size, "no usable NCCL: %s is of version %d, and %d is the oldest that will do", name, version,
		         OLDEST);
		return -1;
	}
	snprintf(text, size, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
	return 0;
}
