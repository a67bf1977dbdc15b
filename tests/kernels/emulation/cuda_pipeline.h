// Stands in for the CUDA toolkit's header of this name: asynchronous copies from global to shared memory (cp.async). The
// bytes arrive when the thread waits for them and not before, so that a wait that is missing shows.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void *shared, const void *global, size_t bytes, size_t zero_fill = 0)
{
	emulation::copy_async(shared, global, bytes, zero_fill);
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
