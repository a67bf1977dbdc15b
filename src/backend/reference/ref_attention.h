/* The reference backend's attention: the plain meaning of the slots of the same name in backend.h. */
#ifndef FAVOR_BACKEND_REF_ATTENTION_H
#define FAVOR_BACKEND_REF_ATTENTION_H

#include "backend/backend.h"

void ref_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                   int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);
void ref_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                            struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                            int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);

#endif
