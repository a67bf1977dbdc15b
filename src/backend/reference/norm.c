/* Reference RMSNorm and LayerNorm: sums in double, results rounded once. */
#include "backend/reference/reference.h"

#include <math.h>

void ref_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride;
		float *yt = y.data + t * y.stride;
		double sum = 0;
		for (int64_t k = 0; k < x.cols; k++)
			sum += (double)xt[k] * xt[k];
		rstd[t] = (float)(1 / sqrt(sum / (double)x.cols + eps));
		for (int64_t k = 0; k < x.cols; k++)
			yt[k] = (float)((double)xt[k] * rstd[t] * weight[k]);
	}
}

/* With r = rstd and n = x r: dx = r (w dy - n mean(w dy n)) and dw = sum over rows of dy n. */
void ref_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                          const float *weight, const float *rstd)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride, *dyt = dy.data + t * dy.stride;
		float *dxt = dx.data + t * dx.stride;
		double r = rstd[t], sum = 0;
		for (int64_t k = 0; k < x.cols; k++)
			sum += (double)weight[k] * dyt[k] * xt[k] * r;
		double mean = sum / (double)x.cols;
		for (int64_t k = 0; k < x.cols; k++)
			dxt[k] = (float)(dxt[k] + r * ((double)weight[k] * dyt[k] - xt[k] * r * mean));
	}
	for (int64_t k = 0; dweight && k < x.cols; k++) {
		double sum = 0;
		for (int64_t t = 0; t < x.rows; t++)
			sum += (double)dy.data[t * dy.stride + k] * x.data[t * x.stride + k] * rstd[t];
		dweight[k] = (float)(dweight[k] + sum);
	}
}

void ref_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                   const float *bias, float eps)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride;
		float *yt = y.data + t * y.stride;
		double sum = 0, squares = 0;
		for (int64_t k = 0; k < x.cols; k++)
			sum += xt[k];
		double m = sum / (double)x.cols;
		for (int64_t k = 0; k < x.cols; k++)
			squares += (xt[k] - m) * (xt[k] - m);
		mean[t] = (float)m;
		rstd[t] = (float)(1 / sqrt(squares / (double)x.cols + eps));
		for (int64_t k = 0; k < x.cols; k++)
			yt[k] = (float)(((double)xt[k] - mean[t]) * rstd[t] * weight[k] + bias[k]);
	}
}

/* With n = (x - mean) rstd and g = w dy: dx = rstd (g - mean(g) - n mean(g n)); dw = sum dy n; dbias = sum dy. */
void ref_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                            struct tensor x, const float *weight, const float *mean, const float *rstd)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride, *dyt = dy.data + t * dy.stride;
		float *dxt = dx.data + t * dx.stride;
		double r = rstd[t], sum_g = 0, sum_gn = 0;
		for (int64_t k = 0; k < x.cols; k++) {
			double g = (double)weight[k] * dyt[k];
			sum_g += g;
			sum_gn += g * ((double)xt[k] - mean[t]) * r;
		}
		double mean_g = sum_g / (double)x.cols, mean_gn = sum_gn / (double)x.cols;
		for (int64_t k = 0; k < x.cols; k++) {
			double n = ((double)xt[k] - mean[t]) * r;
			dxt[k] = (float)(dxt[k] + r * ((double)weight[k] * dyt[k] - mean_g - n * mean_gn));
		}
	}
	for (int64_t k = 0; k < x.cols; k++) {
		double sum_n = 0, sum = 0;
		for (int64_t t = 0; t < x.rows; t++) {
			double d = dy.data[t * dy.stride + k];
			sum_n += d * ((double)x.data[t * x.stride + k] - mean[t]) * rstd[t];
			sum += d;
		}
		if (dweight)
			dweight[k] = (float)(dweight[k] + sum_n);
		if (dbias)
			dbias[k] = (float)(dbias[k] + sum);
	}
}
