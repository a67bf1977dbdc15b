/* What the CUDA backend owns between calls, and how its files tell of errors. Behind struct backend's `state`. */
#ifndef FAVOR_BACKEND_CUDA_STATE_H
#define FAVOR_BACKEND_CUDA_STATE_H

#include "backend/cuda/library.h"
#include "kernels/kernels.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

/* One allocation. Products take weights as bfloat16 from a copy of the block that they lie in. */
struct cuda_block {
	char *base;
	size_t bytes;
	void *narrow;  /* owned: the block's floats as bfloat16; NULL until a product asks for them */
	int fresh;     /* narrow is true */
	int followed;  /* since the last weights_changed the optimiser has written narrow too */
};

/* Uploads go through page-locked host memory, in turns: the caller's memory is free again on return, and nothing waits for
 * the GPU unless all slots are under way. Large downloads take the same way back. */
enum { UPLOAD_SLOTS = 32, UPLOAD_BYTES = 256 << 10 };

struct cuda_uploads {
	char *memory; /* page-locked; UPLOAD_SLOTS * UPLOAD_BYTES */
	cudaEvent_t done[UPLOAD_SLOTS];
	uint64_t next; /* uploads so far */
};

struct cuda_products;  /* products.c */
struct cuda_attention; /* attention.c */
struct cuda_decode;    /* decode.c */

struct cuda_state {
	struct cuda_host host;
	int device;                 /* GPU */
	char name[256];             /* of the GPU, for messages */
	unsigned char uuid[DEVICE_ID_BYTES]; /* of the GPU */
	size_t memory, limit; /* bytes that the GPU has; of them, what this process may take */
	cudaStream_t stream;
	struct cuda_block *blocks; /* sorted by address; owned */
	int block_count, block_room;
	struct cuda_uploads uploads;
	void *results; /* page-locked: small results on their way to the host; UPLOAD_BYTES */
	void *scratch; /* of one op at a time; grows */
	size_t scratch_bytes;
	float *logits;  /* a chunk of rows of the head (head.c); grows to HEAD_BYTES */
	void *dlogits;  /* their gradient, as an operand */
	size_t logits_bytes, dlogits_bytes;
	struct kernel_adamw_tensor *steps; /* host: the optimiser's ranges, for one step at a time; owned, grows */
	int steps_room;
	struct cuda_products *products;
	struct cuda_attention *attention;
	struct cuda_decode *decode;
	uint64_t given_back; /* counts device memory that was given back: what was recorded before may point there */
	int recording;       /* what is queued now is recorded, and runs later */
};

static inline struct cuda_state *cuda_of(const struct backend *b)
{
	return b->state;
}

/* A runtime call's code: anything but success ends the job, naming call, place and GPU. */
void cuda_check(const struct cuda_state *s, cudaError_t code, const char *call, const char *file, int line);
#define CUDA(s, call) cuda_check(s, call, #call, __FILE__, __LINE__)
/* The same for a launcher of kernels.h. */
void cuda_check_kernel(const struct cuda_state *s, int code, const char *call, const char *file, int line);
#define KERNEL(s, call) cuda_check_kernel(s, call, #call, __FILE__, __LINE__)

static inline enum kernel_type kernel_type_of(struct tensor t)
{
	return t.type == ELEMENT_BFLOAT16 ? KERNEL_BF16 : KERNEL_F32;
}

