/* The emulated CUDA runtime and cuBLASLt: graphs replay what was recorded, and each rule that the emulation is stricter by
 * ends the program that breaks it. Only here: a GPU's driver has other ways to say so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../kernels/kernels.h"
#include "../apart.h"
#include "emulation/cublasLt.h"

enum { N = 64 };

static struct {
	cudaStream_t stream, other;
	float *a, *b, *locked; /* N floats each: device, device, page-locked */
	void *workspace;
	cublasLtHandle_t handle;
} t;

static void want(int code)
{
	assert_int_equal(code, 0);
}

static int set_up(void **state)
{
	(void)state;
	want(cudaSetDevice(0));
	want(cudaStreamCreateWithFlags(&t.stream, cudaStreamNonBlocking));
	want(cudaStreamCreateWithFlags(&t.other, cudaStreamNonBlocking));
	want(cudaMalloc((void **)&t.a, N * sizeof *t.a));
	want(cudaMalloc((void **)&t.b, N * sizeof *t.b));
	want(cudaMalloc(&t.workspace, 1024));
	want(cudaHostAlloc((void **)&t.locked, N * sizeof *t.locked, cudaHostAllocDefault));
	want((int)cublasLtCreate(&t.handle));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	want((int)cublasLtDestroy(t.handle));
	want(cudaFreeHost(t.locked));
	want(cudaFree(t.workspace));
	want(cudaFree(t.b));
	want(cudaFree(t.a));
	want(cudaStreamDestroy(t.other));
	want(cudaStreamDestroy(t.stream));
	return 0;
}

static void begin(void)
{
	want(cudaStreamBeginCapture(t.stream, cudaStreamCaptureModeThreadLocal));
}

static cudaGraphExec_t end(void)
{
	cudaGraph_t graph;
	cudaGraphExec_t exec;
	want(cudaStreamEndCapture(t.stream, &graph));
	want(cudaGraphInstantiateWithFlags(&exec, graph, 0));
	want(cudaGraphDestroy(graph));
	return exec;
}

static void fill(float *x, float value)
{
	want(kernel_fill(x, N, KERNEL_F32, value, 1, N, t.stream));
}

static void copy(void *to, const void *from, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	want(cudaMemcpyAsync(to, from, N * sizeof(float), kind, stream));
}

/* ---- products: D (4 x 4) = A (4 x 4) B (4 x 4), all in one block each */

struct product {
	cublasLtMatmulDescOpaque_t desc;
	cublasLtMatrixLayoutOpaque_t a, b, d;
	cublasLtMatmulPreferenceOpaque_t preference;
	cublasLtMatmulHeuristicResult_t found;
};

