/* The backend: tensors, and the table of operations that the model is written against. A backend is a value; there are
 * no file-scope handles. Wrappers check shapes at the door and dispatch to the table; no slot is NULL. Every op first
 * has a plain reference (backend/reference), then faster versions overwrite slots (backend/cpu).
 *
 * Contracts that hold for every op of the CPU backend, and that tests check:
 *  - row results do not depend on how many rows are given, nor on their neighbours, nor on the number of threads,
 *    to the bit;
 *  - attention sums a query's keys in an order that depends on its own segment alone: prefix keys first in blocks of
 *    ATTENTION_BLOCK from prefix_start, then its own keys in blocks of ATTENTION_BLOCK from kv_start. So decode,
 *    prefill and training give the same bits;
 *  - same input, same bits: reductions have a fixed order.
 * Ops are asynchronous on the backend's stream; only those that say so wait (sync, download, collect, ...). int32
 * arrays and segments live in backend memory. A broken library or no memory ends the job (favor_die); a wrong shape is
 * a bug in favor and does so too. */
#ifndef FAVOR_BACKEND_BACKEND_H
#define FAVOR_BACKEND_BACKEND_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* How elements are stored. */
enum element { ELEMENT_FLOAT32, ELEMENT_BFLOAT16 };

static inline size_t element_size(enum element type)
{
	return type == ELEMENT_BFLOAT16 ? 2 : sizeof(float);
}

/* A view of rows x cols elements; consecutive rows lie `stride` elements apart. Borrows its memory. data NULL = absent.
 * Of bfloat16 elements, data is the address alone: nobody reads it as floats. */
struct tensor {
	float *data;
	int64_t rows, cols, stride;
	enum element type;
};

/* float32 elements, row behind row. */
static inline struct tensor tensor_of(float *data, int64_t rows, int64_t cols)
{
	return (struct tensor){data, rows, cols, cols, ELEMENT_FLOAT32};
}
static inline struct tensor tensor_of_type(void *data, int64_t rows, int64_t cols, enum element type)
{
	return (struct tensor){(float *)data, rows, cols, cols, type};
}
/* Where element (row, col) of t lies. */
static inline void *tensor_at(struct tensor t, int64_t row, int64_t col)
{
	return (char *)t.data + (row * t.stride + col) * (int64_t)element_size(t.type);
}
/* Columns [first, first + cols) of t. */
static inline struct tensor tensor_columns(struct tensor t, int64_t first, int64_t cols)
{
	return (struct tensor){(float *)tensor_at(t, 0, first), t.rows, cols, t.stride, t.type};
}
/* Rows [first, first + rows) of t. */
static inline struct tensor tensor_rows(struct tensor t, int64_t first, int64_t rows)
{
	return (struct tensor){(float *)tensor_at(t, first, 0), rows, t.cols, t.stride, t.type};
}
/* Bytes from the first to the last row's end, what lies between rows included. */
static inline size_t tensor_bytes(struct tensor t)
{
	return t.rows ? (size_t)((t.rows - 1) * t.stride + t.cols) * element_size(t.type) : 0;
}
#define TENSOR_NONE ((struct tensor){NULL, 0, 0, 0, ELEMENT_FLOAT32})

/* One attention segment: queries [q_start, q_start + q_len) see all keys of the prefix [prefix_start, + prefix_len),
 * then own keys [kv_start, + kv_len): all of them, or if causal, query i sees own keys j <= i + kv_len - q_len. Key
 * rows index k and v; query rows index q and o. prefix_len may be 0. Segments of one call never share query rows; they
 * may share a prefix. */
struct segment {
	int32_t q_start, q_len, prefix_start, prefix_len, kv_start, kv_len, causal;
};
enum { ATTENTION_BLOCK = 64 };

enum activation { ACT_QUICK_GELU, ACT_GELU }; /* x sigmoid(1.702 x) | exact: x/2 (1 + erf(x / sqrt 2)) */

/* How a row of logits becomes a token. */
struct sampling {
	float temperature; /* 0 = greedy: the first of the largest logits; logp is then of softmax(logits) */
	float top_p, min_p;
	int32_t top_k; /* 0 = off */
};
/* One sampled token. Order of truncation as in transformers: temperature, top_k, top_p, min_p. top_k keeps all ties
 * with the k-th. top_p keeps the smallest set of most probable tokens whose probability sum reaches top_p (the one that
 * crosses is kept); ties in probability go to the lower id. min_p keeps tokens with p >= min_p * p_max, p after the
 * earlier truncations renormalised. The draw: first id, in ascending id order, whose cumulative probability among the
 * kept exceeds u. Sums in double, in id order. Logits that are no numbers give some token of the vocabulary, and a logp
 * that is no number. */
