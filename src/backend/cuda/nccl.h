/* NCCL's functions, from a library that is opened when they are first asked for: the CUDA backend works without. */
#ifndef FAVOR_BACKEND_CUDA_NCCL_H
#define FAVOR_BACKEND_CUDA_NCCL_H

#include <nccl.h>
#include <stddef.h>

struct nccl {
	__typeof__(&ncclGetVersion) get_version;
	__typeof__(&ncclGetUniqueId) get_unique_id;
	__typeof__(&ncclCommInitRankConfig) init_rank;
	__typeof__(&ncclCommGetAsyncError) async_error;
	__typeof__(&ncclAllReduce) all_reduce;
	__typeof__(&ncclReduce) reduce;
	__typeof__(&ncclBroadcast) broadcast;
	__typeof__(&ncclCommFinalize) finalize;
	__typeof__(&ncclCommDestroy) destroy;
	__typeof__(&ncclGetErrorString) error_string;
	__typeof__(&ncclGetLastError) last_error;
};

/* Fills it from FAVOR_NCCL_LIBRARY if that is set, else from libnccl.so.2. The library stays open. `text` (size bytes):
 * "NCCL 2.28.9", or with -1 what is missing. */
int cuda_nccl_open(struct nccl *n, char *text, size_t size);

#endif
