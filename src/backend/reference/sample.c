/* Reference sampling: sorts the whole row and applies the truncations one by one, as transformers' warpers do. The
 * weight of a token is e = exp(z - max z) as a float, from the same vexp that the CPU backend vectorises, and every
 * sum of weights is in double in a fixed order: so the faster sampler must choose the same token, always. */
#include "backend/cpu/vmath.h"
#include "backend/reference/reference.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
	float z, e;
	int32_t id;
	int kept;
};

static int by_id(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

/* Most probable first, ties by id. */
static int by_z(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	return x->z != y->z ? (x->z < y->z) - (x->z > y->z) : by_id(a, b);
}

static double sum_kept(const struct candidate *c, int64_t V)
{
	double sum = 0;
	for (int64_t i = 0; i < V; i++)
		if (c[i].kept)
			sum += c[i].e;
	return sum;
}

/* Sets kept; leaves c in id order. */
static void truncate_row(struct candidate *c, int64_t V, const struct sampling *how)
{
	if (how->top_k > 0 && how->top_k < V) {
		/* ties with the k-th largest are all kept */
		qsort(c, (size_t)V, sizeof *c, by_z);
		float kth = c[how->top_k - 1].z;
		for (int64_t i = 0; i < V; i++)
			c[i].kept = c[i].z >= kth;
		qsort(c, (size_t)V, sizeof *c, by_id);
	}
	if (how->top_p < 1) {
		/* a token stays if those before it have not reached top_p yet */
		double goal = how->top_p * sum_kept(c, V), before = 0;
		qsort(c, (size_t)V, sizeof *c, by_z);
		for (int64_t i = 0; i < V; i++) {
			c[i].kept = c[i].kept && (i == 0 || before < goal);
			before += c[i].e;
		}
		qsort(c, (size_t)V, sizeof *c, by_id);
	}
	if (how->min_p > 0)
		/* the largest weight is 1, and no truncation before drops it */
		for (int64_t i = 0; i < V; i++)
			c[i].kept = c[i].kept && c[i].e >= how->min_p;
}

static struct sampled sample_row(const float *logits, int64_t V, double u, const struct sampling *how,
                                 struct candidate *c)
{
	int greedy = how->temperature == 0;
	float temperature = greedy ? 1 : how->temperature;
	double entropy, lse = ref_log_sum_exp(logits, V, temperature, &entropy);
	float max = -INFINITY;
	int64_t best = 0;
	for (int64_t i = 0; i < V; i++) {
		c[i] = (struct candidate){.z = logits[i] / temperature, .id = (int32_t)i, .kept = 1};
		if (c[i].z > max) {
			max = c[i].z;
			best = i;
		}
	}
	struct sampled out = {.token = (int32_t)best, .entropy = (float)entropy, .logp = (float)(c[best].z - lse)};
	if (greedy)
		return out;

	for (int64_t i = 0; i < V; i++)
		c[i].e = vexp(c[i].z - max);
	truncate_row(c, V, how);
	double sum = sum_kept(c, V), goal = u * sum, cumulative = 0;
	int64_t count = 0;
	int chosen = 0;
	for (int64_t i = 0; i < V; i++) {
		if (!c[i].kept)
			continue;
		count++;
		cumulative += c[i].e;
		/* should rounding keep the sum at the goal, the last token with any weight is it */
		if (!chosen && c[i].e > 0)
			out.token = (int32_t)i;
		chosen |= cumulative > goal;
	}
	out.logp = (float)(c[out.token].z - lse);
	out.sampling_logp = count == V ? out.logp : (float)((double)(c[out.token].z - max) - log(sum));
	return out;
}

void ref_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                const struct sampling *how)
{
	(void)b;
	struct candidate *c = favor_malloc((size_t)logits.cols * sizeof *c);
	for (int64_t t = 0; t < logits.rows; t++)
		out[t] = sample_row(logits.data + t * logits.stride, logits.cols, u[t], how, c);
	free(c);
}
