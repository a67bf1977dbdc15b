/* The CPU backend: the reference's table, with faster kernels in the slots that have one, and the state they share. */
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/packed.h"
#include "backend/reference/reference.h"
#include "backend/threads.h"

#include <malloc.h>
#include <stdlib.h>

static struct matmul_state *matmul_of(struct backend *b)
{
	return ((struct cpu_state *)b->state)->matmul;
}

/* Memory is the host's, as the reference has it. But products keep packed copies of weights by address: whatever is
 * overwritten or given back here must not live on in one. */
static void cpu_release(struct backend *b, void *p)
{
	matmul_forget(matmul_of(b), p, malloc_usable_size(p));
	ref_release(b, p);
}

static void cpu_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
	matmul_forget(matmul_of(b), to, bytes);
	ref_copy(b, to, from, bytes);
}

static void cpu_zero(struct backend *b, void *to, size_t bytes)
{
	enum { PART = 1 << 20 };
	matmul_forget(matmul_of(b), to, bytes);
#pragma omp parallel for num_threads(b->threads) schedule(static) if (bytes > PART)
	for (size_t first = 0; first < bytes; first += PART)
		ref_zero(b, (char *)to + first, bytes - first < PART ? bytes - first : PART);
}

static void cpu_lend(struct backend *b, void *memory, size_t bytes)
{
	matmul_lend(matmul_of(b), memory, bytes);
}

/* Weights are kept once more, packed for products. */
static int64_t own_bytes(struct backend *b, int64_t weights, int blocks)
{
	const int64_t copies = blocks * weights * (b->products == PRODUCTS_BFLOAT16 ? 2 : 4), most = packed_weights_most();
	return copies < most ? copies : most;
}

static void set_threads(struct backend *b, int threads)
{
	b->threads = threads;
	matmul_state_threads(matmul_of(b), threads);
}

static void destroy(struct backend *b)
{
	struct cpu_state *s = b->state;
	matmul_state_destroy(s->matmul);
	free(s->scratch);
	free(s);
	free(b);
}

struct backend *backend_cpu_new(int threads)
{
	struct backend *b = favor_calloc(1, sizeof *b);
	struct cpu_state *s = favor_calloc(1, sizeof *s);
	b->threads = backend_thread_count(threads);
	b->in_host_memory = 1;
	b->state = s;
	s->matmul = matmul_state_new(b->threads);

	b->ops = reference_ops();
	b->ops.name = "cpu";
	b->ops.release = cpu_release;
	b->ops.upload = cpu_upload;
	b->ops.zero = cpu_zero;
	b->ops.set_threads = set_threads;
	b->ops.lend = cpu_lend;
	b->ops.destroy = destroy;
	b->ops.own_bytes = own_bytes;
	b->ops.linear = cpu_linear;
	b->ops.linear_backward_input = cpu_linear_backward_input;
	b->ops.linear_backward_weight = cpu_linear_backward_weight;
	b->ops.weights_changed = cpu_weights_changed;
	b->ops.rmsnorm = cpu_rmsnorm;
	b->ops.rmsnorm_backward = cpu_rmsnorm_backward;
	b->ops.layernorm = cpu_layernorm;
	b->ops.layernorm_backward = cpu_layernorm_backward;
	b->ops.rope = cpu_rope;
	b->ops.attention = cpu_attention;
	b->ops.attention_backward = cpu_attention_backward;
	b->ops.swiglu = cpu_swiglu;
	b->ops.swiglu_backward = cpu_swiglu_backward;
	b->ops.activation = cpu_activation;
	b->ops.activation_backward = cpu_activation_backward;
	b->ops.add = cpu_add;
	b->ops.gather_rows = cpu_gather_rows;
	b->ops.scatter_rows = cpu_scatter_rows;
	b->ops.scatter_rows_add = cpu_scatter_rows_add;
	b->ops.head_logprob = cpu_head_logprob;
	b->ops.head_logprob_backward = cpu_head_logprob_backward;
	b->ops.sample = cpu_sample;
	b->ops.sum_squares = cpu_sum_squares;
	b->ops.adamw = cpu_adamw;
	return b;
}
