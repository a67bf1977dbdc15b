/* The CPU backend's kernels, but for products (matmul.h) and attention (attention.h): slots of the table in backend.h.
 *
 * How they keep the contracts: a row is computed by one thread in an order that its length alone decides; sums over
 * rows (gradients of weights) run per column in row order, and threads share columns; elementwise functions are vexp
 * and correctly rounded operations, with no contraction (-ffp-contract=off), so vector body and scalar tail agree. */
#ifndef FAVOR_BACKEND_CPU_OPS_H
#define FAVOR_BACKEND_CPU_OPS_H

#include "backend/backend.h"

/* Threads for work on so many elements: below this, waking others costs more than it gains. */
static inline int cpu_threads(const struct backend *b, int64_t elements)
{
	return elements < 16384 ? 1 : b->threads;
}

/* norm.c */
void cpu_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps);
void cpu_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                          const float *weight, const float *rstd);
void cpu_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                   const float *bias, float eps);
void cpu_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                            struct tensor x, const float *weight, const float *mean, const float *rstd);

/* elementwise.c */
void cpu_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse);
void cpu_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up);
void cpu_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                         struct tensor gate, struct tensor up);
void cpu_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind);
void cpu_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                             enum activation kind);
void cpu_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c);

/* rows.c */
void cpu_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void cpu_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void cpu_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);

/* head.c */
void cpu_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                      const int32_t *target, float temperature);
void cpu_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                               struct tensor h, struct tensor w, const int32_t *target, float temperature);

/* sample.c */
void cpu_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                const struct sampling *how);

/* optimizer.c */
void cpu_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts);
void cpu_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
               int count, const double *squares, const struct adamw *how);

#endif
