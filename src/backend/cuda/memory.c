/* Memory of the CUDA backend: blocks from cudaMalloc, uploads through page-locked memory, working memory, and the bfloat16
 * copies of weights.
 *
 * The copy of a block. A product of bfloat16 asks for its weight by the master's address; the block that it lies in then
 * gets a second one of half the size, into which all of it is rounded. After that the optimiser writes both, so that
 * weights_changed finds the copy true; an upload (resume, publish) makes it stale, and the next product rounds anew. */
#include "backend/cuda/state.h"

#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_MOST = 64 << 20 }; /* scratch and the products' workspace together: their sizes are bounded (kernels.h) */

/* Index of the first block that begins behind p. */
static int place_of(const struct cuda_state *s, const void *p)
{
	int low = 0, high = s->block_count;
	while (low < high) {
		const int middle = (low + high) / 2;
		if ((uintptr_t)s->blocks[middle].base <= (uintptr_t)p)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The block that p lies in, or NULL. */
static struct cuda_block *block_of(const struct cuda_state *s, const void *p)
{
	const int i = place_of(s, p) - 1;
	if (i < 0 || (uintptr_t)p - (uintptr_t)s->blocks[i].base >= s->blocks[i].bytes)
		return NULL;
	return &s->blocks[i];
}

static void *device_memory(struct cuda_state *s, size_t bytes)
{
	void *p = NULL;
	const cudaError_t code = cudaMalloc(&p, bytes);
	if (code == cudaErrorMemoryAllocation) {
		size_t available = 0, total = 0;
		cudaMemGetInfo(&available, &total);
		s->host.die("out of memory on GPU %d (%s): %zu more bytes are wanted, %zu of %zu are free; lower group_size, "
		            "max_tokens, max_pixels or micro_batch, or set learner.recompute", s->device, s->name, bytes, available,
		            total);
	}
	CUDA(s, code);
	return p;
}

void *cuda_alloc(struct backend *b, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	cuda_not_recording(s, "memory is allocated");
	bytes = bytes ? bytes : 1;
	char *p = device_memory(s, bytes);
	if (s->block_count == s->block_room) {
		s->block_room = s->block_room ? 2 * s->block_room : 64;
		s->blocks = realloc(s->blocks, (size_t)s->block_room * sizeof *s->blocks);
		if (!s->blocks)
			s->host.die("out of memory: no room for %d blocks", s->block_room);
	}
	const int at = place_of(s, p);
	memmove(&s->blocks[at + 1], &s->blocks[at], (size_t)(s->block_count - at) * sizeof *s->blocks);
	s->blocks[at] = (struct cuda_block){.base = p, .bytes = bytes};
	s->block_count++;
	return p;
}

void cuda_release(struct backend *b, void *p)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_block *block = block_of(s, p);
	if (!block || block->base != p)
		s->host.die("cuda: release of %p, which is no block of GPU memory", p);
	cuda_not_recording(s, "memory is released");
	s->given_back++;
	CUDA(s, cudaStreamSynchronize(s->stream));
	CUDA(s, cudaFree(p));
	if (block->narrow)
		CUDA(s, cudaFree(block->narrow));
	const int at = (int)(block - s->blocks);
	memmove(block, block + 1, (size_t)(s->block_count - at - 1) * sizeof *block);
	s->block_count--;
}

void cuda_written(struct cuda_state *s, const void *p)
{
	struct cuda_block *block = block_of(s, p);
	if (block)
		block->fresh = 0;
}

void cuda_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_uploads *u = &s->uploads;
	cuda_not_recording(s, "memory is uploaded");
	cuda_written(s, to);
	for (size_t at = 0; at < bytes; at += UPLOAD_BYTES) {
		const size_t n = bytes - at < UPLOAD_BYTES ? bytes - at : UPLOAD_BYTES;
		const unsigned slot = (unsigned)(u->next++ % UPLOAD_SLOTS);
		char *staged = u->memory + slot * (size_t)UPLOAD_BYTES;
		if (u->next > UPLOAD_SLOTS)
			CUDA(s, cudaEventSynchronize(u->done[slot]));
		memcpy(staged, (const char *)from + at, n);
		CUDA(s, cudaMemcpyAsync((char *)to + at, staged, n, cudaMemcpyHostToDevice, s->stream));
		CUDA(s, cudaEventRecord(u->done[slot], s->stream));
	}
}

