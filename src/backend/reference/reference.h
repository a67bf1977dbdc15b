/* The reference ops: what each slot of the table means, in plain loops with double sums, on one thread.
 * backend_cpu_new fills its table with these first; tests compare every faster op with them. ref_linear* and
 * ref_attention* have headers of their own. */
#ifndef FAVOR_BACKEND_REFERENCE_H
#define FAVOR_BACKEND_REFERENCE_H

#include "backend/backend.h"

/* The whole table, as the reference has it. */
struct backend_ops reference_ops(void);

/* memory.c */
void *ref_alloc(struct backend *b, size_t bytes);
void ref_release(struct backend *b, void *p);
void ref_copy(struct backend *b, void *to, const void *from, size_t bytes);
void ref_zero(struct backend *b, void *to, size_t bytes);
void ref_segments(struct backend *b, struct segment *to, const struct segment *from, int count, int32_t grows);
void ref_sync(struct backend *b);
void ref_lend(struct backend *b, void *memory, size_t bytes);
int64_t ref_own_bytes(struct backend *b, int64_t weights, int blocks);
int64_t ref_attention_bytes(struct backend *b, const struct segment *segments, int count, int64_t rows, int heads,
                            int kv_heads, int64_t head_dim);
void ref_device(struct backend *b, unsigned char id[DEVICE_ID_BYTES]);
void ref_share_device(struct backend *b, int processes);
int64_t ref_memory_limit(struct backend *b);

/* norm.c */
void ref_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps);
void ref_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                          const float *weight, const float *rstd);
void ref_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                   const float *bias, float eps);
void ref_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                            struct tensor x, const float *weight, const float *mean, const float *rstd);

/* elementwise.c */
void ref_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse);
void ref_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up);
void ref_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                         struct tensor gate, struct tensor up);
void ref_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind);
void ref_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                             enum activation kind);
void ref_cast(struct backend *b, struct tensor y, struct tensor x);
void ref_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c);

/* rows.c */
void ref_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void ref_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void ref_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);

/* head.c */
void ref_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                      const int32_t *target, float temperature);
void ref_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                               struct tensor h, struct tensor w, const int32_t *target, float temperature);
/* Statistics of z = logits / temperature, V of them: log sum exp z, and the entropy of softmax z (may be NULL). */
double ref_log_sum_exp(const float *logits, int64_t V, float temperature, double *entropy);

/* sample.c */
void ref_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                const struct sampling *how);

/* decode.c */
void ref_advance(struct backend *b, const struct slots *s, struct tensor logits, const struct sampling *how);
uint64_t ref_post(struct backend *b, void *to, const void *from, size_t bytes);
void ref_collect(struct backend *b, uint64_t number);
enum replay ref_replay(struct backend *b, const void *key, size_t bytes);
void ref_recorded(struct backend *b);

/* optimizer.c */
void ref_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts);
void ref_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
               int count, const double *squares, const struct adamw *how);

#endif