struct sampled {
	int32_t token;
	float logp;          /* log softmax(logits / temperature)[token]: same bits as head_logprob gives */
	float sampling_logp; /* under the truncated, renormalised distribution; equal to logp if nothing is truncated;
	                        greedy: 0 */
	float entropy;       /* of softmax(logits / temperature) */
};

/* Responses that decode together, one a slot: row i of a step is slot i's. All that changes from token to token lies in
 * backend memory (borrowed), so that steps can be queued one behind the other while the host does not know their
 * tokens. */
struct slots {
	int32_t count;
	int32_t *token;           /* [count] what the next step feeds; -1: the response has ended */
	int32_t *row;             /* [count] the cache row that it gets; -1: ended */
	int32_t *position;        /* [count] */
	int32_t *left;            /* [count] tokens that may still be sampled; 0: ended */
	uint64_t *index;          /* [count] what its draws are of (base/rng.h), with */
	uint32_t *response;       /* [count] */
	uint32_t *drawn;          /* [count] tokens sampled so far: the draw's position */
	struct segment *segments; /* [count] as the slot of that name made them; one query each */
	struct sampled *sampled;  /* [count] the newest tokens; token -1: the response had ended before */
	const int32_t *stop;      /* [stop_count] tokens that end a response */
	int32_t stop_count;
	uint64_t seed;
	uint32_t domain; /* enum rng_domain */
};

/* What is to be done for a step that is queued again and again. */
enum replay {
	REPLAY_RUN,    /* queue its ops, as ever */
	REPLAY_RECORD, /* queue its ops and call op_recorded; nothing that waits, allocates or uploads in between */
	REPLAY_DONE    /* it is queued */
};

struct adamw {
	float lr, beta1, beta2, eps;
	float max_norm; /* of the gradient: what is longer is shortened to it; 0: as long as it is */
	int64_t step;   /* 1-based, for the bias correction */
};
/* A part [first, first + count) of a block of weights, with a decay of its own. */
struct adamw_range {
	int64_t first, count;
	float weight_decay;
};

struct backend;

enum { DEVICE_ID_BYTES = 16 };

/* Shapes: T rows (tokens or patches), N outputs, K inputs, H heads, D head dimension, V vocabulary.
 *
 * Element types. What products multiply (x of linear, dy of its gradients, h of the head) is of the backend's operand
 * type (struct backend); results and inputs of other ops are float32 or of the operand type, as said below:
 *   weights and their gradients (w, dw), the residual stream and its gradient (x and dx of norms), logits: float32
 *   y, dx of products; y of norms and dy of their gradients; rope; attention; swiglu; activation; add; rows; dh of
 *   the head: either, and all of one op alike where none is named (rows and cast convert, add's c may be the other) */
struct backend_ops {
	const char *name;
	/* memory: 64-byte aligned */
	void *(*alloc)(struct backend *b, size_t bytes);
	void (*release)(struct backend *b, void *p);
	void (*upload)(struct backend *b, void *to, const void *from, size_t bytes);
	void (*download)(struct backend *b, void *to, const void *from, size_t bytes); /* waits */
	void (*zero)(struct backend *b, void *to, size_t bytes);
	void (*sync)(struct backend *b);
	/* Queues a copy to the host's memory; returns its number. `to` holds it when collect has returned for that number,
	 * which waits for what was queued before the copy alone. A copy that is never collected may never come; only the
	 * newest POSTS can be collected. */
	uint64_t (*post)(struct backend *b, void *to, const void *from, size_t bytes);
	void (*collect)(struct backend *b, uint64_t number);
	void (*set_threads)(struct backend *b, int threads); /* threads >= 1; sets b->threads */
	/* Memory of alloc's that the caller doesn't use for a while: the backend may keep its own copies of weights there, until
	 * the next call; NULL, 0: takes it back. Contents are undefined then, and until memory is lent again the backend takes none
	 * of its own for such copies. */
	void (*lend)(struct backend *b, void *memory, size_t bytes);
	/* Bytes that the backend itself takes for a model of so many weights, in `blocks` blocks of them: copies for products,
	 * working memory. For the plan. */
	int64_t (*own_bytes)(struct backend *b, int64_t weights, int blocks);
	/* Bytes of working memory that attention and its backward take for these segments (host) of `rows` query and key rows. For
	 * the plan. */
	int64_t (*attention_bytes)(struct backend *b, const struct segment *segments, int count, int64_t rows, int heads,
	                           int kv_heads, int64_t head_dim);
	/* The device's identity: two processes on one device get the same, on two devices never. Zeros: the host. */
	void (*device)(struct backend *b, unsigned char id[DEVICE_ID_BYTES]);
	/* So many processes, this one too, are on its device: each may take a share of its memory. */
	void (*share_device)(struct backend *b, int processes);
	/* Bytes that this process may take of the device's memory; 0: it is the host's. */
	int64_t (*memory_limit)(struct backend *b);
	void (*destroy)(struct backend *b);

