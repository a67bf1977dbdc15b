/* The CUDA kernels: one launcher each. Only the CUDA backend includes this header; kernels/ knows nothing of src/.
 *
 * What holds for all of them:
 *  - Pointers are device memory, borrowed for the launch, unless "host" is said. A matrix of rows x cols has consecutive
 *    rows `stride` elements apart (stride >= cols); columns beyond cols are not touched. Any alignment that the element
 *    type allows will do; 16-byte aligned pointers and strides of whole 16 bytes are faster. rows or cols may be 0.
 *  - `type` is how elements are stored where the parameter is `void *`; `float *` is float32 always. What feeds a matrix
 *    product (normalised rows, q/k/v, attention output, gate/up, activations) is stored in the model's type; residual
 *    stream, statistics, gradients of weights, moments and master weights are float32. Arithmetic and sums are float32
 *    or double; a stored bfloat16 is rounded once, to nearest even.
 *  - Asynchronous on `stream`; nothing is allocated, nothing waits. Working memory is the caller's (`scratch`, as large
 *    as the function ..._scratch says; used by one launch at a time).
 *  - Deterministic: same input, same bits, on any GPU of one architecture and whatever else runs. Nothing depends on the
 *    order in which threads run. A row's result does not depend on how many rows there are, nor on its neighbours; sums
 *    over rows (gradients of weights) do depend on how many there are.
 *  - Outputs must not overlap inputs unless "may alias" is said.
 *  - They return 0, or a code that kernel_error explains: bad sizes, or what the CUDA runtime said to the launch.
 *    Indices in device memory that are out of range stop the kernel (a trap): the stream's next wait reports a failed
 *    launch. */
#ifndef FAVOR_KERNELS_KERNELS_H
#define FAVOR_KERNELS_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum kernel_type { KERNEL_F32, KERNEL_BF16 };

typedef struct CUstream_st *kernel_stream; /* cudaStream_t; NULL is the default stream */

/* What a launcher's code means. Static. */
const char *kernel_error(int code);

/* ---- norm.cu */

/* y[rows,cols] = x rstd weight, rstd[rows] = 1 / sqrt(mean(x^2) + eps) */
int kernel_rmsnorm(void *y, enum kernel_type type, int64_t y_stride, float *rstd, const float *x, int64_t x_stride,
                   const float *weight, float eps, int64_t rows, int64_t cols, kernel_stream stream);
/* dx[rows,cols] += ..., dweight[cols] += ... (NULL: frozen). dy is of `type`. cols <= KERNEL_NORM_COLS. */
int kernel_rmsnorm_backward(float *dx, int64_t dx_stride, float *dweight, const void *dy, enum kernel_type type,
                            int64_t dy_stride, const float *x, int64_t x_stride, const float *weight, const float *rstd,
                            float *scratch, int64_t rows, int64_t cols, kernel_stream stream);
/* y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(mean((x - mean)^2) + eps); mean[rows], rstd[rows] */
int kernel_layernorm(void *y, enum kernel_type type, int64_t y_stride, float *mean, float *rstd, const float *x,
                     int64_t x_stride, const float *weight, const float *bias, float eps, int64_t rows, int64_t cols,
                     kernel_stream stream);
/* dx += ..., dweight[cols] += ..., dbias[cols] += ... (either may be NULL) */
int kernel_layernorm_backward(float *dx, int64_t dx_stride, float *dweight, float *dbias, const void *dy,
                              enum kernel_type type, int64_t dy_stride, const float *x, int64_t x_stride,
                              const float *weight, const float *mean, const float *rstd, float *scratch, int64_t rows,
                              int64_t cols, kernel_stream stream);
enum { KERNEL_NORM_COLS = 16384 };
/* float32 elements of scratch that a backward of this size needs (either norm; 0 if all gradients of weights are NULL) */
int64_t kernel_norm_scratch(int64_t rows, int64_t cols);

#ifdef __cplusplus
}
#endif

#endif
