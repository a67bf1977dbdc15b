/* The CUDA kernels: one launcher each. Only the CUDA backend includes this header; kernels/ knows nothing of src/.
 *
 * What holds for all of them:
 *  - Pointers are device memory, borrowed for the launch, unless "host" is said. A matrix of rows x cols has consecutive
 *    rows `stride` elements apart (stride >= cols); columns beyond cols are not touched. Any alignment that the element
 *    type allows will do; 16-byte aligned pointers and strides of whole 16 bytes are faster. rows or cols may be 0.
 *  - `type` is how elements are stored where the parameter is `void *`; `float *` is float32 always. What feeds a matrix
 *    product (normalised rows, q/k/v, attention output, gate/up, activations) is stored in the model's type; residual
 *    stream, statistics, gradients of weights, moments and master weights are float32. Arithmetic and sums are float32
 *    or double; a stored bfloat16 is rounded once, to nearest even.
 *  - Asynchronous on `stream`; nothing is allocated, nothing waits. Working memory is the caller's (`scratch`, as large
 *    as the function ..._scratch says; used by one launch at a time).
 *  - Deterministic: same input, same bits, on any GPU of one architecture and whatever else runs. Nothing depends on the
 *    order in which threads run. A row's result does not depend on how many rows there are, nor on its neighbours; sums
 *    over rows (gradients of weights) do depend on how many there are.
 *  - Outputs must not overlap inputs unless "may alias" is said.
 *  - They return 0, or a code that kernel_error explains: bad sizes, or what the CUDA runtime said to the launch.
 *    Indices in device memory that are out of range stop the kernel (a trap): the stream's next wait reports a failed
 *    launch. */
#ifndef FAVOR_KERNELS_KERNELS_H
#define FAVOR_KERNELS_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum kernel_type { KERNEL_F32, KERNEL_BF16 };

typedef struct CUstream_st *kernel_stream; /* cudaStream_t; NULL is the default stream */

/* What a launcher's code means. Static. */
const char *kernel_error(int code);

/* ---- norm.cu */

/* y[rows,cols] = x rstd weight, rstd[rows] = 1 / sqrt(mean(x^2) + eps) */
int kernel_rmsnorm(void *y, enum kernel_type type, int64_t y_stride, float *rstd, const float *x, int64_t x_stride,
                   const float *weight, float eps, int64_t rows, int64_t cols, kernel_stream stream);
/* dx[rows,cols] += ..., dweight[cols] += ... (NULL: frozen). dy is of `type`. cols <= KERNEL_NORM_COLS. */
int kernel_rmsnorm_backward(float *dx, int64_t dx_stride, float *dweight, const void *dy, enum kernel_type type,
                            int64_t dy_stride, const float *x, int64_t x_stride, const float *weight, const float *rstd,
                            float *scratch, int64_t rows, int64_t cols, kernel_stream stream);
/* y = (x - mean) rstd weight + bias, rstd = 1 / sqrt(mean((x - mean)^2) + eps); mean[rows], rstd[rows] */
int kernel_layernorm(void *y, enum kernel_type type, int64_t y_stride, float *mean, float *rstd, const float *x,
                     int64_t x_stride, const float *weight, const float *bias, float eps, int64_t rows, int64_t cols,
                     kernel_stream stream);
/* dx += ..., dweight[cols] += ..., dbias[cols] += ... (either may be NULL) */
int kernel_layernorm_backward(float *dx, int64_t dx_stride, float *dweight, float *dbias, const void *dy,
                              enum kernel_type type, int64_t dy_stride, const float *x, int64_t x_stride,
                              const float *weight, const float *mean, const float *rstd, float *scratch, int64_t rows,
                              int64_t cols, kernel_stream stream);
enum { KERNEL_NORM_COLS = 16384 };
/* float32 elements of scratch that a backward of this size needs (either norm; 0 if all gradients of weights are NULL) */
int64_t kernel_norm_scratch(int64_t rows, int64_t cols);

/* ---- rope.cu */

/* In place on x[rows, heads * head_dim]: the halves a = x[..head_dim/2], b = x[head_dim/2..] of every head become a c - b s, b c + a s,
 * with c, s = cos, sin[rows, head_dim/2]. inverse: s -> -s (the backward pass). head_dim is even. */
