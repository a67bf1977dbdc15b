/* Matrix products by cuBLASLt. Rows of ours are columns of its column-major matrices: y = x w^T is y' = w x' there.
 *
 *   linear           y[T,N]  = x[T,K] w[N,K]^T + bias     D (N x T) = w (K x N) transposed, x (K x T)
 *   backward input   dx[T,K] = dy[T,N] w[N,K]             D (K x T) = w (K x N),            dy (N x T)
 *   backward weight  dw[N,K] += dy[T,N]^T x[T,K]          D (K x N) = x (K x T),            dy (N x T) transposed
 *
 * Operands float32: exact float32 products (no TF32); bfloat16: tensor cores; sums are float32 either way.
 *
 * Which algorithm. cuBLASLt is asked once for each kind of product, and the answer kept: for one kind the same
 * instructions run each time. A kind has sizes, strides, types and alignments (none counts for more than what an arena gives
 * to all: more is chance, and another one with other numbers of rows), but of the number of rows only whether it is at most
 * ROWS_FEW or more (prefill, training): asked for ROWS_FEW or ROWS_MANY rows. How many responses decode in a step is a matter
 * of which have ended and of when groups came, so all steps that may have up to as many are of one kind: the power of two
 * that these fit. Algorithms that split the inner dimension are forbidden, so that within a kind a row's result does not
 * depend on how many rows there are. (If the answer can't do the rows at hand, it is asked for these alone.) The inner
 * dimension of the weights' gradient is the rows: there the kind has the next power of two. */
#include "backend/cuda/state.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_FEW = 64, ROWS_MANY = 2048, WORKSPACE_BYTES = 32 << 20, ANSWERS = 8, BUCKETS = 512, ALIGNMENT_MOST = 64 };

/* What an algorithm is chosen by. Compared by bytes: no padding. */
struct kind {
	int64_t m, n, k, lda, ldb, ldd; /* n, or of the weights' gradient k, is nominal; or as it is */
	int32_t transa, transb, narrow, narrow_d, bias, accumulate;
	uint32_t align_a, align_b, align_d, align_bias;
};

struct choice {
	struct choice *next; /* in its bucket */
	struct kind kind;
	cublasLtMatmulAlgo_t algorithm;
};

struct cuda_products {
	cublasLtHandle_t handle;
	void *workspace;
	struct choice *buckets[BUCKETS];
};

/* One product: D (m x n) = A B (+ D, + bias), column-major. */
struct product {
	const void *a, *b, *bias;
	void *d;
	int64_t m, n, k, lda, ldb, ldd;
	int transa, transb, narrow, narrow_d, accumulate;
	int64_t nominal_n, nominal_k;
};

struct descriptors {
	cublasLtMatmulDescOpaque_t product;
	cublasLtMatrixLayoutOpaque_t a, b, d;
};

static void check(const struct cuda_state *s, cublasStatus_t code, const char *call, const struct product *p)
{
	if (code != CUBLAS_STATUS_SUCCESS)
		s->host.die("cuBLASLt: %s on GPU %d (%s): %s, for a product of %lld x %lld, inner dimension %lld, strides %lld, %lld, "
		            "%lld, %s", call, s->device, s->name, cublasLtGetStatusString(code), (long long)p->m, (long long)p->n,
		            (long long)p->k, (long long)p->lda, (long long)p->ldb, (long long)p->ldd,
		            p->narrow ? "bfloat16" : "float32");
}
#define LT(call) check(s, call, #call, p)

struct cuda_products *cuda_products_new(struct cuda_state *s)
{
	struct cuda_products *c = calloc(1, sizeof *c);
	if (!c)
		s->host.die("out of memory: no room for the table of products");
	const cublasStatus_t code = cublasLtCreate(&c->handle);
	if (code != CUBLAS_STATUS_SUCCESS)
		s->host.die("cuBLASLt: cublasLtCreate on GPU %d (%s): %s", s->device, s->name, cublasLtGetStatusString(code));
	CUDA(s, cudaMalloc(&c->workspace, WORKSPACE_BYTES));
	return c;
}

void cuda_products_destroy(struct cuda_state *s, struct cuda_products *c)
{
	for (int i = 0; i < BUCKETS; i++)
		while (c->buckets[i]) {
			struct choice *first = c->buckets[i];
			c->buckets[i] = first->next;
			free(first);
		}
	CUDA(s, cudaFree(c->workspace));
	cublasLtDestroy(c->handle);
	free(c);
}

