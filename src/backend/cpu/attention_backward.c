/* The backward pass, for now by the reference's loops. */
#include "backend/cpu/attention.h"

#include "backend/reference/ref_attention.h"

void cpu_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                            struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                            int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	ref_attention_backward(b, dq, dk, dv, do_, o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count);
}
