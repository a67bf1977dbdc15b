#include "backend/host_memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { LINE = 64 };
static const size_t HUGE_PAGE = (size_t)2 << 20;

void *host_memory(size_t bytes)
{
	if (bytes > SIZE_MAX - HUGE_PAGE)
		return NULL;
	if (bytes < 2 * HUGE_PAGE)
		return aligned_alloc(LINE, bytes ? (bytes + LINE - 1) / LINE * LINE : LINE);
	size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	void *p = aligned_alloc(HUGE_PAGE, rounded);
	if (p)
		(void)madvise(p, rounded, MADV_HUGEPAGE); /* a wish: where it isn't granted, small pages do */
	return p;
}
