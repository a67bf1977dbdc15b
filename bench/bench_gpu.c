/* Generation, forward and backward, and a whole GRPO step on Qwen2-VL's shapes with random weights, on a GPU or the
 * CPU: the program's own rollout and learner, one process. bench/gpu.sh runs it and sets it beside PyTorch and
 * transformers.
 *
 *   bench_gpu --model DIR --tokenizer DIR [--device cuda|cpu] [--dtype bfloat16|float32] [--group 8] [--groups 32]
 *             [--text 256] [--image 448] [--response 256] [--repeat 3] [--matrix 8192] [--stream 1024] [--threads 0]
 *
 * DIR needs config.json alone: weights are drawn, on the device, and never written. No token stops a response. The
 * prompt has --text tokens and those of an image of --image x --image pixels. Prints lines of a name and numbers, which
 * bench/gpu.sh reads:
 *
 *   device TEXT                the backend and its device
 *   parameters N
 *   peak FLOPS                 of a product of --matrix cubed in the dtype, through the same backend as all else
 *                              (CUDA: cuBLASLt)
 *   bandwidth BYTES            a second, over --stream MiB: the larger of a sum of squares' and a copy's, which reads and
 *                              writes
 *   PHASE FLOPS BYTES FLOOR SECONDS...   what the phase has to do (needs.h), the time that peak and bandwidth leave for
 *                              it, runs' times */
#include "needs.h"
#include "workload.h"

#include "backend/cuda/open.h"
#include "backend/ops.h"
#include "base/clock.h"
#include "learner/learner.h"
#include "rollout/rollout.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
	const char *model, *tokenizer, *device, *dtype;
	int group, groups, text, image, response, repeat, matrix, stream, threads;
};

struct bench {
	struct arguments a;
	struct backend *backend;
	char device[320];
	struct model *model;
	struct tokenizer *tokenizer;
	struct rollout rollout;
	struct learner_options options;
	struct learner learner;
	struct bench_prompt drawn;
	struct prompt prompt; /* borrows from drawn */
	double peak, bandwidth;
};

static int open_bench(struct bench *b, struct favor_error *e)
{
	const int narrow = !strcmp(b->a.dtype, "bfloat16");
	if (!strcmp(b->a.device, "cuda")) {
		b->backend = backend_cuda_open(0, b->device, sizeof b->device, e);
	} else {
		b->backend = backend_cpu_new(b->a.threads);
		snprintf(b->device, sizeof b->device, "CPU, %d threads", b->backend->threads);
	}
	if (!b->backend)
		return -1;
	backend_set_products(b->backend, narrow ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32);
	b->tokenizer = tokenizer_open(b->a.tokenizer, e);
	b->model = b->tokenizer ? model_random(b->a.model, b->backend, 0, e) : NULL;
	if (!b->model)
		return -1;
	if (bench_prompt_make(&b->drawn, &b->model->config, b->a.text, b->a.image, b->a.response, e))
		return -1;
	b->prompt = (struct prompt){.ids = {.ids = b->drawn.ids, .count = b->drawn.count},
	                            .inputs = &b->drawn.image,
	                            .image_count = b->a.image > 0};
	rollout_init(&b->rollout, b->model, b->tokenizer);
	b->rollout.max_tokens = b->a.response;
	b->rollout.stop_count = 0; /* config.json's would end some: random weights draw all tokens alike */
	b->options = (struct learner_options){
	    .max_grad_norm = 1, .adam_beta1 = 0.9f, .adam_beta2 = 0.999f, .adam_eps = 1e-8f};
	learner_init(&b->learner, b->model, &b->options, VISION_FULL, 0, 1);
	return 0;
}

static void close_bench(struct bench *b)
{
	if (b->rollout.model) {
		rollout_free(&b->rollout);
		learner_free(&b->learner);
	}
	model_destroy(b->model);
	tokenizer_destroy(b->tokenizer);
	backend_destroy(b->backend);
	bench_prompt_free(&b->drawn);
}

