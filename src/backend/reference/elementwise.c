/* Reference rotation, SwiGLU, activations and addition: evaluated in double, rounded once. */
#include "backend/reference/reference.h"

#include <math.h>
#include <string.h>

void ref_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse)
{
	(void)b;
	int64_t D = x.cols / heads, half = D / 2;
	for (int64_t t = 0; t < x.rows; t++)
		for (int h = 0; h < heads; h++) {
			float *p = x.data + t * x.stride + h * D;
			for (int64_t i = 0; i < half; i++) {
				double c = cos.data[t * cos.stride + i], s = sin.data[t * sin.stride + i];
				double first = p[i], second = p[i + half];
				if (inverse)
					s = -s;
				p[i] = (float)(first * c - second * s);
				p[i + half] = (float)(second * c + first * s);
			}
		}
}

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

void ref_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up)
{
	(void)b;
	for (int64_t t = 0; t < gate.rows; t++)
		for (int64_t k = 0; k < gate.cols; k++) {
			double g = gate.data[t * gate.stride + k], u = up.data[t * up.stride + k];
			y.data[t * y.stride + k] = (float)(g * sigmoid(g) * u);
		}
}

/* silu(g) = g s with s = sigmoid(g); silu'(g) = s (1 + g (1 - s)) */
void ref_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                         struct tensor gate, struct tensor up)
{
	(void)b;
	for (int64_t t = 0; t < gate.rows; t++)
		for (int64_t k = 0; k < gate.cols; k++) {
			double g = gate.data[t * gate.stride + k], u = up.data[t * up.stride + k];
			double d = dy.data[t * dy.stride + k], s = sigmoid(g);
			dgate.data[t * dgate.stride + k] = (float)(d * u * s * (1 + g * (1 - s)));
			dup.data[t * dup.stride + k] = (float)(d * g * s);
		}
}

void ref_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++)
		for (int64_t k = 0; k < x.cols; k++) {
			double v = x.data[t * x.stride + k];
			double f = kind == ACT_GELU ? v / 2 * (1 + erf(v * M_SQRT1_2)) : v * sigmoid(1.702 * v);
			y.data[t * y.stride + k] = (float)f;
		}
}

/* gelu'(x) = (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi); quick: s (1 + 1.702 x (1 - s)), s =
 * sigmoid(1.702 x) */
void ref_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                             enum activation kind)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++)
		for (int64_t k = 0; k < x.cols; k++) {
			double v = x.data[t * x.stride + k], d = dy.data[t * dy.stride + k], slope;
			if (kind == ACT_GELU) {
				slope = 0.5 * (1 + erf(v * M_SQRT1_2)) + v * exp(-0.5 * v * v) * (M_2_SQRTPI * M_SQRT1_2 / 2);
			} else {
				double s = sigmoid(1.702 * v);
				slope = s * (1 + 1.702 * v * (1 - s));
			}
			dx.data[t * dx.stride + k] = (float)(d * slope);
		}
}

void ref_cast(struct backend *b, struct tensor y, struct tensor x)
{
	(void)b;
	for (int64_t t = 0; t < x.rows; t++)
		memcpy(y.data + t * y.stride, x.data + t * x.stride, (size_t)x.cols * sizeof(float));
}

void ref_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c)
{
	(void)b;
	for (int64_t t = 0; t < a.rows; t++)
		for (int64_t k = 0; k < a.cols; k++)
			y.data[t * y.stride + k] = a.data[t * a.stride + k] + c.data[t * c.stride + k];
}
