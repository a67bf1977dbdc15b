/* The fused head: log-probabilities of given tokens, and their backward, without a [T, V] array for all T. Rows are
 * taken in chunks and each chunk's logits made by the same product that decoding uses, whole rows at a time: a row's
 * bits don't depend on the chunk, so they are the sampler's. The backward makes the logits again, unless they all fitted
 * one chunk and nothing has used the scratch memory since. */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/softmax_row.h"

/* Logits of a chunk: 64 MiB, or 16 rows if those are more. Large enough that reading w again per chunk is cheap. */
enum { CHUNK_ELEMENTS = 16 << 20, CHUNK_ROWS_MIN = 16 };

static int64_t chunk_rows(int64_t T, int64_t V)
{
	int64_t rows = CHUNK_ELEMENTS / V;
	rows = rows < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : rows;
	return rows < T ? rows : T;
}

static struct head_call call_of(struct tensor h, struct tensor w, const float *lse)
{
	return (struct head_call){h.data, w.data, lse, h.rows, w.rows};
}

/* Does the scratch memory hold this call's logits? */
static int holds(const struct backend *b, struct head_call c)
{
	const struct head_call *have = &((const struct cpu_state *)b->state)->logits;
	return have->lse == c.lse && have->h == c.h && have->w == c.w && have->rows == c.rows &&
	       have->vocabulary == c.vocabulary;
}

static void check_targets(const char *op, const int32_t *target, int64_t T, int64_t V)
{
	for (int64_t t = 0; t < T; t++)
		if (target[t] < 0 || target[t] >= V)
			favor_die("%s: target %lld is token %d, but the vocabulary has %lld", op, (long long)t, (int)target[t],
			          (long long)V);
}

void cpu_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                      const int32_t *target, float temperature)
{
	int64_t T = h.rows, V = w.rows, most = chunk_rows(T, V);
	check_targets("head_logprob", target, T, V);
	float *memory = cpu_scratch(b, (size_t)most * (size_t)V * sizeof *memory);
	for (int64_t first = 0; first < T; first += most) {
		int64_t n = T - first < most ? T - first : most;
		struct tensor logits = tensor_of(memory, n, V);
		cpu_linear(b, logits, tensor_rows(h, first, n), w, NULL, 0);
#pragma omp parallel for num_threads(cpu_threads(b, n * V)) schedule(static)
		for (int64_t i = 0; i < n; i++) {
			const float *row = logits.data + i * V;
			struct softmax_row s = softmax_row(row, V, temperature, NULL);
			logp[first + i] = softmax_logp(&s, row[target[first + i]]);
			lse[first + i] = (float)s.lse;
			if (entropy)
				entropy[first + i] = (float)s.entropy;
		}
	}
	if (most == T)
		((struct cpu_state *)b->state)->logits = call_of(h, w, lse);
}

/* dL/dlogit[j] = g (1[j = target] - p[j]) / temperature, in place of the logits; then dh = dlogits w, dw += dlogits^T
 * h */
void cpu_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                               struct tensor h, struct tensor w, const int32_t *target, float temperature)
{
	int64_t T = h.rows, V = w.rows, most = chunk_rows(T, V);
	check_targets("head_logprob_backward", target, T, V);
	const int held = holds(b, call_of(h, w, lse));
	float *memory = cpu_scratch(b, (size_t)most * (size_t)V * sizeof *memory);
	for (int64_t first = 0; first < T; first += most) {
		int64_t n = T - first < most ? T - first : most;
		struct tensor logits = tensor_of(memory, n, V), rows = tensor_rows(h, first, n);
		if (!held)
			cpu_linear(b, logits, rows, w, NULL, 0);
#pragma omp parallel for num_threads(cpu_threads(b, n * V)) schedule(static)
		for (int64_t i = 0; i < n; i++) {
			float *row = logits.data + i * V, row_lse = lse[first + i], scale = g[first + i] / temperature;
			int32_t token = target[first + i];
			float p = vexp(softmax_z(row[token], temperature) - row_lse);
#pragma omp simd
			for (int64_t j = 0; j < V; j++)
				row[j] = -scale * vexp(softmax_z(row[j], temperature) - row_lse);
			row[token] = scale * (1.0f - p);
		}
		cpu_linear_backward_input(b, tensor_rows(dh, first, n), logits, w, 0);
		if (dw.data)
			cpu_linear_backward_weight(b, dw, NULL, logits, rows);
	}
}