/* Operations a second of y = x w^T, all three --matrix square, of random numbers: zeros would be too easy for a GPU's
 * power. */
static double measure_peak(struct bench *b)
{
	struct backend *be = b->backend;
	const int64_t n = b->a.matrix;
	float *host = favor_malloc((size_t)(n * n) * sizeof *host);
	for (int64_t i = 0; i < n * n; i++)
		host[i] = (float)(i * 2654435761u % 2001) * 1e-3f - 1;
	struct tensor wide = tensor_of(op_alloc(be, (size_t)(n * n) * sizeof *host), n, n), x = wide, y = wide,
	              w = tensor_of(op_alloc(be, (size_t)(n * n) * sizeof *host), n, n);
	op_upload(be, wide.data, host, (size_t)(n * n) * sizeof *host);
	op_upload(be, w.data, host, (size_t)(n * n) * sizeof *host);
	op_weights_changed(be);
	x = tensor_of_type(op_alloc(be, (size_t)(n * n) * element_size(be->operand)), n, n, be->operand);
	y = tensor_of_type(op_alloc(be, (size_t)(n * n) * element_size(be->operand)), n, n, be->operand);
	op_cast(be, x, wide);
	double best = 0;
	for (int round = 0; round < 4; round++) { /* the first one packs, chooses, warms */
		const int times = 5;
		op_sync(be);
		const double begin = clock_seconds();
		for (int i = 0; i < times; i++)
			op_linear(be, y, x, w, NULL, 0);
		op_sync(be);
		const double rate = times * 2.0 * (double)n * (double)n * (double)n / (clock_seconds() - begin);
		best = round && rate > best ? rate : best;
	}
	float *const all[] = {wide.data, w.data, x.data, y.data};
	for (int i = 0; i < 4; i++)
		op_release(be, all[i]);
	free(host);
	return best;
}

static double measure_bandwidth(struct bench *b)
{
	struct backend *be = b->backend;
	const int64_t n = (int64_t)b->a.stream << 18;
	const double bytes = (double)n * sizeof(float);
	float *from = op_alloc(be, (size_t)n * sizeof *from), *to = op_alloc(be, (size_t)n * sizeof *to);
	double *sums = op_alloc(be, SLICE_PARTS * sizeof *sums), best = 0;
	int64_t bounds[SLICE_PARTS + 1]; /* as the learner has them */
	for (int i = 0; i <= SLICE_PARTS; i++)
		bounds[i] = slice_part(n, i);
	op_zero(be, from, (size_t)n * sizeof *from);
	for (int way = 0; way < 2; way++)
		for (int round = 0; round < 4; round++) {
			const int times = 5; /* what launching takes must not count */
			op_sync(be);
			const double begin = clock_seconds();
			for (int i = 0; i < times; i++)
				if (way)
					op_cast(be, tensor_of(to, n / 1024, 1024), tensor_of(from, n / 1024, 1024));
				else
					op_sum_squares(be, sums, from, bounds, SLICE_PARTS);
			op_sync(be);
			const double rate = times * (1 + way) * bytes / (clock_seconds() - begin);
			best = round && rate > best ? rate : best;
		}
	op_release(be, from);
	op_release(be, to);
	op_release(be, sums);
	return best;
}

static double roll_out(struct bench *b, int n, struct group **groups)
{
	struct rollout_request *requests = favor_calloc((size_t)n, sizeof *requests);
	struct favor_error e = {""};
	for (int i = 0; i < n; i++)
		requests[i] = (struct rollout_request){.prompt = &b->prompt, .index = (uint64_t)i, .responses = b->a.group};
	const double begin = clock_seconds();
	if (rollout_groups(&b->rollout, requests, n, groups, &e))
		favor_die("%s", e.message);
	const double seconds = clock_seconds() - begin;
	free(requests);
	return seconds;
}

