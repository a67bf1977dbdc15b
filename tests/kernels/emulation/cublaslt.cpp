// The emulated cuBLASLt: products as plain loops, in float32 and in order of the inner dimension, so that a column of D has the same
// bits however many there are. Everything that is given is checked: types, sizes, leading dimensions, that all of every matrix
// lies in device memory, that the algorithm was made for products of this kind, and that alignments are what was said.
//
// FAVOR_EMULATED_SUMS=1: an algorithm that was asked for with more than 64 columns adds backwards, as on a GPU another one has another order;
// so does one for a B that is aligned to more than 64 bytes, and one for both forwards again.
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using namespace emulation;

namespace
{

constexpr uint64_t MAGIC = 0x6c62616c75656375; // marks what was made here

struct Layout {
	uint64_t magic;
	cudaDataType type;
	uint64_t rows, cols;
	int64_t ld;
};
struct Desc {
	uint64_t magic;
	cublasComputeType_t compute;
	cudaDataType scale, bias_type;
	bool bias_type_set;
	cublasOperation_t transa, transb;
	cublasLtEpilogue_t epilogue;
	const void *bias;
};
struct Preference {
	uint64_t magic, workspace;
	uint32_t reductions, align[4]; // A, B, C, D
};
// What an algorithm was found for: all but the number of columns of D.
struct Algorithm {
	uint64_t magic, workspace;
	uint32_t align[4];
	unsigned char types[3], transa, transb, epilogue, backwards;
};
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t) && sizeof(Desc) <= sizeof(cublasLtMatmulDescOpaque_t) &&
                  sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t) &&
                  sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t),
              "they must fit into what the toolkit has for them");

template <class T, class P> T *real(P *p, const char *what)
{
	T *t = reinterpret_cast<T *>(p);
	if (!t || t->magic != MAGIC)
		misuse("cuBLASLt: a %s that was not initialised", what);
	return t;
}

size_t size_of(cudaDataType type)
{
	return type == CUDA_R_16BF ? 2 : 4;
}

bool good_layout(const Layout &l)
{
	return (l.type == CUDA_R_32F || l.type == CUDA_R_16BF) && l.rows > 0 && l.cols > 0 && l.ld >= (int64_t)l.rows;
}

// What the toolkit's table of supported types says for CUBLAS_COMPUTE_32F with float32 scales, as far as it is used.
bool good_types(const Desc &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d)
{
	if (p.compute != CUBLAS_COMPUTE_32F || p.scale != CUDA_R_32F || a.type != b.type || c.type != d.type)
		return false;
	if (a.type == CUDA_R_32F && d.type != CUDA_R_32F)
		return false;
	return p.epilogue != CUBLASLT_EPILOGUE_BIAS || !p.bias_type_set || p.bias_type == d.type;
}

struct Sizes {
	uint64_t m, n, k;
};

bool good_sizes(const Desc &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d, Sizes *s)
{
	const bool ta = p.transa == CUBLAS_OP_T, tb = p.transb == CUBLAS_OP_T;
	*s = {ta ? a.cols : a.rows, tb ? b.rows : b.cols, ta ? a.rows : a.cols};
	return good_layout(a) && good_layout(b) && good_layout(c) && good_layout(d) && (tb ? b.cols : b.rows) == s->k &&
	       d.rows == s->m && d.cols == s->n && c.rows == s->m && c.cols == s->n;
}

Algorithm algorithm_for(const Desc &p, const Layout &a, const Layout &b, const Layout &d)
{
	Algorithm x = {};
	x.magic = MAGIC;
	x.types[0] = (unsigned char)a.type;
	x.types[1] = (unsigned char)b.type;
	x.types[2] = (unsigned char)d.type;
	x.transa = (unsigned char)p.transa;
	x.transb = (unsigned char)p.transb;
	x.epilogue = (unsigned char)p.epilogue;
	return x;
}