static uint32_t alignment(const void *p)
{
	uint32_t a = ALIGNMENT_MOST;
	while ((uintptr_t)p % a)
		a /= 2;
	return a;
}

static struct kind kind_of(const struct product *p, int64_t n, int64_t k)
{
	struct kind kind;
	memset(&kind, 0, sizeof kind);
	kind = (struct kind){p->m, n, k, p->lda, p->ldb, p->ldd, p->transa, p->transb, p->narrow, p->narrow_d,
	                     p->bias != NULL, p->accumulate, alignment(p->a), alignment(p->b), alignment(p->d),
	                     alignment(p->bias)};
	return kind;
}

/* For n columns and inner dimension k. */
static void describe(struct cuda_state *s, const struct product *p, int64_t n, int64_t k, struct descriptors *d)
{
	const cudaDataType_t operand = p->narrow ? CUDA_R_16BF : CUDA_R_32F, result = p->narrow_d ? CUDA_R_16BF : CUDA_R_32F;
	const cublasOperation_t transa = p->transa ? CUBLAS_OP_T : CUBLAS_OP_N, transb = p->transb ? CUBLAS_OP_T : CUBLAS_OP_N;
	LT(cublasLtMatmulDescInit(&d->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
	LT(cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSA, &transa, sizeof transa));
	LT(cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_TRANSB, &transb, sizeof transb));
	if (p->bias) {
		/* of D's type: the only one that cuBLASLt takes with a bfloat16 result */
		const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
		LT(cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
		LT(cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
		LT(cublasLtMatmulDescSetAttribute(&d->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &result, sizeof result));
	}
	LT(cublasLtMatrixLayoutInit(&d->a, operand, (uint64_t)(p->transa ? k : p->m), (uint64_t)(p->transa ? p->m : k), p->lda));
	LT(cublasLtMatrixLayoutInit(&d->b, operand, (uint64_t)(p->transb ? n : k), (uint64_t)(p->transb ? k : n), p->ldb));
	LT(cublasLtMatrixLayoutInit(&d->d, result, (uint64_t)p->m, (uint64_t)n, p->ldd));
}

/* Asks cuBLASLt. 0 if it knows none. */
static int choose(struct cuda_state *s, const struct product *p, const struct kind *kind, cublasLtMatmulAlgo_t *algorithm)
{
	struct descriptors d;
	cublasLtMatmulPreferenceOpaque_t preference;
	cublasLtMatmulHeuristicResult_t answers[ANSWERS];
	const uint64_t workspace = WORKSPACE_BYTES;
	const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
	/* a bias is read as wide as D is written */
	const uint32_t align_d = kind->bias && kind->align_bias < kind->align_d ? kind->align_bias : kind->align_d;
	int count = 0;
	describe(s, p, kind->n, kind->k, &d);
	LT(cublasLtMatmulPreferenceInit(&preference));
#define PREFER(what, value) LT(cublasLtMatmulPreferenceSetAttribute(&preference, what, &value, sizeof value))
	PREFER(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
	PREFER(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
	PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kind->align_a);
	PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kind->align_b);
	PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_d);
	PREFER(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_d);
#undef PREFER
	const cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(s->products->handle, &d.product, &d.a, &d.b, &d.d, &d.d,
	                                                           &preference, ANSWERS, answers, &count);
	for (int i = 0; code == CUBLAS_STATUS_SUCCESS && i < count; i++)
		if (answers[i].state == CUBLAS_STATUS_SUCCESS) {
			*algorithm = answers[i].algo;
			return 1;
		}
	return 0;
}

/* The algorithm for that kind; NULL if there is none. */
static const cublasLtMatmulAlgo_t *find(struct cuda_state *s, const struct product *p, int64_t n, int64_t k)
{
	const struct kind kind = kind_of(p, n, k);
	uint64_t hash = 14695981039346656037u;
	for (size_t i = 0; i < sizeof kind; i++)
		hash = (hash ^ ((const unsigned char *)&kind)[i]) * 1099511628211u;
	struct choice **bucket = &s->products->buckets[hash % BUCKETS];
	for (struct choice *c = *bucket; c; c = c->next)
		if (!memcmp(&c->kind, &kind, sizeof kind))
			return &c->algorithm;
	cublasLtMatmulAlgo_t algorithm;
	if (!choose(s, p, &kind, &algorithm))
		return NULL;
	struct choice *c = malloc(sizeof *c);
	if (!c)
		s->host.die("out of memory: no room for a product's algorithm");
	*c = (struct choice){*bucket, kind, algorithm};
	*bucket = c;
	return &c->algorithm;
}

static cublasStatus_t run_with(struct cuda_state *s, const struct product *p, struct descriptors *d,
                               const cublasLtMatmulAlgo_t *algorithm)
{
	const float one = 1, beta = p->accumulate ? 1.0f : 0.0f;
	return cublasLtMatmul(s->products->handle, &d->product, &one, p->a, &d->a, p->b, &d->b, &beta, p->d, &d->d, p->d, &d->d,
	                      algorithm, s->products->workspace, WORKSPACE_BYTES, s->stream);
}

static void run(struct cuda_state *s, const struct product *p)
{
	struct descriptors d;
	describe(s, p, p->n, p->k, &d);
	const cublasLtMatmulAlgo_t *algorithm = find(s, p, p->nominal_n, p->nominal_k);
	cublasStatus_t code = algorithm ? run_with(s, p, &d, algorithm) : CUBLAS_STATUS_NOT_SUPPORTED;
	if (code == CUBLAS_STATUS_NOT_SUPPORTED || code == CUBLAS_STATUS_INVALID_VALUE) {
		algorithm = find(s, p, p->n, p->k);
		code = algorithm ? run_with(s, p, &d, algorithm) : CUBLAS_STATUS_NOT_SUPPORTED;
	}
	check(s, code, "cublasLtMatmul", p);
}

static int64_t power_of_two(int64_t rows)
{
	int64_t n = ROWS_FEW;
	while (n < rows)
		n *= 2;
	return n;
}

static int64_t nominal_rows(const struct backend *b, int64_t rows)
{
	if (rows <= b->step_rows)
		return power_of_two(b->step_rows);
	return rows <= ROWS_FEW ? ROWS_FEW : ROWS_MANY;
}

/* A weight, or a bias, as products take it. */
static const void *weight_of(struct backend *b, const float *w)
{
	return b->operand == ELEMENT_BFLOAT16 ? cuda_narrow(cuda_of(b), w) : w;
}

void cuda_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                 int accumulate)
{
	struct cuda_state *s = cuda_of(b);
	const int narrow_y = y.type == ELEMENT_BFLOAT16;
	const struct product p = {.a = weight_of(b, w.data),
	                          .b = x.data,
	                          .bias = !bias ? NULL : narrow_y ? weight_of(b, bias) : bias,
	                          .d = y.data,
	                          .m = w.rows,
	                          .n = x.rows,
	                          .k = x.cols,
	                          .lda = w.stride,
	                          .ldb = x.stride,
	                          .ldd = y.stride,
	                          .transa = 1,
	                          .narrow = x.type == ELEMENT_BFLOAT16,
	                          .narrow_d = narrow_y,
	                          .accumulate = accumulate != 0,
	                          .nominal_n = nominal_rows(b, x.rows),
	                          .nominal_k = x.cols};
	run(s, &p);
}

