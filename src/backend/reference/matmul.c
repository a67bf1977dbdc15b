/* Products by three plain loops, summed in double: what the fast ones are compared with. */
#include "backend/reference/ref_matmul.h"

#include "base/bf16.h"

/* A number as a product takes it. b NULL: as it is. */
static double operand(const struct backend *b, float x)
{
	return b && b->products == PRODUCTS_BFLOAT16 ? bf16_round(x) : x;
}

void ref_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate)
{
	for (int64_t t = 0; t < x.rows; t++) {
		for (int64_t n = 0; n < w.rows; n++) {
			double sum = bias ? bias[n] : 0;
			for (int64_t k = 0; k < w.cols; k++)
				sum += operand(b, x.data[t * x.stride + k]) * operand(b, w.data[n * w.stride + k]);
			float *to = &y.data[t * y.stride + n];
			*to = (float)(accumulate ? *to + sum : sum);
		}
	}
}

void ref_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	for (int64_t t = 0; t < dy.rows; t++) {
		for (int64_t k = 0; k < w.cols; k++) {
			double sum = 0;
			for (int64_t n = 0; n < w.rows; n++)
				sum += operand(b, dy.data[t * dy.stride + n]) * operand(b, w.data[n * w.stride + k]);
			float *to = &dx.data[t * dx.stride + k];
			*to = (float)(accumulate ? *to + sum : sum);
		}
	}
}

void ref_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x)
{
	for (int64_t n = 0; n < dw.rows; n++) {
		for (int64_t k = 0; k < dw.cols; k++) {
			double sum = 0;
			for (int64_t t = 0; t < dy.rows; t++)
				sum += operand(b, dy.data[t * dy.stride + n]) * operand(b, x.data[t * x.stride + k]);
			dw.data[n * dw.stride + k] += (float)sum;
		}
		if (dbias) {
			double sum = 0;
			for (int64_t t = 0; t < dy.rows; t++)
				sum += dy.data[t * dy.stride + n];
			dbias[n] += (float)sum;
		}
	}
}

void ref_weights_changed(struct backend *b)
{
	(void)b;
}
