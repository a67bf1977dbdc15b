/* Attention one query and one head at a time, in double. A query's keys are listed first (prefix, then its own), so
 * that the maths below needs no word about segments. */
#include "backend/reference/ref_attention.h"

#include <math.h>
#include <stdlib.h>

/* keys = the key rows that query i of segment s sees; returns how many. */
static int visible_keys(const struct segment *s, int i, int32_t *keys)
{
	int own = s->causal ? i + s->kv_len - s->q_len + 1 : s->kv_len, n = 0;
	for (int j = 0; j < s->prefix_len; j++)
		keys[n++] = s->prefix_start + j;
	for (int j = 0; j < own; j++)
		keys[n++] = s->kv_start + j;
	return n;
}

static int32_t *keys_new(const struct segment *segments, int count)
{
	size_t most = 0;
	for (int s = 0; s < count; s++) {
		size_t n = (size_t)segments[s].prefix_len + (size_t)segments[s].kv_len;
		most = n > most ? n : most;
	}
	return favor_malloc(most * sizeof(int32_t));
}

static double dot(const float *a, const float *c, int64_t n)
{
	double sum = 0;
	for (int64_t i = 0; i < n; i++)
		sum += (double)a[i] * c[i];
	return sum;
}

/* o = softmax(scale q k^T) v for one query and head */
static void query_forward(float *o, float *lse, const float *q, const float *k, int64_t k_stride, const float *v,
                          int64_t v_stride, int64_t depth, double scale, const int32_t *keys, int count)
{
	double most = -INFINITY, total = 0;
	for (int j = 0; j < count; j++)
		most = fmax(most, scale * dot(q, k + keys[j] * k_stride, depth));
	for (int j = 0; j < count; j++)
		total += exp(scale * dot(q, k + keys[j] * k_stride, depth) - most);
	double log_total = count ? most + log(total) : -INFINITY;
	*lse = (float)log_total;
	for (int64_t d = 0; d < depth; d++)
		o[d] = 0;
	double *sum = favor_calloc((size_t)depth, sizeof *sum);
	for (int j = 0; j < count; j++) {
		double p = exp(scale * dot(q, k + keys[j] * k_stride, depth) - log_total);
		for (int64_t d = 0; d < depth; d++)
			sum[d] += p * v[keys[j] * v_stride + d];
	}
	for (int64_t d = 0; d < depth; d++)
		o[d] = (float)sum[d];
	free(sum);
}

void ref_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                   int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	(void)b;
	int64_t depth = q.cols / heads;
	int32_t *keys = keys_new(segments, segment_count);
	for (int s = 0; s < segment_count; s++) {
		for (int i = 0; i < segments[s].q_len; i++) {
			int count = visible_keys(&segments[s], i, keys);
			int64_t row = segments[s].q_start + i;
			for (int h = 0; h < heads; h++) {
				int64_t from = h / (heads / kv_heads) * depth;
				query_forward(&o.data[row * o.stride + h * depth], &lse[h * q.rows + row],
				              &q.data[row * q.stride + h * depth], k.data + from, k.stride, v.data + from, v.stride,
				              depth, scale, keys, count);
			}
		}
	}
	free(keys);
}

/* With p_j = exp(scale q.k_j - lse):  dv_j += p_j do,  ds_j = p_j (do.v_j - do.o),  dq += scale ds_j k_j,
 * dk_j += scale ds_j q */
static void query_backward(float *dq, float *dk, int64_t dk_stride, float *dv, int64_t dv_stride, const float *do_,
                           const float *o, double lse, const float *q, const float *k, int64_t k_stride, const float *v,
                           int64_t v_stride, int64_t depth, double scale, const int32_t *keys, int count)
{
	double delta = dot(do_, o, depth);
	for (int j = 0; j < count; j++) {
		const float *k_j = k + keys[j] * k_stride, *v_j = v + keys[j] * v_stride;
		double p = exp(scale * dot(q, k_j, depth) - lse), ds = p * (dot(do_, v_j, depth) - delta);
		for (int64_t d = 0; d < depth; d++) {
			dv[keys[j] * dv_stride + d] += (float)(p * do_[d]);
			dk[keys[j] * dk_stride + d] += (float)(scale * ds * q[d]);
			dq[d] += (float)(scale * ds * k_j[d]);
		}
	}
}

void ref_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                            struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                            int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	(void)b;
	int64_t depth = q.cols / heads;
	int32_t *keys = keys_new(segments, segment_count);
	for (int s = 0; s < segment_count; s++) {
		for (int i = 0; i < segments[s].q_len; i++) {
			int count = visible_keys(&segments[s], i, keys);
			int64_t row = segments[s].q_start + i;
			for (int h = 0; h < heads; h++) {
				int64_t from = h / (heads / kv_heads) * depth;
				query_backward(&dq.data[row * dq.stride + h * depth], dk.data + from, dk.stride, dv.data + from,
				               dv.stride, &do_.data[row * do_.stride + h * depth], &o.data[row * o.stride + h * depth],
				               lse[h * q.rows + row], &q.data[row * q.stride + h * depth], k.data + from, k.stride,
				               v.data + from, v.stride, depth, scale, keys, count);
			}
		}
	}
	free(keys);
}
