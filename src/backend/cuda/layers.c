/* Norms, rotation, activations, additions and rows: each a launch of kernels.h. */
#include "backend/cuda/state.h"

void cuda_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_rmsnorm(y.data, kernel_type_of(y), y.stride, rstd, x.data, x.stride, weight, eps, x.rows, x.cols,
	                         s->stream));
}

static float *norm_scratch(struct cuda_state *s, struct tensor x, int gradients)
{
	return gradients ? cuda_scratch(s, (size_t)kernel_norm_scratch(x.rows, x.cols) * sizeof(float)) : NULL;
}

void cuda_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                           const float *weight, const float *rstd)
{
	struct cuda_state *s = cuda_of(b);
	float *scratch = norm_scratch(s, x, dweight != NULL);
	KERNEL(s, kernel_rmsnorm_backward(dx.data, dx.stride, dweight, dy.data, kernel_type_of(dy), dy.stride, x.data, x.stride,
	                                  weight, rstd, scratch, x.rows, x.cols, s->stream));
}

void cuda_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                    const float *bias, float eps)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_layernorm(y.data, kernel_type_of(y), y.stride, mean, rstd, x.data, x.stride, weight, bias, eps, x.rows,
	                           x.cols, s->stream));
}

void cuda_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                             struct tensor x, const float *weight, const float *mean, const float *rstd)
{
	struct cuda_state *s = cuda_of(b);
	float *scratch = norm_scratch(s, x, dweight || dbias);
	KERNEL(s, kernel_layernorm_backward(dx.data, dx.stride, dweight, dbias, dy.data, kernel_type_of(dy), dy.stride, x.data,
	                                    x.stride, weight, mean, rstd, scratch, x.rows, x.cols, s->stream));
}

void cuda_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_rope(x.data, x.stride, kernel_type_of(x), heads, x.cols / heads, cos.data, cos.stride, sin.data,
	                      sin.stride, inverse, x.rows, s->stream));
}

void cuda_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_swiglu(y.data, y.stride, gate.data, gate.stride, up.data, up.stride, kernel_type_of(gate), gate.rows,
	                        gate.cols, s->stream));
}

void cuda_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                          struct tensor gate, struct tensor up)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_swiglu_backward(dgate.data, dgate.stride, dup.data, dup.stride, dy.data, dy.stride, gate.data,
	                                 gate.stride, up.data, up.stride, kernel_type_of(gate), gate.rows, gate.cols, s->stream));
}

static enum kernel_activation kernel_activation_of(enum activation kind)
{
	return kind == ACT_GELU ? KERNEL_GELU : KERNEL_QUICK_GELU;
}

void cuda_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_activation(y.data, y.stride, x.data, x.stride, kernel_activation_of(kind), kernel_type_of(x), x.rows,
	                            x.cols, s->stream));
}

void cuda_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                              enum activation kind)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_activation_backward(dx.data, dx.stride, dy.data, dy.stride, x.data, x.stride, kernel_activation_of(kind),
	                                     kernel_type_of(x), x.rows, x.cols, s->stream));
}

void cuda_cast(struct backend *b, struct tensor y, struct tensor x)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_cast(y.data, y.stride, kernel_type_of(y), x.data, x.stride, kernel_type_of(x), x.rows, x.cols,
	                      s->stream));
}

void cuda_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_add(y.data, y.stride, a.data, a.stride, kernel_type_of(a), c.data, c.stride, kernel_type_of(c), a.rows,
	                     a.cols, s->stream));
}

void cuda_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_gather_rows(y.data, y.stride, kernel_type_of(y), x.data, x.stride, kernel_type_of(x), x.rows, rows,
	                             y.rows, y.cols, s->stream));
}

void cuda_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_scatter_rows(y.data, y.stride, kernel_type_of(y), y.rows, x.data, x.stride, kernel_type_of(x), rows,
	                              x.rows, x.cols, s->stream));
}

void cuda_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	struct cuda_state *s = cuda_of(b);
	KERNEL(s, kernel_scatter_rows_add(y.data, y.stride, y.rows, x.data, x.stride, kernel_type_of(x), rows, x.rows, x.cols,
	                                  s->stream));
}
