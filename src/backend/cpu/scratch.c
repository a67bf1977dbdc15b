/* The CPU backend's one block of working memory, so that ops don't allocate in a decode loop. */
#include "backend/cpu/cpu_state.h"

#include "backend/host_memory.h"

#include <stdlib.h>

void *cpu_scratch(struct backend *b, size_t bytes)
{
	struct cpu_state *s = b->state;
	s->logits = (struct head_call){0};
	if (bytes > s->scratch_bytes) {
		/* a quarter more than asked: sequences grow by a token at a time */
		bytes += bytes / 4;
		free(s->scratch);
		s->scratch = host_memory(bytes);
		if (!s->scratch)
			favor_die("out of memory: an operation needs %zu bytes of working memory; lower group_size, max_tokens or "
			          "max_pixels",
			          bytes);
		s->scratch_bytes = bytes;
	}
	return s->scratch;
}
