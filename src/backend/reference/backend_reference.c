/* The reference backend: the table of plain loops. */
#include "backend/reference/ref_attention.h"
#include "backend/reference/ref_matmul.h"
#include "backend/reference/reference.h"

#include <stdlib.h>

static void destroy(struct backend *b)
{
	free(b);
}

static void set_threads(struct backend *b, int threads)
{
	(void)threads; /* always one */
	b->threads = 1;
}

struct backend_ops reference_ops(void)
{
	return (struct backend_ops){
		.name = "reference",
		.alloc = ref_alloc,
		.release = ref_release,
		.upload = ref_copy,
		.download = ref_copy,
		.zero = ref_zero,
		.sync = ref_sync,
		.post = ref_post,
		.collect = ref_collect,
		.set_threads = set_threads,
		.lend = ref_lend,
		.own_bytes = ref_own_bytes,
		.attention_bytes = ref_attention_bytes,
		.device = ref_device,
		.share_device = ref_share_device,
		.memory_limit = ref_memory_limit,
		.destroy = destroy,
		.linear = ref_linear,
		.linear_backward_input = ref_linear_backward_input,
		.linear_backward_weight = ref_linear_backward_weight,
		.weights_changed = ref_weights_changed,
		.rmsnorm = ref_rmsnorm,
		.rmsnorm_backward = ref_rmsnorm_backward,
		.layernorm = ref_layernorm,
		.layernorm_backward = ref_layernorm_backward,
		.rope = ref_rope,
		.segments = ref_segments,
		.attention = ref_attention,
		.attention_backward = ref_attention_backward,
		.swiglu = ref_swiglu,
		.swiglu_backward = ref_swiglu_backward,
		.activation = ref_activation,
		.activation_backward = ref_activation_backward,
		.cast = ref_cast,
		.add = ref_add,
		.gather_rows = ref_gather_rows,
		.scatter_rows = ref_scatter_rows,
		.scatter_rows_add = ref_scatter_rows_add,
		.head_logprob = ref_head_logprob,
		.head_logprob_backward = ref_head_logprob_backward,
		.sample = ref_sample,
		.advance = ref_advance,
		.replay = ref_replay,
		.recorded = ref_recorded,
		.sum_squares = ref_sum_squares,
		.adamw = ref_adamw,
	};
}

struct backend *backend_reference_new(void)
{
	struct backend *b = favor_calloc(1, sizeof *b);
	b->ops = reference_ops();
	b->threads = 1;
	b->in_host_memory = 1;
	return b;
}