static void prepare(struct product *p, int64_t ld, uint32_t reductions)
{
	const uint64_t workspace = 1024;
	const uint32_t alignment = 16;
	want((int)cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
	want((int)cublasLtMatrixLayoutInit(&p->a, CUDA_R_32F, 4, 4, ld));
	want((int)cublasLtMatrixLayoutInit(&p->b, CUDA_R_32F, 4, 4, 4));
	want((int)cublasLtMatrixLayoutInit(&p->d, CUDA_R_32F, 4, 4, 4));
	want((int)cublasLtMatmulPreferenceInit(&p->preference));
	want((int)cublasLtMatmulPreferenceSetAttribute(&p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
	want((int)cublasLtMatmulPreferenceSetAttribute(&p->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions));
	for (int m = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES; m <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; m++)
		want((int)cublasLtMatmulPreferenceSetAttribute(&p->preference, (cublasLtMatmulPreferenceAttributes_t)m, &alignment, sizeof alignment));
}

static void choose(struct product *p)
{
	int count;
	want((int)cublasLtMatmulAlgoGetHeuristic(t.handle, &p->desc, &p->a, &p->b, &p->d, &p->d, &p->preference, 1, &p->found, &count));
	assert_int_equal(count, 1);
}

static void multiply_in(struct product *p, const float *a, void *workspace, size_t bytes)
{
	const float one = 1, zero = 0;
	want((int)cublasLtMatmul(t.handle, &p->desc, &one, a, &p->a, t.b, &p->b, &zero, t.b + 32, &p->d, t.b + 32, &p->d,
	                         &p->found.algo, workspace, bytes, t.stream));
}

static void multiply(const float *a, int64_t ld)
{
	struct product p;
	prepare(&p, ld, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	multiply_in(&p, a, t.workspace, 1024);
}

/* ---- what a graph does */

static void test_replay(void **state)
{
	(void)state;
	struct product p;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	begin();
	copy(t.a, t.locked, cudaMemcpyHostToDevice, t.stream);
	fill(t.b, 2);
	multiply_in(&p, t.a, t.workspace, 1024);
	copy(t.locked, t.b, cudaMemcpyDeviceToHost, t.stream);
	cudaGraphExec_t exec = end();
	fill(t.b, 7);
	for (int turn = 1; turn <= 3; turn++) {
		for (int i = 0; i < N; i++)
			t.locked[i] = (float)turn;
		want(cudaGraphLaunch(exec, t.stream));
		want(cudaStreamSynchronize(t.stream));
		assert_true(t.locked[0] == 2 && t.locked[31] == 2 && t.locked[63] == 2);
		for (int i = 32; i < 48; i++)
			assert_true(t.locked[i] == (float)(4 * 2 * turn)); /* what was copied in at this launch */
	}
	want(cudaGraphExecDestroy(exec));
}

static void test_nothing_runs_while_captured(void **state)
{
	(void)state;
	fill(t.a, 1);
	want(cudaStreamSynchronize(t.stream));
	begin();
	fill(t.a, 5);
	want(cudaMemsetAsync(t.a, 0, 4, t.stream));
	cudaGraphExec_t exec = end();
	copy(t.locked, t.a, cudaMemcpyDeviceToHost, t.stream);
	want(cudaStreamSynchronize(t.stream));
	assert_true(t.locked[0] == 1 && t.locked[1] == 1);
	want(cudaGraphLaunch(exec, t.stream));
	copy(t.locked, t.a, cudaMemcpyDeviceToHost, t.stream);
	want(cudaStreamSynchronize(t.stream));
	assert_true(t.locked[0] == 0 && t.locked[1] == 5);
	want(cudaGraphExecDestroy(exec));
}

/* ---- rules: each breaks one */

static void allocates(void)
{
	void *p;
	begin();
	cudaMalloc(&p, 4);
}
static void frees(void)
{
	begin();
	cudaFree(t.a);
}
static void waits(void)
{
	begin();
	cudaStreamSynchronize(t.stream);
}
static void captures_twice(void)
{
	begin();
	begin();
}
static void launches_inside(void)
{
	begin();
	fill(t.a, 1);
	cudaGraphExec_t exec = end();
	begin();
	cudaGraphLaunch(exec, t.stream);
}
static void records_an_event(void)
{
	cudaEvent_t event;
	cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
	begin();
	cudaEventRecord(event, t.stream);
}
static void asks(void)
{
	cudaEvent_t event;
	cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
	cudaEventRecord(event, t.stream);
	begin();
	cudaEventQuery(event);
}
static void waits_for_an_event(void)
{
	cudaEvent_t event;
	cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
	cudaEventRecord(event, t.other);
	begin();
	cudaStreamWaitEvent(t.stream, event, 0);
}
static void chooses_an_algorithm(void)
{
	begin();
	multiply(t.a, 4);
}
static void another_stream(void)
{
	begin();
	copy(t.a, t.locked, cudaMemcpyHostToDevice, t.other);
}
static void pageable_to(void)
{
	float x[N];
	begin();
	copy(x, t.a, cudaMemcpyDeviceToHost, t.stream);
}
static void pageable_from(void)
{
	float x[N] = {0};
	begin();
	copy(t.a, x, cudaMemcpyHostToDevice, t.stream);
}
static void ends_another(void)
{
	cudaGraph_t graph;
	begin();
	cudaStreamEndCapture(t.other, &graph);
}

/* A graph whose kernel's argument (copy's, product's) was freed; another block has the same address by then. */
static void replays_freed(void (*record)(float *x))
{
	float *x, *y;
	want(cudaMalloc((void **)&x, N * sizeof *x));
	begin();
	record(x);
	cudaGraphExec_t exec = end();
	want(cudaFree(x));
	want(cudaMalloc((void **)&y, N * sizeof *y));
	cudaGraphLaunch(exec, t.stream);
}
static void record_kernel(float *x)
{
	fill(x, 1);
}
static void record_copy(float *x)
{
	copy(t.locked, x, cudaMemcpyDeviceToHost, t.stream);
}
static void record_fill(float *x)
{
	want(cudaMemsetAsync(x, 0, 4, t.stream));
}
static struct product chosen;
static void record_product(float *x)
{
	multiply_in(&chosen, x, t.workspace, 1024);
}
static void replays_a_kernel(void)
{
	replays_freed(record_kernel);
}
static void replays_a_copy(void)
{
	replays_freed(record_copy);
}
static void replays_a_fill(void)
{
	replays_freed(record_fill);
}
static void replays_a_product(void)
{
	prepare(&chosen, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&chosen);
	replays_freed(record_product);
}
static void replays_page_locked(void)
{
	float *x;
	want(cudaHostAlloc((void **)&x, N * sizeof *x, cudaHostAllocDefault));
	begin();
	copy(t.a, x, cudaMemcpyHostToDevice, t.stream);
	cudaGraphExec_t exec = end();
	want(cudaFreeHost(x));
	cudaGraphLaunch(exec, t.stream);
}

static void default_stream(void)
{
	copy(t.a, t.locked, cudaMemcpyHostToDevice, NULL);
}
static void wrong_direction(void)
{
	copy(t.a, t.locked, cudaMemcpyDeviceToHost, t.stream);
}
static void beyond_a_block(void)
{
	copy(t.a + 1, t.locked, cudaMemcpyHostToDevice, t.stream);
}
static void frees_as_another_kind(void)
{
	cudaFree(t.locked);
}
static void frees_the_middle(void)
{
	cudaFree(t.a + 1);
}

static void small_workspace(void)
{
	struct product p;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	multiply_in(&p, t.a, t.workspace, 512);
}
static void host_workspace(void)
{
	static float x[256];
	struct product p;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	multiply_in(&p, t.a, x, sizeof x);
}
static void misaligned_workspace(void)
{
	struct product p;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	multiply_in(&p, t.a, (char *)t.workspace + 16, 1008);
}
static void splits(void)
{
	struct product p;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_MASK);
	choose(&p);
}
static void misaligned_operand(void)
{
	multiply(t.a + 1, 4);
}
static void operand_beyond_its_block(void)
{
	multiply(t.a, N); /* (4 - 1) N + 4 floats */
}
static void another_kind(void)
{
	struct product p;
	const cublasOperation_t transposed = CUBLAS_OP_T;
	prepare(&p, 4, CUBLASLT_REDUCTION_SCHEME_NONE);
	choose(&p);
	want((int)cublasLtMatmulDescSetAttribute(&p.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
	multiply_in(&p, t.a, t.workspace, 1024);
}

static const struct rule {
	void (*broken)(void);
	const char *text;
} rules[] = {
	{allocates, "an allocation while a stream is captured"},
	{frees, "memory being freed while a stream is captured"},
	{waits, "a wait while a stream is captured"},
	{captures_twice, "another capture while a stream is captured"},
	{launches_inside, "the launch of a graph while a stream is captured"},
	{records_an_event, "an event while a stream is captured"},
	{asks, "a question for an event while a stream is captured"},
	{waits_for_an_event, "a wait for an event while a stream is captured"},
	{chooses_an_algorithm, "a choice of an algorithm while a stream is captured"},
	{another_stream, "work for another stream while one is captured"},
	{pageable_to, "a copy to pageable memory while a stream is captured"},
	{pageable_from, "a copy from pageable memory while a stream is captured"},
	{ends_another, "the end of a capture of a stream that is not captured"},
	{replays_a_kernel, "node 0, a kernel, points into memory that was freed since"},
	{replays_a_copy, "node 0, a copy, points into memory that was freed since"},
	{replays_a_fill, "node 0, a fill, points into memory that was freed since"},
	{replays_a_product, "node 0, a product, points into memory that was freed since"},
	{replays_page_locked, "node 0, a copy, points into memory that was freed since"},
	{default_stream, "a copy on the default stream"},
	{wrong_direction, "of which one is not in the memory that was named"},
	{beyond_a_block, "of which one is not in the memory that was named"},
	{frees_as_another_kind, "a block is freed that was not allocated so"},
	{frees_the_middle, "a block is freed that was not allocated so"},
	{small_workspace, "has less than the algorithm takes"},
	{host_workspace, "the workspace does not lie in device memory"},
	{misaligned_workspace, "is not aligned to 256 bytes"},
	{splits, "an algorithm that may split the inner dimension"},
	{misaligned_operand, "A at 0x"},
	{operand_beyond_its_block, "A [4 x 4, leading dimension 64]"},
	{another_kind, "an algorithm that was found for another kind of product"},
};

static void test_rules(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
		expect_abort(rules[i].broken, rules[i].text);
}

/* The rules' sound neighbours: none of them is refused. */
static void test_sound(void **state)
{
	(void)state;
	cudaEvent_t event;
	float x[N] = {0};
	want(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
	want(cudaEventRecord(event, t.other));
	want(cudaStreamWaitEvent(t.stream, event, 0));
	want(cudaEventSynchronize(event));
	want(cudaEventDestroy(event));
	copy(t.a, x, cudaMemcpyHostToDevice, t.stream);
	copy(t.b, t.a, cudaMemcpyDeviceToDevice, t.stream);
	copy(x, t.b, cudaMemcpyDeviceToHost, t.stream);
	multiply(t.a, 4);
	multiply(t.a, 20); /* (4 - 1) 20 + 4 floats: all of the block */
	want(cudaStreamSynchronize(t.stream));
	begin();
	fill(t.a, 1);
	cudaGraphExec_t exec = end();
	void *p;
	want(cudaMalloc(&p, 4));
	want(cudaFree(p)); /* a block that the graph does not point into */
	want(cudaGraphLaunch(exec, t.stream));
	want(cudaStreamSynchronize(t.stream));
	want(cudaGraphExecDestroy(exec));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_replay, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_runs_while_captured, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rules, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sound, set_up, tear_down),
	};
	return cmocka_run_group_tests_name("emulated runtime", tests, NULL, NULL);
}
