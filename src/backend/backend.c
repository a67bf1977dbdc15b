/* What every backend has in common: threads and the end. */
#include "backend/backend.h"

#include "backend/threads.h"

#include <sched.h>

int backend_thread_count(int threads)
{
	if (threads > 0)
		return threads;
	cpu_set_t cores;
	/* fails with more cores than the set holds; one thread is right everywhere */
	if (sched_getaffinity(0, sizeof cores, &cores))
		return 1;
	int count = CPU_COUNT(&cores);
	return count > 0 ? count : 1;
}

void backend_set_threads(struct backend *b, int threads)
{
	b->ops.set_threads(b, backend_thread_count(threads));
}

void backend_destroy(struct backend *b)
{
	if (b)
		b->ops.destroy(b);
}
