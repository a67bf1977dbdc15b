/* Memory of the backends that live in host memory: the reference and the CPU backend share these slots. */
#include "backend/reference/reference.h"

#include "backend/host_memory.h"

#include <stdlib.h>
#include <string.h>

void *ref_alloc(struct backend *b, size_t bytes)
{
	(void)b;
	void *p = host_memory(bytes);
	if (!p)
		favor_die("alloc: out of memory: %zu bytes could not be had", bytes);
	return p;
}

void ref_release(struct backend *b, void *p)
{
	(void)b;
	free(p);
}

void ref_copy(struct backend *b, void *to, const void *from, size_t bytes)
{
	(void)b;
	memcpy(to, from, bytes);
}

void ref_zero(struct backend *b, void *to, size_t bytes)
{
	(void)b;
	memset(to, 0, bytes);
}

void ref_segments(struct backend *b, struct segment *to, const struct segment *from, int count, int32_t grows)
{
	(void)b, (void)grows;
	memcpy(to, from, (size_t)count * sizeof *to);
}

void ref_lend(struct backend *b, void *memory, size_t bytes)
{
	(void)b, (void)memory, (void)bytes; /* keeps no copies */
}

void ref_sync(struct backend *b)
{
	(void)b;
}

int64_t ref_own_bytes(struct backend *b, int64_t weights, int blocks)
{
	(void)b, (void)weights, (void)blocks;
	return 0;
}

int64_t ref_attention_bytes(struct backend *b, const struct segment *segments, int count, int64_t rows, int heads,
                            int kv_heads, int64_t head_dim)
{
	(void)b, (void)segments, (void)count, (void)rows, (void)heads, (void)kv_heads, (void)head_dim;
	return 0; /* little, and not for all segments at a time */
}

void ref_device(struct backend *b, unsigned char id[DEVICE_ID_BYTES])
{
	(void)b;
	memset(id, 0, DEVICE_ID_BYTES);
}

void ref_share_device(struct backend *b, int processes)
{
	(void)b, (void)processes; /* the host's memory is shared by the plan */
}

int64_t ref_memory_limit(struct backend *b)
{
	(void)b;
	return 0;
}
