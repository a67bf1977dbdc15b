/* The CPU backend's attention: see the slots of the same name in backend.h. */
#ifndef FAVOR_BACKEND_CPU_ATTENTION_H
#define FAVOR_BACKEND_CPU_ATTENTION_H

#include "backend/backend.h"

enum { ATTENTION_MAX_DIM = 256 }; /* head dimension: a multiple of 4 up to this */

void cpu_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                   int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);
void cpu_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                            struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                            int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);

#endif