int kernel_rope(void *x, int64_t x_stride, enum kernel_type type, int64_t heads, int64_t head_dim, const float *cos,
                int64_t cos_stride, const float *sin, int64_t sin_stride, int inverse, int64_t rows,
                kernel_stream stream);

/* ---- elementwise.cu */

enum kernel_activation { KERNEL_QUICK_GELU, KERNEL_GELU }; /* x sigmoid(1.702 x) | exact: x/2 (1 + erf(x / sqrt 2)) */

/* y[rows,cols] = silu(gate) up; gate and up may be columns of one matrix; y may alias either */
int kernel_swiglu(void *y, int64_t y_stride, const void *gate, int64_t gate_stride, const void *up, int64_t up_stride,
                  enum kernel_type type, int64_t rows, int64_t cols, kernel_stream stream);
/* dgate = ..., dup = ... (overwritten; may alias gate, up or dy, element on element) */
int kernel_swiglu_backward(void *dgate, int64_t dgate_stride, void *dup, int64_t dup_stride, const void *dy,
                           int64_t dy_stride, const void *gate, int64_t gate_stride, const void *up, int64_t up_stride,
                           enum kernel_type type, int64_t rows, int64_t cols, kernel_stream stream);
/* y = f(x); y may alias x */
int kernel_activation(void *y, int64_t y_stride, const void *x, int64_t x_stride, enum kernel_activation kind,
                      enum kernel_type type, int64_t rows, int64_t cols, kernel_stream stream);
/* dx = dy f'(x) (overwritten; may alias dy or x) */
int kernel_activation_backward(void *dx, int64_t dx_stride, const void *dy, int64_t dy_stride, const void *x,
                               int64_t x_stride, enum kernel_activation kind, enum kernel_type type, int64_t rows,
                               int64_t cols, kernel_stream stream);
/* y = a + c; y and a are of `type`; y may alias either */
int kernel_add(void *y, int64_t y_stride, const void *a, int64_t a_stride, enum kernel_type type, const void *c,
               int64_t c_stride, enum kernel_type c_type, int64_t rows, int64_t cols, kernel_stream stream);
/* y += bias[cols] in each row */
int kernel_add_bias(void *y, int64_t y_stride, enum kernel_type type, const float *bias, int64_t rows, int64_t cols,
                    kernel_stream stream);
/* y = x, rounded to nearest even */
int kernel_cast(void *y, int64_t y_stride, enum kernel_type y_type, const void *x, int64_t x_stride,
                enum kernel_type x_type, int64_t rows, int64_t cols, kernel_stream stream);
/* y = value */
int kernel_fill(void *y, int64_t y_stride, enum kernel_type type, float value, int64_t rows, int64_t cols,
                kernel_stream stream);

/* ---- rows.cu: a negative entry of the list rows[n] is skipped; one that is too large stops the kernel */

/* y[i] = x[rows[i]] for n rows of y; a skipped row of y is left alone. x has x_rows rows. */
int kernel_gather_rows(void *y, int64_t y_stride, enum kernel_type y_type, const void *x, int64_t x_stride,
                       enum kernel_type x_type, int64_t x_rows, const int32_t *rows, int64_t n, int64_t cols,
                       kernel_stream stream);
/* y[rows[i]] = x[i]; rows are distinct. y has y_rows rows. */
int kernel_scatter_rows(void *y, int64_t y_stride, enum kernel_type y_type, int64_t y_rows, const void *x,
                        int64_t x_stride, enum kernel_type x_type, const int32_t *rows, int64_t n, int64_t cols,
                        kernel_stream stream);
/* y[rows[i]] += x[i]; rows may repeat (added one by one, in order of i) */
int kernel_scatter_rows_add(float *y, int64_t y_stride, int64_t y_rows, const void *x, int64_t x_stride,
                            enum kernel_type x_type, const int32_t *rows, int64_t n, int64_t cols, kernel_stream stream);

/* ---- reduce.cu */

/* dbias[cols] += column sums of dy[rows,cols] */
int kernel_bias_gradient(float *dbias, const void *dy, int64_t dy_stride, enum kernel_type type, float *scratch,
                         int64_t rows, int64_t cols, kernel_stream stream);
/* float32 elements */
int64_t kernel_bias_gradient_scratch(int64_t rows, int64_t cols);

