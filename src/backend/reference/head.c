/* Reference fused head: log-probabilities of given tokens from hidden rows, one row of logits at a time. Logits come
 * from this backend's own linear, so that they are the ones that sampling sees. */
#include "backend/reference/reference.h"

#include <math.h>
#include <stdlib.h>

double ref_log_sum_exp(const float *logits, int64_t V, float temperature, double *entropy)
{
	float max = -INFINITY;
	for (int64_t i = 0; i < V; i++) {
		float z = logits[i] / temperature;
		if (z > max)
			max = z;
	}
	double sum = 0, weighted = 0;
	for (int64_t i = 0; i < V; i++) {
		double d = (double)(logits[i] / temperature) - max, e = exp(d);
		sum += e;
		weighted += e > 0 ? e * d : 0;
	}
	/* entropy = lse - sum p z = log sum - sum p (z - max) */
	if (entropy)
		*entropy = log(sum) - weighted / sum;
	return max + log(sum);
}

static void check_target(const char *op, int64_t i, int32_t target, int64_t V)
{
	if (target < 0 || target >= V)
		favor_die("%s: target %lld is token %d, but the vocabulary has %lld", op, (long long)i, (int)target,
		          (long long)V);
}

void ref_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                      const int32_t *target, float temperature)
{
	int64_t V = w.rows;
	float *logits = favor_malloc((size_t)V * sizeof *logits);
	for (int64_t t = 0; t < h.rows; t++) {
		check_target("head_logprob", t, target[t], V);
		b->ops.linear(b, tensor_of(logits, 1, V), tensor_rows(h, t, 1), w, NULL, 0);
		double row_entropy, row_lse = ref_log_sum_exp(logits, V, temperature, &row_entropy);
		lse[t] = (float)row_lse;
		logp[t] = (float)(logits[target[t]] / temperature - row_lse);
		if (entropy)
			entropy[t] = (float)row_entropy;
	}
	free(logits);
}

/* dL/dlogit[i] = g (1[i = target] - p[i]) / temperature */
void ref_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                               struct tensor h, struct tensor w, const int32_t *target, float temperature)
{
	int64_t V = w.rows;
	float *d = favor_malloc((size_t)V * sizeof *d);
	for (int64_t t = 0; t < h.rows; t++) {
		check_target("head_logprob_backward", t, target[t], V);
		struct tensor row = tensor_of(d, 1, V), ht = tensor_rows(h, t, 1);
		b->ops.linear(b, row, ht, w, NULL, 0);
		for (int64_t i = 0; i < V; i++) {
			double p = exp((double)(d[i] / temperature) - lse[t]);
			d[i] = (float)(g[t] * ((i == target[t]) - p) / temperature);
		}
		b->ops.linear_backward_input(b, tensor_rows(dh, t, 1), row, w, 0);
		if (dw.data)
			b->ops.linear_backward_weight(b, dw, NULL, row, ht);
	}
	free(d);
}