	/* y[T,N] = x[T,K] w[N,K]^T + bias[N] (bias.data may be NULL); accumulate: y += */
	void (*linear)(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
	               int accumulate);
	/* dx[T,K] = dy[T,N] w[N,K]; accumulate: dx += */
	void (*linear_backward_input)(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w,
	                              int accumulate);
	/* dw[N,K] += dy[T,N]^T x[T,K]; dbias[N] += column sums of dy (dbias may be NULL) */
	void (*linear_backward_weight)(struct backend *b, struct tensor dw, float *dbias, struct tensor dy,
	                               struct tensor x);
	/* The weights at these addresses have changed (optimiser step, publish): forget packed copies. Weights lie in a block
	 * of their own from alloc. */
	void (*weights_changed)(struct backend *b);

	/* y = x * rstd * weight, rstd[T] = 1/sqrt(mean(x^2) + eps) */
	void (*rmsnorm)(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps);
	/* dx += ..., dweight[K] += ... (dweight may be NULL: frozen) */
	void (*rmsnorm_backward)(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
	                         const float *weight, const float *rstd);
	/* y = (x - mean) * rstd * weight + bias */
	void (*layernorm)(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x,
	                  const float *weight, const float *bias, float eps);
	void (*layernorm_backward)(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
	                           struct tensor x, const float *weight, const float *mean, const float *rstd);

	/* In place on x[T, heads*D]: halves a = x[..D/2], b = x[D/2..] of every head become a c - b s, b c + a s, with
	 * c, s = cos, sin [T, D/2]. inverse: s -> -s (the backward pass). */
	void (*rope)(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse);

	/* to = from[count] (host): segments as attention takes them, in backend memory. Once for all layers: a backend may
	 * plan its work here. True until `to` is written again or 8 other lists have been made. grows: by how much kv_len
	 * of segments with one query may grow in backend memory (advance) meanwhile. */
	void (*segments)(struct backend *b, struct segment *to, const struct segment *from, int count, int32_t grows);
	/* o[T, H*D] = softmax(scale q k^T) v by segments; H query heads, KH key heads (H % KH == 0; query head h reads key
	 * head h / (H/KH)). lse[H * T] (head-major): log sum exp of the scaled scores. Rows of o that no segment covers are
	 * left alone. segments: as the slot of that name made them. */
	void (*attention)(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
	                  int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);
	/* dq, dk, dv += ... for do_ = dL/do */
	void (*attention_backward)(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv,
	                           struct tensor do_, struct tensor o, const float *lse, struct tensor q, struct tensor k,
	                           struct tensor v, int heads, int kv_heads, float scale, const struct segment *segments,
	                           int segment_count);

	/* y = silu(gate) * up; gate and up may be columns of one tensor */
	void (*swiglu)(struct backend *b, struct tensor y, struct tensor gate, struct tensor up);
	/* dgate = ..., dup = ... (overwritten; may alias gate and up) */
	void (*swiglu_backward)(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
	                        struct tensor gate, struct tensor up);
	void (*activation)(struct backend *b, struct tensor y, struct tensor x, enum activation kind);
	/* dx = dy * f'(x) (overwritten; may alias dy) */
	void (*activation_backward)(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
	                            enum activation kind);

