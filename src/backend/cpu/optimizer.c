/* Gradient norm and AdamW (Loshchilov and Hutter 2019; the order of operations of torch.optim.AdamW, in float32). */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/reduce.h"

#include <math.h>

static double part_squares(const float *x, int64_t n)
{
	enum { BLOCK = 65536 }; /* part of the result's definition: partial sums are per block, then added in order */
	double sum = 0;
	for (int64_t i = 0; i < n; i += BLOCK)
		sum += reduce_squares(x + i, n - i < BLOCK ? n - i : BLOCK);
	return sum;
}

void cpu_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts)
{
#pragma omp parallel for num_threads(cpu_threads(b, bounds[parts] - bounds[0])) schedule(static)
	for (int i = 0; i < parts; i++)
		out[i] = bounds[i + 1] > bounds[i] ? part_squares(x + bounds[i], bounds[i + 1] - bounds[i]) : 0;
}

void cpu_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
               int count, const double *squares, const struct adamw *how)
{
	if (!isfinite(*squares))
		return;
	float clip = (float)(how->max_norm > 0 ? fmin(1, how->max_norm / (sqrt(*squares) + 1e-6)) : 1);
	double beta1 = how->beta1, beta2 = how->beta2;
	/* m += (1 - b1) (g - m); v = b2 v + (1 - b2) g^2; w = w (1 - lr wd) - lr / c1 * m / (sqrt v / sqrt c2 + eps) */
	float rate1 = (float)(1 - beta1), rate2 = (float)(1 - beta2), keep2 = (float)beta2, eps = how->eps;
	float step = (float)(how->lr / (1 - pow(beta1, (double)how->step)));
	float root_correction2 = (float)sqrt(1 - pow(beta2, (double)how->step));
	for (const struct adamw_range *r = ranges; r < ranges + count; r++) {
		int64_t first = r->first, end = first + r->count;
		float decay = (float)(1 - (double)how->lr * r->weight_decay);
#pragma omp parallel for simd num_threads(cpu_threads(b, r->count)) schedule(static)
		for (int64_t i = first; i < end; i++) {
			float grad = g[i] * clip;
			m[i] = m[i] + rate1 * (grad - m[i]);
			v[i] = v[i] * keep2 + rate2 * grad * grad;
			w[i] = w[i] * decay - step * (m[i] / (sqrtf(v[i]) / root_correction2 + eps));
		}
	}
}
