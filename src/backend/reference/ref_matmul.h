/* The reference backend's products: the plain meaning of the slots of the same name in backend.h. */
#ifndef FAVOR_BACKEND_REF_MATMUL_H
#define FAVOR_BACKEND_REF_MATMUL_H

#include "backend/backend.h"

void ref_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                int accumulate);
void ref_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate);
void ref_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x);
/* Nothing to forget here. */
void ref_weights_changed(struct backend *b);

#endif