void cuda_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate)
{
	const struct product p = {.a = weight_of(b, w.data),
	                          .b = dy.data,
	                          .d = dx.data,
	                          .m = w.cols,
	                          .n = dy.rows,
	                          .k = dy.cols,
	                          .lda = w.stride,
	                          .ldb = dy.stride,
	                          .ldd = dx.stride,
	                          .narrow = dy.type == ELEMENT_BFLOAT16,
	                          .narrow_d = dx.type == ELEMENT_BFLOAT16,
	                          .accumulate = accumulate != 0,
	                          .nominal_n = nominal_rows(b, dy.rows),
	                          .nominal_k = dy.cols};
	run(cuda_of(b), &p);
}

void cuda_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x)
{
	struct cuda_state *s = cuda_of(b);
	const struct product p = {.a = x.data,
	                          .b = dy.data,
	                          .d = dw.data,
	                          .m = dw.cols,
	                          .n = dw.rows,
	                          .k = x.rows,
	                          .lda = x.stride,
	                          .ldb = dy.stride,
	                          .ldd = dw.stride,
	                          .transb = 1,
	                          .narrow = x.type == ELEMENT_BFLOAT16,
	                          .accumulate = 1,
	                          .nominal_n = dw.rows,
	                          .nominal_k = power_of_two(x.rows)};
	run(s, &p);
	if (!dbias)
		return;
	float *scratch = cuda_scratch(s, (size_t)kernel_bias_gradient_scratch(dy.rows, dy.cols) * sizeof *scratch);
	KERNEL(s, kernel_bias_gradient(dbias, dy.data, dy.stride, kernel_type_of(dy), scratch, dy.rows, dy.cols, s->stream));
}
