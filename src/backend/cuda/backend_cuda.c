/* The CUDA backend: its table, its start and end, its errors. A shared object of its own (library.h). One GPU and one
 * stream a backend; every op is queued on the stream, and only sync, download, collect and sample wait. */
#include "backend/cuda/state.h"

#include "backend/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The place in the source, from its folder on. */
static const char *place(const char *file)
{
	const char *in = strstr(file, "backend/cuda/");
	return in ? in : file;
}

void cuda_check(const struct cuda_state *s, cudaError_t code, const char *call, const char *file, int line)
{
	if (code != cudaSuccess)
		s->host.die("CUDA: %s at %s:%d on GPU %d (%s): %s (%d)", call, place(file), line, s->device, s->name,
		            cudaGetErrorString(code), (int)code);
}

void cuda_check_kernel(const struct cuda_state *s, int code, const char *call, const char *file, int line)
{
	if (code)
		s->host.die("CUDA: %s at %s:%d on GPU %d (%s): %s (%d)", call, place(file), line, s->device, s->name,
		            kernel_error(code), code);
}

/* Copies of weights have memory of their own. */
static void keep_own(struct backend *b, void *memory, size_t bytes)
{
	(void)b, (void)memory, (void)bytes;
}

static void set_threads(struct backend *b, int threads)
{
	b->threads = threads; /* the host's; no op uses them */
}

static void destroy(struct backend *b)
{
	struct cuda_state *s = cuda_of(b);
	CUDA(s, cudaStreamSynchronize(s->stream));
	cuda_decode_destroy(s, s->decode);
	cuda_attention_destroy(s, s->attention);
	cuda_products_destroy(s, s->products);
	cuda_memory_end(s);
	CUDA(s, cudaStreamDestroy(s->stream));
	free(s->steps);
	free(s);
	free(b);
}

static const struct backend_ops OPS = {
    .name = "cuda",
    .alloc = cuda_alloc,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .zero = cuda_zero,
    .sync = cuda_sync,
    .post = cuda_post,
    .collect = cuda_collect,
    .set_threads = set_threads,
    .lend = keep_own,
    .own_bytes = cuda_own_bytes,
    .attention_bytes = cuda_attention_bytes,
    .device = cuda_device,
    .share_device = cuda_share_device,
    .memory_limit = cuda_memory_limit,
    .destroy = destroy,
    .linear = cuda_linear,
    .linear_backward_input = cuda_linear_backward_input,
    .linear_backward_weight = cuda_linear_backward_weight,
    .weights_changed = cuda_weights_changed,
    .rmsnorm = cuda_rmsnorm,
    .rmsnorm_backward = cuda_rmsnorm_backward,
    .layernorm = cuda_layernorm,
    .layernorm_backward = cuda_layernorm_backward,
    .rope = cuda_rope,
    .segments = cuda_segments,
    .attention = cuda_attention,
    .attention_backward = cuda_attention_backward,
    .swiglu = cuda_swiglu,
    .swiglu_backward = cuda_swiglu_backward,
    .activation = cuda_activation,
    .activation_backward = cuda_activation_backward,
    .cast = cuda_cast,
    .add = cuda_add,
    .gather_rows = cuda_gather_rows,
    .scatter_rows = cuda_scatter_rows,
    .scatter_rows_add = cuda_scatter_rows_add,
    .head_logprob = cuda_head_logprob,
    .head_logprob_backward = cuda_head_logprob_backward,
    .sample = cuda_sample,
    .advance = cuda_advance,
    .replay = cuda_replay,
    .recorded = cuda_recorded,
    .sum_squares = cuda_sum_squares,
    .adamw = cuda_adamw,
};

static void describe(char *text, size_t size)
{
	int runtime = 0;
	cudaRuntimeGetVersion(&runtime);
	const size_t lt = cublasLtGetVersion();
	char nccl[256] = "built without NCCL";
	if (cuda_team_ops())
		cuda_team_ops()->look(NULL, nccl, sizeof nccl);
	snprintf(text, size, "%sCUDA %d.%d, cuBLASLt %zu.%zu.%zu, %s", FAVOR_CUDA_EMULATED ? "an emulation of " : "",
	         runtime / 1000, runtime / 10 % 100, lt / 10000, lt / 100 % 100, lt % 100, nccl);
}

