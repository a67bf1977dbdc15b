// Stands in for the CUDA toolkit's header of this name: asynchronous copies from global to shared memory (cp.async). When the
// bytes arrive depends on the order of threads: as late as the wait for them, so that a wait that is missing shows, or at once, so that
// it shows where somebody still reads what is overwritten.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void *shared, const void *global, size_t bytes, size_t zero_fill = 0)
{
	if (emulation::copy_async(shared, global, bytes, zero_fill)) {
		memcpy(shared, global, bytes - zero_fill);
		memset((char *)shared + bytes - zero_fill, 0, zero_fill);
	}
}
inline void __pipeline_commit()
{
	emulation::copy_commit();
}
// All groups that this thread committed but the newest `pending`.
inline void __pipeline_wait_prior(size_t pending)
{
	emulation::Copy copy;
	while (emulation::copy_next(pending, &copy)) {
		memcpy(copy.shared, copy.global, copy.bytes);
		memset((char *)copy.shared + copy.bytes, 0, copy.zeros);
	}
}