void cuda_download(struct backend *b, void *to, const void *from, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	cuda_not_recording(s, "memory is downloaded");
	if (bytes <= UPLOAD_BYTES) {
		CUDA(s, cudaMemcpyAsync(s->results, from, bytes, cudaMemcpyDeviceToHost, s->stream));
		CUDA(s, cudaStreamSynchronize(s->stream));
		memcpy(to, s->results, bytes);
		return;
	}
	/* some pieces are on their way while an earlier one is taken out of its slot */
	struct cuda_uploads *u = &s->uploads;
	const uint64_t pieces = (bytes + UPLOAD_BYTES - 1) / UPLOAD_BYTES, ahead = UPLOAD_SLOTS / 2, first = u->next;
	for (uint64_t k = 0; k < pieces + ahead; k++) {
		if (k < pieces) { /* the stream has read an upload's slot before it writes there */
			const size_t at = (size_t)k * UPLOAD_BYTES, n = bytes - at < UPLOAD_BYTES ? bytes - at : UPLOAD_BYTES;
			const unsigned slot = (unsigned)(u->next++ % UPLOAD_SLOTS);
			CUDA(s, cudaMemcpyAsync(u->memory + slot * (size_t)UPLOAD_BYTES, (const char *)from + at, n,
			                        cudaMemcpyDeviceToHost, s->stream));
			CUDA(s, cudaEventRecord(u->done[slot], s->stream));
		}
		if (k >= ahead) {
			const size_t at = (size_t)(k - ahead) * UPLOAD_BYTES, n = bytes - at < UPLOAD_BYTES ? bytes - at : UPLOAD_BYTES;
			const unsigned slot = (unsigned)((first + k - ahead) % UPLOAD_SLOTS);
			CUDA(s, cudaEventSynchronize(u->done[slot]));
			memcpy((char *)to + at, u->memory + slot * (size_t)UPLOAD_BYTES, n);
		}
	}
}

void cuda_zero(struct backend *b, void *to, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	cuda_written(s, to);
	CUDA(s, cudaMemsetAsync(to, 0, bytes, s->stream));
}

void cuda_sync(struct backend *b)
{
	struct cuda_state *s = cuda_of(b);
	cuda_not_recording(s, "the host waits");
	CUDA(s, cudaStreamSynchronize(s->stream));
}

void cuda_weights_changed(struct backend *b)
{
	struct cuda_state *s = cuda_of(b);
	for (int i = 0; i < s->block_count; i++) {
		s->blocks[i].fresh = s->blocks[i].fresh && s->blocks[i].followed;
		s->blocks[i].followed = 0;
	}
}

static void make_narrow(struct cuda_state *s, struct cuda_block *block)
{
	const int64_t n = (int64_t)(block->bytes / sizeof(float));
	KERNEL(s, kernel_cast(block->narrow, n, KERNEL_BF16, block->base, n, KERNEL_F32, 1, n, s->stream));
	block->fresh = 1;
}

void cuda_freshen(struct cuda_state *s)
{
	for (int i = 0; i < s->block_count; i++)
		if (s->blocks[i].narrow && !s->blocks[i].fresh)
			make_narrow(s, &s->blocks[i]);
}

