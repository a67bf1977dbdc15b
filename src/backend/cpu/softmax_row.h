/* Statistics of one row of logits under softmax(logits / temperature). The learner's head and the sampler both go
 * through here, so that the log-probability a token was sampled with and the one it is trained with are the same bits.
 */
#ifndef FAVOR_BACKEND_CPU_SOFTMAX_ROW_H
#define FAVOR_BACKEND_CPU_SOFTMAX_ROW_H

#include "backend/cpu/reduce.h"
#include "backend/cpu/vmath.h"

#include <math.h>

struct softmax_row {
	float temperature, max; /* max of z = logit / temperature */
	double sum;             /* of exp(z - max), in blocks of REDUCE_BLOCK by reduce_sum */
	double lse, entropy;    /* log sum exp z; -sum p log p */
};

/* z. Dividing by 1 changes no bit. */
static inline float softmax_z(float logit, float temperature)
{
	return logit / temperature;
}

/* e[V], if not NULL, receives exp(z - max). */
static inline struct softmax_row softmax_row(const float *logits, int64_t V, float temperature, float *e)
{
	float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
	for (int64_t i = 0; i < V; i++)
		largest = logits[i] > largest ? logits[i] : largest;
	/* division by a positive number is monotone: the largest logit gives the largest z */
	struct softmax_row row = {.temperature = temperature, .max = softmax_z(largest, temperature)};
	double sum = 0, weighted = 0;
	for (int64_t first = 0; first < V; first += REDUCE_BLOCK) {
		int64_t n = V - first < REDUCE_BLOCK ? V - first : REDUCE_BLOCK;
		const float *from = logits + first;
		float block[REDUCE_BLOCK], products[REDUCE_BLOCK];
		float *to = e ? e + first : block;
#pragma omp simd
		for (int64_t i = 0; i < n; i++) {
			float d = softmax_z(from[i], temperature) - row.max;
			to[i] = vexp(d);
			products[i] = to[i] * (d < -200.0f ? -200.0f : d); /* 0, not NaN, for a logit of -infinity */
		}
		sum += reduce_sum(to, n);
		weighted += reduce_sum(products, n);
	}
	/* entropy = lse - sum p z = log sum - sum p (z - max) */
	row.sum = sum;
	row.lse = row.max + log(sum);
	row.entropy = log(sum) - weighted / sum;
	return row;
}

/* log softmax(logits / temperature) of the token with this logit */
static inline float softmax_logp(const struct softmax_row *row, float logit)
{
	return (float)(softmax_z(logit, row->temperature) - row->lse);
}

#endif
