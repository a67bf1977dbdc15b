/* The head: logits by a product, a chunk of rows at a time, so that no [T, V] array for all T is needed; then log-probability,
 * entropy and their gradient by row. Sampling. */
#include "backend/cuda/state.h"

#include <string.h>

/* Rows whose logits are in memory at a time: a whole number of ROWS_STEP if it can be. */
enum { ROWS_STEP = 64 };

static int64_t chunk_rows(int64_t rows, int64_t vocabulary)
{
	int64_t most = (int64_t)HEAD_BYTES / ((int64_t)sizeof(float) * vocabulary);
	if (most > ROWS_STEP)
		most = most / ROWS_STEP * ROWS_STEP;
	if (most < 1)
		most = 1;
	return rows < most ? rows : most;
}

static struct tensor logits_room(struct cuda_state *s, int64_t rows, int64_t vocabulary)
{
	void *p = s->logits;
	cuda_grow(s, &p, &s->logits_bytes, (size_t)(rows * vocabulary) * sizeof(float));
	s->logits = p;
	return tensor_of(p, rows, vocabulary);
}

void cuda_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                       const int32_t *target, float temperature)
{
	struct cuda_state *s = cuda_of(b);
	const int64_t chunk = chunk_rows(h.rows, w.rows);
	const struct tensor room = logits_room(s, chunk, w.rows);
	for (int64_t at = 0; at < h.rows; at += chunk) {
		const int64_t n = h.rows - at < chunk ? h.rows - at : chunk;
		const struct tensor logits = tensor_rows(room, 0, n);
		cuda_linear(b, logits, tensor_rows(h, at, n), w, NULL, 0);
		KERNEL(s, kernel_head_logprob(logp + at, entropy ? entropy + at : NULL, lse + at, logits.data, logits.stride,
		                              target + at, temperature, n, w.rows, s->stream));
	}
}

void cuda_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                                struct tensor h, struct tensor w, const int32_t *target, float temperature)
{
	struct cuda_state *s = cuda_of(b);
	const int64_t chunk = chunk_rows(h.rows, w.rows);
	const struct tensor room = logits_room(s, chunk, w.rows);
	cuda_grow(s, &s->dlogits, &s->dlogits_bytes, (size_t)(chunk * w.rows) * element_size(b->operand));
	const struct tensor gradient = tensor_of_type(s->dlogits, chunk, w.rows, b->operand);
	for (int64_t at = 0; at < h.rows; at += chunk) {
		const int64_t n = h.rows - at < chunk ? h.rows - at : chunk;
		const struct tensor logits = tensor_rows(room, 0, n), dz = tensor_rows(gradient, 0, n), hs = tensor_rows(h, at, n);
		cuda_linear(b, logits, hs, w, NULL, 0);
		KERNEL(s, kernel_head_backward(dz.data, dz.stride, kernel_type_of(dz), logits.data, logits.stride, g + at, lse + at,
		                               target + at, temperature, n, w.rows, s->stream));
		cuda_linear_backward_input(b, tensor_rows(dh, at, n), dz, w, 0);
		if (dw.data)
			cuda_linear_backward_weight(b, dw, NULL, dz, hs);
	}
}

_Static_assert(sizeof(struct sampled) == sizeof(struct kernel_sampled) &&
                   offsetof(struct sampled, entropy) == offsetof(struct kernel_sampled, entropy) &&
                   offsetof(struct sampled, sampling_logp) == offsetof(struct kernel_sampled, sampling_logp),
               "a sampled token is copied as it is");

void cuda_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                 const struct sampling *how)
{
	struct cuda_state *s = cuda_of(b);
	const size_t rows = (size_t)logits.rows;
	double *draws_there = cuda_scratch(s, rows * (sizeof *draws_there + sizeof *out));
	struct kernel_sampled *out_there = (struct kernel_sampled *)(void *)(draws_there + rows);
	const struct kernel_draws draws = {.u = draws_there};
	const struct kernel_sampling as = {how->temperature, how->top_p, how->min_p, how->top_k};
	cuda_upload(b, draws_there, u, rows * sizeof *u);
	KERNEL(s, kernel_sample(out_there, logits.data, logits.stride, logits.rows, logits.cols, &draws, &as, s->stream));
	cuda_download(b, out, out_there, rows * sizeof *out);
}