enum { KERNEL_SQUARES_PARTS = 65535, KERNEL_SQUARES_PIECES = 64 };
/* Host: into how many pieces (at most KERNEL_SQUARES_PIECES) the longest part is cut; -1: bounds[parts + 1] descend somewhere. */
int64_t kernel_sum_squares_plan(const int64_t *bounds, int64_t parts);
/* out[parts], in double: out[i] = sum of x[k]^2 over bounds[i] <= k < bounds[i + 1], in an order that the part's length alone decides. Two
 * launches, however many parts there are; idle blocks where lengths differ much. bounds[parts + 1] on the device, parts <= KERNEL_SQUARES_PARTS,
 * pieces as planned. scratch: parts * KERNEL_SQUARES_PIECES doubles. */
int kernel_sum_squares(double *out, const float *x, const int64_t *bounds, int64_t parts, int64_t pieces, double *scratch,
                       kernel_stream stream);

/* ---- adamw.cu */

/* One tensor (or block of tensors) to step. */
struct kernel_adamw_tensor {
	float *weight; /* the master */
	const float *gradient;
	float *moment, *square; /* of the gradient: running means of g and g^2 */
	void *copy;             /* bfloat16, rounded from the new weight; NULL: none */
	int64_t count;
	int64_t first_block; /* kernel_adamw_plan sets it */
	float weight_decay;
};
struct kernel_adamw {
	float lr, beta1, beta2, eps;
	float max_norm; /* of the gradient, >= 0; 0: it is not clipped */
	int64_t step;   /* 1-based, for the bias correction */
};
/* Host: sets first_block of tensors[count]; returns how many blocks a step takes. Once, before they are uploaded. */
int64_t kernel_adamw_plan(struct kernel_adamw_tensor *tensors, int64_t count);
/* One launch for all tensors. c = min(1, max_norm / (sqrt(squares) + 1e-6)); g = gradient * c; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 * w -= lr (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay w)   (decoupled decay)
 * squares[1] on the device: |gradient|^2; where it is not finite, nothing is written. tensors[count] on
 * the device, blocks as planned; how on the host. */
int kernel_adamw(const struct kernel_adamw_tensor *tensors, int64_t count, int64_t blocks, const double *squares,
                 const struct kernel_adamw *how, kernel_stream stream);

/* ---- head.cu: rows of logits, which the caller makes a chunk of rows at a time; 1 <= vocabulary < 2^19, temperature > 0 */

/* With z = logits[rows, vocabulary] / temperature: lse[rows] = log sum exp z, logp = z[target] - lse, entropy of softmax z (may be NULL).
 * logp has the bits that kernel_sample gives for the same logits, temperature and token. A target outside the vocabulary stops the
 * kernel; logits that are no numbers give NaN. */
int kernel_head_logprob(float *logp, float *entropy, float *lse, const float *logits, int64_t stride,
                        const int32_t *target, float temperature, int64_t rows, int64_t vocabulary,
                        kernel_stream stream);
/* dlogits[rows, vocabulary] = g (1[v = target] - e^(z - lse)) / temperature, for g[rows] = dL/dlogp; float32 dlogits may alias logits */
int kernel_head_backward(void *dlogits, int64_t dlogits_stride, enum kernel_type type, const float *logits,
                         int64_t stride, const float *g, const float *lse, const int32_t *target, float temperature,
                         int64_t rows, int64_t vocabulary, kernel_stream stream);

/* ---- sample.cu */

/* How a row of logits becomes a token; the fields and their meaning are those of the CPU's sampling. */
struct kernel_sampling {
	float temperature; /* 0 = greedy: the first of the largest logits */
	float top_p, min_p;
	int32_t top_k; /* 0 = off */
};
struct kernel_sampled {
	int32_t token;
	float logp;          /* log softmax(logits / temperature)[token] */
	float sampling_logp; /* under the truncated, renormalised distribution; equal to logp if nothing is truncated; greedy: 0 */
	float entropy;       /* of softmax(logits / temperature) */
};
/* Where the uniform draws come from: given, or by the counter-based generator from (seed, domain, index, response, position). */
struct kernel_draws {
	const double *u; /* [rows] in [0,1); NULL: */
	uint64_t seed;
	uint32_t domain;
	const uint64_t *index;              /* [rows] */
	const uint32_t *response, *position; /* [rows] */
};
/* out[rows] from logits[rows, vocabulary], 1 <= vocabulary < 2^19. Truncation: temperature, top_k, top_p, min_p. top_k keeps all ties with
 * the k-th. top_p keeps the smallest set of most probable tokens whose sum reaches top_p (the one that crosses is kept); ties go to the
 * lower id. min_p keeps p >= min_p p_max. The draw: first id whose cumulative weight among the kept exceeds u of their sum; weights are
 * whole numbers of 2^-45 of the largest, so that lighter tokens are never drawn. Logits that are no numbers give some token, and log-probabilities that are NaN. draws and how on the host. */