void check_matrix(const char *name, const void *p, const Layout &l, uint32_t alignment)
{
	const size_t bytes = ((l.cols - 1) * (size_t)l.ld + l.rows) * size_of(l.type);
	if (!in_device_memory(p, bytes))
		misuse("cuBLASLt: %s [%llu x %llu, leading dimension %lld] at %p does not lie in one block of device memory", name,
		       (unsigned long long)l.rows, (unsigned long long)l.cols, (long long)l.ld, p);
	if ((uintptr_t)p % alignment)
		misuse("cuBLASLt: %s at %p has not the alignment of %u bytes that the algorithm was asked for", name, p, alignment);
}

// rows x cols without gaps, as floats; transposed: element (i, j) is (j, i) of what lies there
std::vector<float> floats_of(const void *p, const Layout &l, bool transposed)
{
	std::vector<float> x(l.rows * l.cols);
	for (uint64_t j = 0; j < l.cols; j++)
		for (uint64_t i = 0; i < l.rows; i++) {
			const size_t at = j * (size_t)l.ld + i;
			float v;
			if (l.type == CUDA_R_16BF)
				v = __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[at]);
			else
				v = static_cast<const float *>(p)[at];
			x[transposed ? i * l.cols + j : j * l.rows + i] = v;
		}
	return x;
}

} // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
	*handle = (cublasLtHandle_t)calloc(1, 1);
	return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
	free(handle);
	return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void)
{
	return 130000;
}
const char *cublasLtGetStatusString(cublasStatus_t status)
{
	switch (status) {
	case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
	case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
	case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
	case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
	}
	return "unknown";
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute, cudaDataType_t scale)
{
	*reinterpret_cast<Desc *>(desc) =
		Desc{MAGIC, compute, scale, CUDA_R_32F, false, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
	Desc *p = real<Desc>(desc, "description of a product");
	void *to = nullptr;
	size_t want = 4;
	switch (attribute) {
	case CUBLASLT_MATMUL_DESC_TRANSA: to = &p->transa; break;
	case CUBLASLT_MATMUL_DESC_TRANSB: to = &p->transb; break;
	case CUBLASLT_MATMUL_DESC_EPILOGUE: to = &p->epilogue; break;
	case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
		to = &p->bias_type;
		p->bias_type_set = true;
		break;
	case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
		to = &p->bias;
		want = sizeof p->bias;
		break;
	}
	if (!to || bytes != want)
		return CUBLAS_STATUS_INVALID_VALUE;
	memcpy(to, value, bytes);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, uint64_t rows, uint64_t cols,
                                        int64_t ld)
{
	*reinterpret_cast<Layout *>(layout) = Layout{MAGIC, type, rows, cols, ld};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference)
{
	*reinterpret_cast<Preference *>(preference) =
		Preference{MAGIC, 0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes)
{
	Preference *p = real<Preference>(preference, "preference");
	if (bytes != (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4))
		return CUBLAS_STATUS_INVALID_VALUE;
	switch (attribute) {
	case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: memcpy(&p->workspace, value, bytes); break;
	case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: memcpy(&p->reductions, value, bytes); break;
	default: memcpy(&p->align[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
	}
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
	const Desc &p = *real<Desc>(desc, "description of a product");
	const Layout &la = *real<Layout>(a, "layout"), &lb = *real<Layout>(b, "layout"), &lc = *real<Layout>(c, "layout"),
	             &ld = *real<Layout>(d, "layout");
	const Preference &preferred = *real<Preference>(preference, "preference");
	Sizes s;
	*count = 0;
	not_recording("cuBLASLt: a choice of an algorithm");
	if (!good_sizes(p, la, lb, lc, ld, &s) || wanted < 1)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (preferred.reductions != CUBLASLT_REDUCTION_SCHEME_NONE)
		misuse("cuBLASLt: an algorithm that may split the inner dimension");
	if (!good_types(p, la, lb, lc, ld))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	Algorithm x = algorithm_for(p, la, lb, ld);
	memcpy(x.align, preferred.align, sizeof x.align);
	x.workspace = preferred.workspace;
	x.backwards = (s.n > 64) != (preferred.align[1] > 64) && number("FAVOR_EMULATED_SUMS", 0);
	memset(&results[0], 0, sizeof results[0]);
	memcpy(&results[0].algo, &x, sizeof x);
	*count = 1;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
	const Desc &p = *real<Desc>(desc, "description of a product");
	const Layout &la = *real<Layout>(a_layout, "layout"), &lb = *real<Layout>(b_layout, "layout"),
	             &lc = *real<Layout>(c_layout, "layout"), &ld = *real<Layout>(d_layout, "layout");
	const Algorithm &x = *real<const Algorithm>(algo, "algorithm");
	const Algorithm need = algorithm_for(p, la, lb, ld);
	Sizes s;
	if (!good_sizes(p, la, lb, lc, ld, &s) || !stream)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (memcmp(x.types, need.types, sizeof x.types) || x.transa != need.transa || x.transb != need.transb ||
	    x.epilogue != need.epilogue)
		misuse("cuBLASLt: an algorithm that was found for another kind of product");
	if (!good_types(p, la, lb, lc, ld))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	if (!in_device_memory(workspace, workspace_bytes) || (uintptr_t)workspace % 256 || workspace_bytes < x.workspace)
		misuse("cuBLASLt: the workspace does not lie in device memory, is not aligned to 256 bytes, or has less than the algorithm takes");
	check_matrix("A", a, la, x.align[0]);
	check_matrix("B", b, lb, x.align[1]);
	check_matrix("C", c, lc, x.align[2]);
	check_matrix("D", d, ld, x.align[3]);
	const bool bias = p.epilogue == CUBLASLT_EPILOGUE_BIAS;
	const cudaDataType bias_type = p.bias_type_set ? p.bias_type : ld.type;
	if (bias && !in_device_memory(p.bias, s.m * size_of(bias_type)))
		misuse("cuBLASLt: the bias does not lie in device memory");
	if (bias && (uintptr_t)p.bias % (x.align[3] < 16 ? x.align[3] : 16))
		misuse("cuBLASLt: the bias has not the alignment that D was said to have");

	if (recording(stream)) {
		// as the real one, it reads all that it is given now, but for what lies in device memory
		const void *const pointers[] = {a, b, c, d, workspace, bias ? p.bias : nullptr};
		record("a product", pointers, 6,
		       [=, desc = *desc, a_layout = *a_layout, b_layout = *b_layout, c_layout = *c_layout, d_layout = *d_layout, algo = *algo,
		        alpha = *static_cast<const float *>(alpha), beta = *static_cast<const float *>(beta)]() mutable {
			       return (int)cublasLtMatmul(handle, &desc, &alpha, a, &a_layout, b, &b_layout, &beta, c, &c_layout, d, &d_layout, &algo,
			                                  workspace, workspace_bytes, stream);
		       });
		return CUBLAS_STATUS_SUCCESS;
	}
	finish_copies();

	const float scale = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
	// inner dimension first in A, column by column in B: D's columns are then sums of rows of A', in order of k
	const std::vector<float> rows = floats_of(a, la, p.transa == CUBLAS_OP_T),
	                         cols = floats_of(b, lb, p.transb == CUBLAS_OP_T);
	std::vector<float> sum(s.m);
	for (uint64_t j = 0; j < s.n; j++) {
		for (uint64_t i = 0; i < s.m; i++)
			sum[i] = 0;
		for (uint64_t step = 0; step < s.k; step++) {
			const uint64_t k = x.backwards ? s.k - 1 - step : step;
			const float factor = cols[j * s.k + k];
			const float *row = &rows[k * s.m];
			for (uint64_t i = 0; i < s.m; i++)
				sum[i] += row[i] * factor;
		}
		for (uint64_t i = 0; i < s.m; i++) {
			const size_t at = j * (size_t)ld.ld + i, c_at = j * (size_t)lc.ld + i;
			float y = scale * sum[i];
			if (keep != 0)
				y += keep * (lc.type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(c)[c_at])
				                                    : static_cast<const float *>(c)[c_at]);
			if (bias)
				y += bias_type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(p.bias)[i])
				                              : static_cast<const float *>(p.bias)[i];
			if (ld.type == CUDA_R_16BF)
				static_cast<__nv_bfloat16 *>(d)[at] = __float2bfloat16_rn(y);
			else
				static_cast<float *>(d)[at] = y;
		}
	}
	return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
