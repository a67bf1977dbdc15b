/* RMSNorm and LayerNorm. Rows are independent; gradients of weights are summed per column, in row order. */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/reduce.h"

#include <math.h>

/* Columns whose weight gradient one thread sums at a time: four cache lines of a row. */
enum { COLUMN_BLOCK = 64 };

static inline int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void cpu_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps)
{
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride;
		float *yt = y.data + t * y.stride;
		float r = (float)(1 / sqrt(reduce_squares(xt, x.cols) / (double)x.cols + eps));
		rstd[t] = r;
#pragma omp simd
		for (int64_t k = 0; k < x.cols; k++)
			yt[k] = xt[k] * r * weight[k];
	}
}

/* dweight[k] += sum over rows of dy (x - mean) rstd; dbias[k] += sum of dy. mean NULL = 0 (RMSNorm). */
static void weight_gradients(struct backend *b, float *dweight, float *dbias, struct tensor dy, struct tensor x,
                             const float *mean, const float *rstd)
{
	if (!dweight && !dbias)
		return;
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t first = 0; first < x.cols; first += COLUMN_BLOCK) {
		int64_t n = least(COLUMN_BLOCK, x.cols - first);
		double sum_weight[COLUMN_BLOCK] = {0}, sum_bias[COLUMN_BLOCK] = {0};
		for (int64_t t = 0; t < x.rows; t++) {
			const float *xt = x.data + t * x.stride + first, *dyt = dy.data + t * dy.stride + first;
			float m = mean ? mean[t] : 0, r = rstd[t];
#pragma omp simd
			for (int64_t k = 0; k < n; k++) {
				sum_weight[k] += dyt[k] * ((xt[k] - m) * r);
				sum_bias[k] += dyt[k];
			}
		}
		for (int64_t k = 0; dweight && k < n; k++)
			dweight[first + k] = (float)(dweight[first + k] + sum_weight[k]);
		for (int64_t k = 0; dbias && k < n; k++)
			dbias[first + k] = (float)(dbias[first + k] + sum_bias[k]);
	}
}

/* With r = rstd and n = x r: dx += r (w dy - n mean(w dy n)) */
void cpu_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                          const float *weight, const float *rstd)
{
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride, *dyt = dy.data + t * dy.stride;
		float *dxt = dx.data + t * dx.stride, products[REDUCE_BLOCK];
		double sum = 0;
		for (int64_t first = 0; first < x.cols; first += REDUCE_BLOCK) {
			int64_t n = least(REDUCE_BLOCK, x.cols - first);
#pragma omp simd
			for (int64_t k = 0; k < n; k++)
				products[k] = weight[first + k] * dyt[first + k] * xt[first + k];
			sum += reduce_sum(products, n);
		}
		float r = rstd[t], r_mean = (float)((double)r * r * sum / (double)x.cols);
#pragma omp simd
		for (int64_t k = 0; k < x.cols; k++)
			dxt[k] += r * (weight[k] * dyt[k] - xt[k] * r_mean);
	}
	weight_gradients(b, dweight, NULL, dy, x, NULL, rstd);
}

void cpu_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                   const float *bias, float eps)
{
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride;
		float *yt = y.data + t * y.stride, centred[REDUCE_BLOCK];
		float m = (float)(reduce_sum(xt, x.cols) / (double)x.cols);
		double squares = 0;
		for (int64_t first = 0; first < x.cols; first += REDUCE_BLOCK) {
			int64_t n = least(REDUCE_BLOCK, x.cols - first);
#pragma omp simd
			for (int64_t k = 0; k < n; k++)
				centred[k] = xt[first + k] - m;
			squares += reduce_squares(centred, n);
		}
		float r = (float)(1 / sqrt(squares / (double)x.cols + eps));
		mean[t] = m;
		rstd[t] = r;
#pragma omp simd
		for (int64_t k = 0; k < x.cols; k++)
			yt[k] = (xt[k] - m) * r * weight[k] + bias[k];
	}
}

/* With n = (x - mean) rstd and g = w dy: dx += rstd (g - mean(g) - n mean(g n)) */
void cpu_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                            struct tensor x, const float *weight, const float *mean, const float *rstd)
{
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t t = 0; t < x.rows; t++) {
		const float *xt = x.data + t * x.stride, *dyt = dy.data + t * dy.stride;
		float *dxt = dx.data + t * dx.stride, g[REDUCE_BLOCK], gn[REDUCE_BLOCK];
		float m = mean[t], r = rstd[t];
		double sum_g = 0, sum_gn = 0;
		for (int64_t first = 0; first < x.cols; first += REDUCE_BLOCK) {
			int64_t n = least(REDUCE_BLOCK, x.cols - first);
#pragma omp simd
			for (int64_t k = 0; k < n; k++) {
				g[k] = weight[first + k] * dyt[first + k];
				gn[k] = g[k] * ((xt[first + k] - m) * r);
			}
			sum_g += reduce_sum(g, n);
			sum_gn += reduce_sum(gn, n);
		}
		float mean_g = (float)(sum_g / (double)x.cols), mean_gn = (float)(sum_gn / (double)x.cols);
#pragma omp simd
		for (int64_t k = 0; k < x.cols; k++)
			dxt[k] += r * (weight[k] * dyt[k] - mean_g - (xt[k] - m) * r * mean_gn);
	}
	weight_gradients(b, dweight, dbias, dy, x, mean, rstd);
}