	/* y = x, rounded to nearest even */
	void (*cast)(struct backend *b, struct tensor y, struct tensor x);
	/* y = a + c (y may alias a or c) */
	void (*add)(struct backend *b, struct tensor y, struct tensor a, struct tensor c);
	/* y[i] = x[rows[i]]; a negative row leaves y[i] alone */
	void (*gather_rows)(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
	/* y[rows[i]] = x[i]; a negative row is skipped; rows are distinct */
	void (*scatter_rows)(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
	/* y[rows[i]] += x[i]; a negative row is skipped; rows may repeat (summed in order of i) */
	void (*scatter_rows_add)(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);

	/* Fused head: z = h w^T / temperature; logp[i] = z[target[i]] - log sum exp z; entropy[i]; lse[i]. h[T,K], w[V,K].
	 * Works in chunks: no [T, V] array for all T. entropy may be NULL. temperature > 0. */
	void (*head_logprob)(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
	                     const int32_t *target, float temperature);
	/* For g[i] = dL/dlogp[i]: dh[T,K] = ... (overwritten), dw[V,K] += ... (dw.data may be NULL) */
	void (*head_logprob_backward)(struct backend *b, struct tensor dh, struct tensor dw, const float *g,
	                              const float *lse, struct tensor h, struct tensor w, const int32_t *target,
	                              float temperature);
	/* One token per row of logits[T,V] (raw: before temperature). u[T]: uniform draws in [0,1). Results in host memory;
	 * waits. */
	void (*sample)(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
	               const struct sampling *how);

	/* Samples a token for each slot that goes on, from its row of logits[count, V], by the draw of (seed, domain,
	 * index, response, drawn). drawn is one more then, and left one less, or 0 after a stop token. A slot with any left
	 * goes on: the token is its next, row, position and its segment's kv_len are one more. Of others token and row
	 * become -1, and nothing else of them changes. Does not wait. */
	void (*advance)(struct backend *b, const struct slots *s, struct tensor logits, const struct sampling *how);

	/* A step that comes again and again with the same ops, numbers and addresses, which `key` tells from others: a
	 * backend may record what is queued from here to `recorded`, and queue it as a whole the next times. What its ops
	 * read may differ. Its attention goes by one list of segments, with one query each, which are told of anew as ever.
	 * A step that is given up half-way (not while it is recorded) has no `recorded`. */
	enum replay (*replay)(struct backend *b, const void *key, size_t bytes);
	void (*recorded)(struct backend *b);

	/* out[i] = sum of squares of x[bounds[i]] .. x[bounds[i + 1] - 1], in double, in an order that the part's length alone
	 * decides; out[parts] is backend memory, bounds[parts + 1] the host's and ascending */
	void (*sum_squares)(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts);
	/* One step over all ranges (host; of one block; none overlaps another), for which w, g, m, v are the block's.
	 * weights_changed follows. squares[1] (backend memory): |gradient|^2 of all that is clipped together; where it is not
	 * finite, nothing is stepped. c = min(1, max_norm / (sqrt(squares) + 1e-6)), as torch's clip_grad_norm_; g = c gradient;
	 * m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
	 * w -= lr * (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay * w)   (decoupled decay; as torch.optim.AdamW) */
	void (*adamw)(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
	              int count, const double *squares, const struct adamw *how);
};

/* What matrix products (linear and its gradients, the head) multiply: floats as they are, or each rounded to the
 * nearest bfloat16; sums are float32 either way, and so is all else. What torch calls autocast. Weights that are kept
 * packed take half the memory then. */
enum products { PRODUCTS_FLOAT32, PRODUCTS_BFLOAT16 };

enum { POSTS = 16, STEPS_AHEAD = 8, REPLAY_KEY_MOST = 512 /* bytes */ };

struct backend_team_ops;

struct backend {
	struct backend_ops ops;
	const struct backend_team_ops *team; /* borrowed (team.h); NULL: it has no way of its own to other processes */
	void *state; /* owned by the backend */
	int threads;
	enum products products;
	enum element operand; /* how what products multiply is stored; make such tensors by run_operand (model.h) */
	int narrow_operands;  /* with bfloat16 products operands are stored as bfloat16; else each product rounds floats */
	int steps_ahead; /* how many steps of decoding are worth being queued before the oldest one's tokens are looked at;
	                    0: it has run when its ops return */
	int in_host_memory; /* what alloc gives can be read and written by the host as it is, after sync */
	int64_t step_rows; /* while a step of decoding is queued: how many rows such steps have at most, be they fewer now; else 0.
	                      What could add in another order for other numbers of rows goes by this one */
};

/* Plain loops, one thread: what everything else is compared with. */
struct backend *backend_reference_new(void);
/* Vectorised kernels on `threads` threads (0 = all cores of the process's affinity mask). */
struct backend *backend_cpu_new(int threads);
/* 0 = all cores, as above; the reference stays at one thread. */
void backend_set_threads(struct backend *b, int threads);
/* Before the first product, or after weights_changed: packed copies are of one kind. Fixes the operand type. */
static inline void backend_set_products(struct backend *b, enum products products)
{
	b->products = products;
	b->operand = products == PRODUCTS_BFLOAT16 && b->narrow_operands ? ELEMENT_BFLOAT16 : ELEMENT_FLOAT32;
}
/* b may be NULL. Memory that was had by alloc is the caller's to release before. */
void backend_destroy(struct backend *b);

#endif
