/* The CPU backend's one block of working memory, so that ops don't allocate in a decode loop. */
#include "backend/cpu/cpu_state.h"

#include <stdlib.h>

enum { ALIGN = 64 };

void *cpu_scratch(struct backend *b, size_t bytes)
{
	struct cpu_state *s = b->state;
	if (bytes > s->scratch_bytes) {
		/* a quarter more than asked: sequences grow by a token at a time */
		bytes = (bytes + bytes / 4 + ALIGN - 1) / ALIGN * ALIGN;
		free(s->scratch);
		s->scratch = aligned_alloc(ALIGN, bytes);
		if (!s->scratch)
			favor_die("out of memory: an operation needs %zu bytes of working memory; lower group_size, max_tokens or "
			          "max_pixels",
			          bytes);
		s->scratch_bytes = bytes;
	}
	return s->scratch;
}