int kernel_sample(struct kernel_sampled *out, const float *logits, int64_t stride, int64_t rows, int64_t vocabulary,
                  const struct kernel_draws *draws, const struct kernel_sampling *how, kernel_stream stream);
/* What a step of decoding leaves behind, an entry a slot (a slot is a response that decodes, and a row of the step). */
struct kernel_slots {
	int32_t *token, *row, *position; /* of the next step */
	int32_t *left;                   /* tokens that may still be sampled; 0: the response has ended */
	uint32_t *drawn;                 /* tokens sampled so far */
	struct kernel_segment *segments; /* attention's; kv_len counts on */
	struct kernel_sampled *sampled;
	const int32_t *stop; /* [stop_count] tokens that end a response */
	int32_t stop_count;
};
/* Moves `count` slots on by what kernel_sample has left in sampled. Where left > 0: drawn is one more, and left one less, or 0 after a
 * stop token; if any is left, the token is the slot's next, and row, position and kv_len are one more. Of others (token -1 in
 * sampled if it was so before) token and row become -1. slots on the host. */
int kernel_advance(const struct kernel_slots *slots, int64_t count, kernel_stream stream);
/* u[n]: the draws themselves */
int kernel_uniform(double *u, const struct kernel_draws *draws, int64_t n, kernel_stream stream);

/* ---- attention.cu, attention_decode.cu, attention_backward.cu, attention_plan.cu
 *
 * o = softmax(scale q k^T) v by segments. Queries [q_start, + q_len) see all keys of the prefix [prefix_start, + prefix_len), then own
 * keys [kv_start, + kv_len): all of them, or if causal, query i sees own keys j <= i + kv_len - q_len. Key rows index k and v;
 * query rows index q and o. A length may be 0. Segments of one call never share query rows; they may share a prefix, and a segment's own
 * keys may be the prefix of others. Query head h reads key head h / (heads / kv_heads).
 *
 * Which work there is, is planned on the host: the caller keeps the segments there, makes a plan of them once for all layers, and
 * uploads its list. A plan knows nothing of the heads' dimension, of types and of where the matrices are.
 *
 * The order of a query's sums: a chunk is KERNEL_ATTENTION_CHUNK keys, counted from the start of the prefix and again from the
 * start of its own keys; inside a chunk, blocks of 64 in order; the chunks' results are merged in order, prefix first. It is the
 * same in kernel_attention and kernel_attention_decode, so that what both compute for one query (same element type, head dimension and
 * alignment) has the same bits: sampling, prefill and training agree. (That holds to the bit on the emulation, where a tensor core's
 * row does not depend on its place in the tile; GPUs are not documented to differ.) Hidden keys weigh exactly 0; those
 * of a block that the query's tile sees must be finite none the less.
 *
 * bfloat16 with head dimensions up to 128 that are multiples of 8, 16-byte aligned pointers and strides of whole 16 bytes, runs on
 * tensor cores; softmax weights and dS are rounded to bfloat16 there before they are multiplied. All else runs in float32 FMAs, far
 * slower. scratch is 16-byte aligned. */
struct kernel_segment {
	int32_t q_start, q_len, prefix_start, prefix_len, kv_start, kv_len, causal;
};
/* What all launchers of an attention are given (host). type: of q, k, v, and of o and the gradients too. */
struct kernel_attention {
	enum kernel_type type;
	const void *q;    /* [q_rows, heads * head_dim] */
	const void *k, *v; /* [k_rows, kv_heads * head_dim] */
	int64_t q_stride, k_stride, v_stride;
	int64_t q_rows, k_rows;
	int64_t heads, kv_heads; /* heads: 1 to 128 times kv_heads */
	int64_t head_dim;        /* even, 2 to KERNEL_HEAD_DIM */
	float scale;             /* > 0 */
};
enum { KERNEL_HEAD_DIM = 256, KERNEL_ATTENTION_CHUNK = 256 };

