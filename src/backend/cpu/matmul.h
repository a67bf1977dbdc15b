/* The CPU backend's products: see the slots of the same name in backend.h. */
#ifndef FAVOR_BACKEND_CPU_MATMUL_H
#define FAVOR_BACKEND_CPU_MATMUL_H

#include "backend/backend.h"

/* Packed copies of weights, and buffers. */
struct matmul_state;

struct matmul_state *matmul_state_new(int threads);
void matmul_state_destroy(struct matmul_state *s); /* NULL is fine */
void matmul_state_threads(struct matmul_state *s, int threads);
/* Forgets packed copies of weights that overlap these bytes: for whoever overwrites or frees memory without
 * weights_changed. Costs little; NULL and 0 are fine. */
void matmul_forget(struct matmul_state *s, const void *from, size_t bytes);
/* Packed copies go there from now on, as far as they fit, until the next call; those in memory that was lent before are
 * forgotten. NULL, 0: none is lent. */
void matmul_lend(struct matmul_state *s, void *memory, size_t bytes);
/* Bytes of the packed copies that are kept in memory of their own. */
size_t matmul_packed_bytes(const struct matmul_state *s);

void cpu_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                int accumulate);
void cpu_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate);
void cpu_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x);
void cpu_weights_changed(struct backend *b);

#endif
