/* Rotation, SwiGLU, activations, addition. Outputs may be the inputs (same element, same place), which is what the
 * simd pragmas promise; they may not overlap otherwise. */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/vmath.h"

#include <math.h>

void cpu_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse)
{
	int64_t D = x.cols / heads, half = D / 2;
	float sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *c = cos.data + t * cos.stride, *s = sin.data + t * sin.stride;
		for (int h = 0; h < heads; h++) {
			float *first = x.data + t * x.stride + h * D, *second = first + half;
#pragma omp simd
			for (int64_t i = 0; i < half; i++) {
				float u = first[i], v = second[i], si = sign * s[i];
				first[i] = u * c[i] - v * si;
				second[i] = v * c[i] + u * si;
			}
		}
	}
}

static inline float sigmoid(float x)
{
	return 1.0f / (1.0f + vexp(-x));
}

void cpu_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up)
{
#pragma omp parallel for num_threads(cpu_threads(b, gate.rows * gate.cols)) schedule(static)
	for (int64_t t = 0; t < gate.rows; t++) {
		const float *g = gate.data + t * gate.stride, *u = up.data + t * up.stride;
		float *out = y.data + t * y.stride;
#pragma omp simd
		for (int64_t k = 0; k < gate.cols; k++)
			out[k] = g[k] * sigmoid(g[k]) * u[k];
	}
}

/* silu(g) = g s with s = sigmoid(g); silu'(g) = s (1 + g (1 - s)) */
void cpu_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                         struct tensor gate, struct tensor up)
{
#pragma omp parallel for num_threads(cpu_threads(b, gate.rows * gate.cols)) schedule(static)
	for (int64_t t = 0; t < gate.rows; t++) {
		const float *g = gate.data + t * gate.stride, *u = up.data + t * up.stride, *d = dy.data + t * dy.stride;
		float *dg = dgate.data + t * dgate.stride, *du = dup.data + t * dup.stride;
#pragma omp simd
		for (int64_t k = 0; k < gate.cols; k++) {
			float gk = g[k], uk = u[k], dk = d[k], s = sigmoid(gk);
			dg[k] = dk * uk * s * (1.0f + gk * (1.0f - s));
			du[k] = dk * (gk * s);
		}
	}
}

void cpu_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind)
{
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *v = x.data + t * x.stride;
		float *out = y.data + t * y.stride;
		if (kind == ACT_GELU) {
			/* erff stays a library call: this is only in the vision merger, which takes one row per four patches */
			for (int64_t k = 0; k < x.cols; k++)
				out[k] = 0.5f * v[k] * (1.0f + erff(v[k] * (float)M_SQRT1_2));
		} else {
#pragma omp simd
			for (int64_t k = 0; k < x.cols; k++)
				out[k] = v[k] * sigmoid(1.702f * v[k]);
		}
	}
}

/* gelu'(x) = (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi); quick: s (1 + 1.702 x (1 - s)), s =
 * sigmoid(1.702 x) */
void cpu_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                             enum activation kind)
{
	const float inv_sqrt_2pi = (float)(M_2_SQRTPI * M_SQRT1_2 / 2);
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *v = x.data + t * x.stride, *d = dy.data + t * dy.stride;
		float *out = dx.data + t * dx.stride;
		if (kind == ACT_GELU) {
			for (int64_t k = 0; k < x.cols; k++)
				out[k] = d[k] * (0.5f * (1.0f + erff(v[k] * (float)M_SQRT1_2)) +
				                 v[k] * vexp(-0.5f * v[k] * v[k]) * inv_sqrt_2pi);
		} else {
#pragma omp simd
			for (int64_t k = 0; k < x.cols; k++) {
				float s = sigmoid(1.702f * v[k]);
				out[k] = d[k] * (s * (1.0f + 1.702f * v[k] * (1.0f - s)));
			}
		}
	}
}

void cpu_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c)
{
#pragma omp parallel for num_threads(cpu_threads(b, a.rows * a.cols)) schedule(static)
	for (int64_t t = 0; t < a.rows; t++) {
		const float *at = a.data + t * a.stride, *ct = c.data + t * c.stride;
		float *yt = y.data + t * y.stride;
#pragma omp simd
		for (int64_t k = 0; k < a.cols; k++)
			yt[k] = at[k] + ct[k];
	}
}