/* Forward, loss and backward over one group whose responses are good and bad in turns; with step, AdamW behind it. */
static double learn(struct bench *b, struct group *group, int step)
{
	const int G = b->a.group;
	float *advantage = favor_malloc((size_t)G * sizeof *advantage);
	const float *const advantages = advantage;
	const struct loss_step loss = {.type = LOSS_GRPO,
	                               .clip_low = 0.2f,
	                               .clip_high = 0.2f,
	                               .sequences = G,
	                               .tokens = (int64_t)G * b->a.response,
	                               .max_tokens = b->a.response};
	struct loss_sums sums = {0};
	struct favor_error e = {""};
	for (int g = 0; g < G; g++)
		advantage[g] = g % 2 ? 1 : -1;
	op_sync(b->backend);
	const double begin = clock_seconds();
	learner_zero(&b->learner);
	if (learner_groups(&b->learner, 1, &group, &b->prompt, &advantages, 0, &loss, &sums, &e))
		favor_die("%s", e.message);
	double squares[SLICE_PARTS];
	if (step)
		learner_squares(&b->learner, squares);
	if (step && !isfinite(learner_step(&b->learner, 1e-6f, squares)))
		favor_die("the gradient is not finite");
	op_sync(b->backend);
	const double seconds = clock_seconds() - begin;
	free(advantage);
	if (sums.tokens != (double)loss.tokens || !isfinite(sums.loss))
		favor_die("the loss is %g over %g tokens: this is not the work that was to be measured", sums.loss,
		          sums.tokens);
	return seconds;
}

/* The phases first .. last together: each has its own floor. */
static void print_phase(const struct bench *b, const char *name, const struct need *needs, const int *phases, int count,
                        const double *seconds)
{
	double flops = 0, bytes = 0, floor = 0;
	for (int i = 0; i < count; i++) {
		const struct need *n = &needs[phases[i]];
		flops += n->flops;
		bytes += n->bytes;
		floor += fmax(n->flops / b->peak, n->bytes / b->bandwidth);
	}
	printf("%s %.6g %.6g %.6g", name, flops, bytes, floor);
	for (int i = 0; i < b->a.repeat; i++)
		printf(" %.6g", seconds[i]);
	putchar('\n');
	fflush(stdout);
}

static void generate(struct bench *b, const char *name, int n, double *seconds)
{
	static const int phases[] = {VISION, PREFILL, DECODE};
	const struct need_shape shape = {.patches = (double)b->drawn.image.grid_h * b->drawn.image.grid_w,
	                                 .prompt = b->prompt.ids.count,
	                                 .groups = n,
	                                 .group = b->a.group,
	                                 .response = b->a.response,
	                                 .operand = (double)element_size(b->backend->operand)};
	struct need needs[PHASES];
	struct group **groups = favor_calloc((size_t)n, sizeof *groups);
	for (int i = -1; i < b->a.repeat; i++) { /* the first allocates, and chooses algorithms */
		const double took = roll_out(b, n, groups);
		if (i >= 0)
			seconds[i] = took;
		for (int k = 0; k < n; k++) {
			if (groups[k]->start[b->a.group] != b->a.group * b->a.response)
				favor_die("a response ended early");
			group_destroy(groups[k]);
		}
	}
	count_needs(b->model, &shape, needs);
	needs[VISION].flops *= n;
	needs[PREFILL].flops *= n;
	print_phase(b, name, needs, phases, 3, seconds);
	free(groups);
}