_Static_assert(sizeof((struct cudaDeviceProp *)0)->uuid == DEVICE_ID_BYTES, "a device's identity is its UUID");

/* The first call of the runtime: it may find no driver, an old one, or no GPU. 0, or -1 with `why`. */
static int find_device(struct cuda_state *s, int place, char *why, size_t size)
{
	int count = 0, driver = 0, runtime = 0;
	cudaError_t code = cudaGetDeviceCount(&count);
	if (code == cudaErrorInsufficientDriver) {
		cudaDriverGetVersion(&driver);
		cudaRuntimeGetVersion(&runtime);
		snprintf(why, size, "the driver is for CUDA %d.%d, and this library needs one for %d.%d", driver / 1000,
		         driver / 10 % 100, runtime / 1000, runtime / 10 % 100);
		return -1;
	}
	if (code != cudaSuccess || count == 0) {
		snprintf(why, size, "there is no usable GPU: %s", code ? cudaGetErrorString(code) : "none was found");
		return -1;
	}
	struct cudaDeviceProp properties;
	s->device = place % count;
	code = cudaGetDeviceProperties(&properties, s->device);
	if (!code)
		code = cudaSetDevice(s->device);
	if (code) {
		snprintf(why, size, "GPU %d can't be used: %s", s->device, cudaGetErrorString(code));
		return -1;
	}
	snprintf(s->name, sizeof s->name, "%s", properties.name);
	memcpy(s->uuid, &properties.uuid, sizeof s->uuid);
	if (properties.major < 8) {
		snprintf(why, size, "GPU %d (%s) has compute capability %d.%d; 8.0 or newer is needed", s->device, s->name,
		         properties.major, properties.minor);
		return -1;
	}
	return 0;
}

/* FAVOR_CUDA_GRAPH: whether steps of decoding are recorded as CUDA graphs. -1: it is neither 0 nor 1. */
static int wants_graphs(char *why, size_t size)
{
	const char *text = getenv("FAVOR_CUDA_GRAPH");
	if (!text || !*text || !strcmp(text, "1"))
		return 1;
	if (!strcmp(text, "0"))
		return 0;
	snprintf(why, size,
	         "FAVOR_CUDA_GRAPH is \"%s\"; it can be 1 (decoding replays CUDA graphs) or 0 (its kernels are launched "
	         "one by one)",
	         text);
	return -1;
}

static struct backend *open_backend(const struct cuda_host *host, int place, char *device, size_t device_size,
                                    char *why, size_t size)
{
	struct backend *b = calloc(1, sizeof *b);
	struct cuda_state *s = calloc(1, sizeof *s);
	if (!b || !s)
		host->die("out of memory: no room for the CUDA backend's state");
	s->host = *host;
	const int graphs = wants_graphs(why, size);
	if (graphs < 0 || find_device(s, place, why, size)) {
		free(s);
		free(b);
		return NULL;
	}
	CUDA(s, cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
	cuda_memory_init(s);
	s->products = cuda_products_new(s);
	s->attention = cuda_attention_new(s);
	s->decode = cuda_decode_new(s, graphs);
	b->ops = OPS;
	b->team = cuda_team_ops();
	b->state = s;
	b->threads = 1;
	b->narrow_operands = 1;
	b->steps_ahead = STEPS_AHEAD;
	snprintf(device, device_size, "GPU %d, %s", s->device, s->name);
	return b;
}

__attribute__((visibility("default"))) extern const struct cuda_library favor_cuda_library;
const struct cuda_library favor_cuda_library = {.format = CUDA_LIBRARY_FORMAT,
                                                .backend_bytes = sizeof(struct backend),
                                                .tensor_bytes = sizeof(struct tensor),
                                                .version = FAVOR_VERSION,
                                                .needs_driver = !FAVOR_CUDA_EMULATED,
                                                .describe = describe,
                                                .open = open_backend};
