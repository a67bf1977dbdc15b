/* Reference gradient norm and AdamW (Loshchilov and Hutter 2019; the order of operations of torch.optim.AdamW). */
#include "backend/reference/reference.h"

#include <math.h>

void ref_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts)
{
	(void)b;
	for (int part = 0; part < parts; part++) {
		double sum = 0;
		for (int64_t i = bounds[part]; i < bounds[part + 1]; i++)
			sum += (double)x[i] * x[i];
		out[part] = sum;
	}
}

void ref_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
               int count, const double *squares, const struct adamw *how)
{
	(void)b;
	if (!isfinite(*squares))
		return;
	double clip = how->max_norm > 0 ? fmin(1, how->max_norm / (sqrt(*squares) + 1e-6)) : 1;
	double beta1 = how->beta1, beta2 = how->beta2;
	double correction1 = 1 - pow(beta1, (double)how->step), correction2 = 1 - pow(beta2, (double)how->step);
	for (const struct adamw_range *r = ranges; r < ranges + count; r++)
		for (int64_t i = r->first; i < r->first + r->count; i++) {
			double grad = (double)g[i] * (float)clip;
			m[i] = (float)(beta1 * m[i] + (1 - beta1) * grad);
			v[i] = (float)(beta2 * v[i] + (1 - beta2) * grad * grad);
			double decayed = w[i] * (1 - (double)how->lr * r->weight_decay);
			w[i] = (float)(decayed - how->lr * (m[i] / correction1) / (sqrt(v[i] / correction2) + how->eps));
		}
}