/* A plan: numbers on the host, and a list of int32 that the caller uploads. Made for these heads, kv_heads, q_rows and k_rows. */
struct kernel_attention_plan {
	const int32_t *list; /* on the device; the caller's, borrowed by the launchers: set it after the upload */
	int64_t heads, kv_heads, q_rows, k_rows;
	int32_t segments, tiles, key_tiles, key_items;
};
/* Host. Plans `count` segments for what `a` says of heads, kv_heads, q_rows and k_rows (nothing else of it is read). Returns how many
 * int32 the list has and, unless list is NULL, writes them there: call it with NULL first. backward: key tiles too, for
 * kernel_attention_backward. -1: a segment that reaches out of the rows, bad heads, or no memory. */
int64_t kernel_attention_plan(struct kernel_attention_plan *plan, int32_t *list, const struct kernel_segment *segments,
                              int64_t count, const struct kernel_attention *a, int backward);

/* o[q_rows, heads * head_dim]; lse[heads * q_rows] (head-major; may be NULL): log sum exp of the scaled scores, -infinity where a query
 * sees no key (its o is 0). Rows that no segment covers are left alone. */
int kernel_attention(void *o, int64_t o_stride, float *lse, const struct kernel_attention *a,
                     const struct kernel_attention_plan *plan, kernel_stream stream);

/* For dout = dL/do, and o and lse as kernel_attention gave them. Gradients of rows that a segment covers (dq: its queries; dk, dv: its
 * prefix and own keys) are overwritten, or with accumulate, added to (in float32, rounded once); other rows are left alone. So where
 * every row is covered, nothing needs to be zeroed before. Any of dq, dk, dv may be columns of one matrix; none may overlap an input.
 * A key's sum over the queries that see it has one order, that of the segments, cut into pieces of a size that depends on heads
 * and kv_heads alone: it does not depend on what other segments there are, except those that see the key. */
int kernel_attention_backward(void *dq, int64_t dq_stride, void *dk, int64_t dk_stride, void *dv, int64_t dv_stride,
                              int accumulate, const void *dout, int64_t dout_stride, const void *o, int64_t o_stride,
                              const float *lse, const struct kernel_attention *a, const struct kernel_attention_plan *plan,
                              float *scratch, kernel_stream stream);
/* float32 elements; a: heads, kv_heads, q_rows, head_dim */
int64_t kernel_attention_backward_scratch(const struct kernel_attention *a, const struct kernel_attention_plan *plan);

/* Decoding: every segment has one query (or none), and many share a prefix, which is read once for all of them and all heads of
 * a key head. Work is split over chunks of keys; a second kernel merges the chunks' results. */
struct kernel_decode_plan {
	const int32_t *list; /* as above */
	int64_t heads, kv_heads, q_rows, k_rows;
	int32_t segments, items, partials;
};
/* Host. As kernel_attention_plan, but q_len is 0 or 1, and kv_len says how many own keys the segment will have at most while the plan
 * is used. At least `items` items are planned, those added being empty: a captured launch can then serve later plans of as
 * many segments and items, uploaded to the same place (partials may differ: scratch must be large enough for all). */
int64_t kernel_decode_plan(struct kernel_decode_plan *plan, int32_t *list, const struct kernel_segment *segments,
                           int64_t count, const struct kernel_attention *a, int64_t items);
/* o and lse as kernel_attention gives them. kv_len[segments], on the device, in the order in which the segments were planned and
 * kv_len_step numbers apart: how many own keys each has now; more than planned stops the kernel. */
int kernel_attention_decode(void *o, int64_t o_stride, float *lse, const struct kernel_attention *a,
                            const struct kernel_decode_plan *plan, const int32_t *kv_len, int64_t kv_len_step,
                            float *scratch, kernel_stream stream);
/* float32 elements; a: heads, head_dim */
int64_t kernel_attention_decode_scratch(const struct kernel_attention *a, const struct kernel_decode_plan *plan);

#ifdef __cplusplus
}
#endif

#endif