/* memory.c: slots of the table, and what other files need of memory. */
void *cuda_alloc(struct backend *b, size_t bytes);
void cuda_release(struct backend *b, void *p);
void cuda_upload(struct backend *b, void *to, const void *from, size_t bytes);
void cuda_download(struct backend *b, void *to, const void *from, size_t bytes);
void cuda_zero(struct backend *b, void *to, size_t bytes);
void cuda_sync(struct backend *b);
void cuda_weights_changed(struct backend *b);
int64_t cuda_own_bytes(struct backend *b, int64_t weights, int blocks);
void cuda_device(struct backend *b, unsigned char id[DEVICE_ID_BYTES]);
void cuda_share_device(struct backend *b, int processes);
int64_t cuda_memory_limit(struct backend *b);
void cuda_memory_init(struct cuda_state *s);
void cuda_memory_end(struct cuda_state *s);
/* At least `bytes` of memory for the length of one op, 256-byte aligned. The next call of it may move it. */
void *cuda_scratch(struct cuda_state *s, size_t bytes);
/* *p, grown to at least `bytes`; contents are lost. */
void cuda_grow(struct cuda_state *s, void **p, size_t *have, size_t bytes);
/* The bfloat16 of a weight that lies in a block from cuda_alloc; made at first use and when the block has changed. */
const void *cuda_narrow(struct cuda_state *s, const float *weight);
/* Who else than ops writes weights at p says so: their block's copy is no longer true. */
void cuda_written(struct cuda_state *s, const void *p);
/* Makes all copies true that are not. */
void cuda_freshen(struct cuda_state *s);
/* Where the optimiser shall write the bfloat16 of weights [w, w + n) as well; NULL: nowhere. */
void *cuda_narrow_to_write(struct cuda_state *s, const float *w, int64_t n);

/* products.c */
struct cuda_products *cuda_products_new(struct cuda_state *s);
void cuda_products_destroy(struct cuda_state *s, struct cuda_products *p);
void cuda_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                 int accumulate);
void cuda_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w,
                                int accumulate);
void cuda_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x);

/* layers.c */
void cuda_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps);
void cuda_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                           const float *weight, const float *rstd);
void cuda_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight,
                    const float *bias, float eps);
void cuda_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                             struct tensor x, const float *weight, const float *mean, const float *rstd);
void cuda_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse);
void cuda_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up);
void cuda_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                          struct tensor gate, struct tensor up);
void cuda_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind);
void cuda_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                              enum activation kind);
void cuda_cast(struct backend *b, struct tensor y, struct tensor x);
void cuda_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c);
void cuda_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void cuda_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);
void cuda_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows);

/* attention.c */
struct cuda_attention *cuda_attention_new(struct cuda_state *s);
void cuda_attention_destroy(struct cuda_state *s, struct cuda_attention *t);
int64_t cuda_attention_bytes(struct backend *b, const struct segment *segments, int count, int64_t rows, int heads,
                             int kv_heads, int64_t head_dim);
void cuda_segments(struct backend *b, struct segment *to, const struct segment *from, int count, int32_t grows);
/* What a recorded step's attention was launched with: whether a launch of now would be the same. Sees to it that the
 * plan is there. */
struct cuda_attends {
	const void *segments;
	int count;
	struct kernel_attention a;
	int32_t items, partials;
};
int cuda_attention_serves(struct backend *b, const struct cuda_attends *as);
void cuda_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                    int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);
void cuda_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                             struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                             int heads, int kv_heads, float scale, const struct segment *segments, int segment_count);

/* head.c */
enum { HEAD_BYTES = FAVOR_CUDA_EMULATED ? 64 << 10 : 128 << 20 }; /* of logits at a time; few in tests, for several chunks */
void cuda_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w,
                       const int32_t *target, float temperature);
void cuda_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse,
                                struct tensor h, struct tensor w, const int32_t *target, float temperature);
void cuda_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                 const struct sampling *how);

/* decode.c */
struct cuda_decode *cuda_decode_new(struct cuda_state *s, int graphs);
void cuda_decode_destroy(struct cuda_state *s, struct cuda_decode *d);
uint64_t cuda_post(struct backend *b, void *to, const void *from, size_t bytes);
void cuda_collect(struct backend *b, uint64_t number);
void cuda_advance(struct backend *b, const struct slots *slots, struct tensor logits, const struct sampling *how);
enum replay cuda_replay(struct backend *b, const void *key, size_t bytes);
void cuda_recorded(struct backend *b);
/* The step that is queued now has attention of this kind: one for all its layers. */
void cuda_step_attends(struct cuda_state *s, const struct cuda_attends *attends);
/* Ends the job if a step is being recorded: `what` can't be in one. */
void cuda_not_recording(const struct cuda_state *s, const char *what);

/* optimizer.c */
void cuda_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts);
void cuda_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges, int count,
               const double *squares, const struct adamw *how);

/* team.c; without_nccl.c where the build had no nccl.h: NULL then */
const struct backend_team_ops *cuda_team_ops(void);

#endif
