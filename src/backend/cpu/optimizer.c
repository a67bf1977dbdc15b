/* Gradient norm and AdamW (Loshchilov and Hutter 2019; the order of operations of torch.optim.AdamW, in float32). */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/reduce.h"

#include <math.h>

double cpu_sum_squares(struct backend *b, const float *x, int64_t n)
{
	enum { BLOCK = 65536 }; /* part of the result's definition: partial sums are per block, then added in order */
	int64_t blocks = (n + BLOCK - 1) / BLOCK;
	double *partial = cpu_scratch(b, (size_t)blocks * sizeof *partial), sum = 0;
#pragma omp parallel for num_threads(cpu_threads(b, n)) schedule(static)
	for (int64_t i = 0; i < blocks; i++)
		partial[i] = reduce_squares(x + i * BLOCK, n - i * BLOCK < BLOCK ? n - i * BLOCK : BLOCK);
	for (int64_t i = 0; i < blocks; i++)
		sum += partial[i];
	return sum;
}

void cpu_adamw(struct backend *b, float *w, const float *g, float *m, float *v, int64_t n, float grad_scale,
               const struct adamw *how)
{
	double beta1 = how->beta1, beta2 = how->beta2;
	/* m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; w = w (1 - lr wd) - lr / c1 * m / (sqrt v / sqrt c2 + eps) */
	float rate1 = (float)(1 - beta1), rate2 = (float)(1 - beta2), keep2 = (float)beta2, eps = how->eps;
	float decay = (float)(1 - (double)how->lr * how->weight_decay);
	float step = (float)(how->lr / (1 - pow(beta1, (double)how->step)));
	float root_correction2 = (float)sqrt(1 - pow(beta2, (double)how->step));
#pragma omp parallel for simd num_threads(cpu_threads(b, n)) schedule(static)
	for (int64_t i = 0; i < n; i++) {
		float grad = g[i] * grad_scale;
		m[i] = m[i] + rate1 * (grad - m[i]);
		v[i] = v[i] * keep2 + rate2 * grad * grad;
		w[i] = w[i] * decay - step * (m[i] / (sqrtf(v[i]) / root_correction2 + eps));
	}
}