const void *cuda_narrow(struct cuda_state *s, const float *weight)
{
	struct cuda_block *block = block_of(s, weight);
	if (!block)
		s->host.die("cuda: a product's weight at %p lies in no block of GPU memory", (const void *)weight);
	if (!block->narrow || !block->fresh)
		cuda_not_recording(s, "weights are rounded");
	if (!block->narrow)
		block->narrow = device_memory(s, block->bytes / sizeof(float) * 2);
	if (!block->fresh)
		make_narrow(s, block);
	return (const char *)block->narrow + (weight - (const float *)(const void *)block->base) * 2;
}

void *cuda_narrow_to_write(struct cuda_state *s, const float *w, int64_t n)
{
	struct cuda_block *block = block_of(s, w);
	if (!block || !block->fresh)
		return NULL;
	if ((uintptr_t)(w + n) > (uintptr_t)block->base + block->bytes)
		s->host.die("cuda: %lld weights at %p are more than their block of GPU memory has", (long long)n, (const void *)w);
	block->followed = 1;
	return (char *)block->narrow + (w - (const float *)(const void *)block->base) * 2;
}

void cuda_grow(struct cuda_state *s, void **p, size_t *have, size_t bytes)
{
	if (bytes <= *have)
		return;
	cuda_not_recording(s, "working memory grows");
	if (*p) {
		s->given_back++;
		CUDA(s, cudaStreamSynchronize(s->stream));
		CUDA(s, cudaFree(*p));
	}
	*p = device_memory(s, bytes);
	*have = bytes;
}

void *cuda_scratch(struct cuda_state *s, size_t bytes)
{
	cuda_grow(s, &s->scratch, &s->scratch_bytes, bytes);
	return s->scratch;
}

int64_t cuda_own_bytes(struct backend *b, int64_t weights, int blocks)
{
	const int64_t narrow = b->operand == ELEMENT_BFLOAT16 ? 2 * weights * blocks : 0;
	/* logits and their gradient, as large as they get */
	return narrow + (int64_t)HEAD_BYTES + (int64_t)HEAD_BYTES / 4 * (int64_t)element_size(b->operand) + WORKSPACE_MOST;
}

void cuda_device(struct backend *b, unsigned char id[DEVICE_ID_BYTES])
{
	memcpy(id, cuda_of(b)->uuid, DEVICE_ID_BYTES);
}

void cuda_share_device(struct backend *b, int processes)
{
	struct cuda_state *s = cuda_of(b);
	if (processes > 1) /* what is free now tells nothing: the others have begun to take theirs */
		s->limit = s->memory / (size_t)processes;
}

int64_t cuda_memory_limit(struct backend *b)
{
	return (int64_t)cuda_of(b)->limit;
}

void cuda_memory_init(struct cuda_state *s)
{
	CUDA(s, cudaMemGetInfo(&s->limit, &s->memory));
	CUDA(s, cudaHostAlloc((void **)&s->uploads.memory, (size_t)UPLOAD_SLOTS * UPLOAD_BYTES, cudaHostAllocDefault));
	CUDA(s, cudaHostAlloc(&s->results, UPLOAD_BYTES, cudaHostAllocDefault));
	for (int i = 0; i < UPLOAD_SLOTS; i++)
		CUDA(s, cudaEventCreateWithFlags(&s->uploads.done[i], cudaEventDisableTiming));
}

void cuda_memory_end(struct cuda_state *s)
{
	for (int i = 0; i < UPLOAD_SLOTS; i++)
		CUDA(s, cudaEventDestroy(s->uploads.done[i]));
	CUDA(s, cudaFreeHost(s->uploads.memory));
	CUDA(s, cudaFreeHost(s->results));
	void *const working[] = {s->scratch, s->logits, s->dlogits};
	for (size_t i = 0; i < sizeof working / sizeof *working; i++)
		CUDA(s, cudaFree(working[i]));
	for (int i = 0; i < s->block_count; i++) { /* the caller's to release: what is left is its mistake, and no leak of ours */
		CUDA(s, cudaFree(s->blocks[i].base));
		CUDA(s, cudaFree(s->blocks[i].narrow));
	}
	free(s->blocks);
}