static void learning(struct bench *b, double *seconds)
{
	static const int pass[] = {FORWARD, BACKWARD}, whole[] = {VISION, PREFILL, DECODE, FORWARD, BACKWARD, UPDATE};
	const struct need_shape shape = {.patches = (double)b->drawn.image.grid_h * b->drawn.image.grid_w,
	                                 .prompt = b->prompt.ids.count,
	                                 .groups = 1,
	                                 .group = b->a.group,
	                                 .response = b->a.response,
	                                 .operand = (double)element_size(b->backend->operand)};
	struct need needs[PHASES];
	struct group *group;
	count_needs(b->model, &shape, needs);
	roll_out(b, 1, &group);
	learn(b, group, 1); /* allocates */
	for (int i = 0; i < b->a.repeat; i++)
		seconds[i] = learn(b, group, 0);
	print_phase(b, "forward_backward", needs, pass, 2, seconds);
	group_destroy(group);
	for (int i = 0; i < b->a.repeat; i++) {
		seconds[i] = roll_out(b, 1, &group);
		seconds[i] += learn(b, group, 1);
		group_destroy(group);
	}
	print_phase(b, "step", needs, whole, 6, seconds);
}

static int parse(int argc, char **argv, struct arguments *a)
{
	static const char *const devices[] = {"cuda", "cpu", NULL}, *const dtypes[] = {"bfloat16", "float32", NULL};
	*a = (struct arguments){.device = "cuda",
	                        .dtype = "bfloat16",
	                        .group = 8,
	                        .groups = 32,
	                        .text = 256,
	                        .image = 448,
	                        .response = 256,
	                        .repeat = 3,
	                        .matrix = 8192,
	                        .stream = 1024};
	const struct bench_option options[] = {{"model", .text = &a->model},
	                                       {"tokenizer", .text = &a->tokenizer},
	                                       {"device", .text = &a->device, .words = devices},
	                                       {"dtype", .text = &a->dtype, .words = dtypes},
	                                       BENCH_NUMBER("group", &a->group, 1, 4096),
	                                       BENCH_NUMBER("groups", &a->groups, 1, 4096),
	                                       BENCH_NUMBER("text", &a->text, 2, INT_MAX / 2),
	                                       BENCH_NUMBER("image", &a->image, 0, 4096),
	                                       BENCH_NUMBER("response", &a->response, 2, 65536),
	                                       BENCH_NUMBER("repeat", &a->repeat, 1, 1000),
	                                       BENCH_NUMBER("matrix", &a->matrix, 64, 32768),
	                                       BENCH_NUMBER("stream", &a->stream, 1, INT_MAX),
	                                       BENCH_NUMBER("threads", &a->threads, 0, INT_MAX),
	                                       {.name = NULL}};
	static const char usage[] =
	    "bench_gpu --model DIR --tokenizer DIR [--device cuda|cpu] [--dtype bfloat16|float32] [--group 8] [--groups 32] "
	    "[--text 256] [--image 448] [--response 256] [--repeat 3] [--matrix 8192] [--stream 1024] [--threads 0]";
	if (bench_parse(argc, argv, options, usage))
		return -1;
	if (!a->model || !a->tokenizer)
		fprintf(stderr, "usage: %s\n", usage);
	return a->model && a->tokenizer ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	struct favor_error e = {""};
	if (parse(argc, argv, &b.a))
		return 2;
	if (open_bench(&b, &e)) {
		fprintf(stderr, "bench_gpu: %s\n", e.message);
		close_bench(&b);
		return 2;
	}
	double *seconds = favor_malloc((size_t)b.a.repeat * sizeof *seconds);
	printf("device %s\n", b.device);
	printf("parameters %lld\n", (long long)b.model->params.total);
	printf("prompt %d\n", b.prompt.ids.count);
	b.peak = measure_peak(&b);
	b.bandwidth = measure_bandwidth(&b);
	printf("peak %.6g\nbandwidth %.6g\n", b.peak, b.bandwidth);
	fflush(stdout);
	generate(&b, "generate", 1, seconds);
	generate(&b, "generate_many", b.a.groups, seconds);
	learning(&b, seconds);
	const double peak = measure_peak(&b); /* clocks move: the larger is what all is measured against */
	printf("peak_after %.6g\n", peak);
	free(seconds);
	close_bench(&b);
	return 0;
}
