/* The forward pass, for now by the reference's loops. */
#include "backend/cpu/attention.h"

#include "backend/reference/ref_attention.h"

void cpu_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                   int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	ref_attention(b, o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count);
}
