/* How far is each phase of a GRPO step from what the machine can do? One group goes through the program's own model,
 * session, pass and optimiser on the CPU backend, as in training; each phase's operations and bytes are counted from
 * the shapes and set against the measured peak and bandwidth.
 *
 *   bench_roofline --model DIR [--group 8] [--image 224] [--text 60] [--response 64] [--repeat 5] [--threads 0]
 * [--bf16]
 *
 * DIR needs config.json; without weights in it they are drawn. Prompt: --text tokens and an image of --image x --image
 * pixels (0: none); every response has --response tokens. Phases:
 *
 *   vision    the tower over the image, keeping nothing            (once a group, in the rollout)
 *   prefill   the decoder over the prompt; keys and values         (the image's rows as text: the tower isn't in it)
 *   decode    sampling of the responses, all of a group together
 *   forward   packed row, both towers, activations kept
 *   backward  gradients of all weights
 *   update    gradients set to zero, their norm, AdamW
 *
 * The floor of a phase is max(operations / peak, bytes / bandwidth): no faster program with these shapes, this packing
 * and float32 is possible. Then the same steps again with a clock around every op of the backend (profile.h). */
#include "machine.h"
#include "needs.h"
#include "profile.h"
#include "workload.h"

#include "backend/ops.h"
#include "base/clock.h"
#include "base/rng.h"
#include "learner/learner.h"
#include "model/pass.h"
#include "model/session.h"
#include "model/steps.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const phase_names[PHASES] = {"vision", "prefill", "decode", "forward", "backward", "update"};

struct arguments {
	const char *model;
	int group, image, text, response, repeat, threads, bf16; /* bf16: operands of products rounded */
};

struct bench {
	struct arguments a;
	struct profile profile;
	struct model *model;
	struct session session;
	struct steps steps;
	struct learner_options options;
	struct learner learner;
	struct arena arena;
	struct bench_prompt prompt;
	int32_t *responses;      /* [group, response] */
};

static int open_bench(struct bench *b, struct favor_error *e)
{
	char *whole = favor_format("%s/model.safetensors", b->a.model),
	     *shards = favor_format("%s/model.safetensors.index.json", b->a.model);
	const int weights = access(whole, F_OK) == 0 || access(shards, F_OK) == 0;
	free(whole);
	free(shards);
	struct backend *inner = backend_cpu_new(b->a.threads);
	backend_set_products(inner, b->a.bf16 ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32);
	profile_init(&b->profile, inner);
	struct backend *backend = &b->profile.backend;
	b->model = weights ? model_open(b->a.model, backend, NULL, e) : model_random(b->a.model, backend, 0, e);
	if (!b->model)
		return -1;
	if (bench_prompt_make(&b->prompt, &b->model->config, b->a.text, b->a.image, b->a.response, e))
		return -1;
	b->responses = favor_malloc((size_t)b->a.group * (size_t)b->a.response * sizeof *b->responses);
	b->options = (struct learner_options){
	    .max_grad_norm = 1, .adam_beta1 = 0.9f, .adam_beta2 = 0.999f, .adam_eps = 1e-8f, .weight_decay = 0.01f};
	session_init(&b->session, b->model);
	steps_init(&b->steps, &b->session);
	learner_init(&b->learner, b->model, &b->options, VISION_FULL, 0, 1);
	run_arena_init(&b->arena, backend);
	return 0;
}

static void close_bench(struct bench *b)
{
	if (b->session.model) {
		steps_free(&b->steps);
		session_free(&b->session);
		learner_free(&b->learner);
		arena_free(&b->arena);
	}
	model_destroy(b->model);
	backend_destroy(b->profile.inner);
	profile_free(&b->profile);
	bench_prompt_free(&b->prompt);
	free(b->responses);
}

/* The group's responses from its prompt, as rollout.c samples them but that no token stops. */
static void roll_out(struct bench *b, const struct run *run, double seconds[PHASES])
{
	const int32_t G = b->a.group, T = b->a.response, V = b->model->config.vocab_size;
	const struct sampling how = {.temperature = 1, .top_p = 1};
	struct favor_error e = {""};
	struct session_prompt prompt;
	const struct step_rules rules = {.how = how, .domain = RNG_SAMPLE};
	struct timeline *timelines = favor_malloc((size_t)G * sizeof *timelines);
	struct step_response *starts = favor_malloc((size_t)G * sizeof *starts);
	struct sampled *drawn = favor_malloc((size_t)G * sizeof *drawn);

	b->profile.phase = VISION;
	double begin = clock_seconds();
	struct arena_mark mark = arena_mark(run->arena);
	if (b->prompt.image.grid_h)
		vision_features(run, b->model, &b->prompt.image, 1, (int64_t)b->prompt.image.grid_h * b->prompt.image.grid_w);
	arena_reset(run->arena, mark);
	seconds[VISION] = clock_seconds() - begin;

	b->profile.phase = PREFILL;
	begin = clock_seconds();
	session_reset(&b->session, &(struct session_room){1, b->prompt.count, G, T});
	struct tensor logits = run_tensor(run, 1, V);
	if (session_prefill(&b->session, run, 0, b->prompt.plain, b->prompt.count, NULL, 0, &prompt, logits, &e))
		favor_die("%s", e.message);
	seconds[PREFILL] = clock_seconds() - begin;

	b->profile.phase = DECODE;
	begin = clock_seconds();
	for (int32_t g = 0; g < G; g++) {
		session_timeline(&b->session, g, &prompt, &timelines[g]);
		starts[g] = (struct step_response){.timeline = &timelines[g], .token = -1, .left = T, .response = (uint32_t)g};
	}
	steps_begin(&b->steps, &rules, starts, G, logits);
	for (int32_t t = 0; t < T; t++) {
		if (t)
			steps_queue(&b->steps, run);
		steps_collect(&b->steps, drawn);
		for (int32_t g = 0; g < G; g++)
			b->responses[g * T + t] = drawn[g].token;
	}
	seconds[DECODE] = clock_seconds() - begin;
	arena_reset(run->arena, mark);
	free(timelines);
	free(starts);
	free(drawn);
}

/* The packed row forward and backward, with some dL/dlogp; one optimiser step. */
static void learn(struct bench *b, const struct run *run, double seconds[PHASES])
{
	struct favor_error e = {""};
	struct arena_mark mark = arena_mark(run->arena);
	struct batch batch;
	struct prefix prefix;
	struct pass pass;
	batch_init(&batch, &b->model->config);
	int bad = batch_add_prompt(&batch, b->prompt.ids, b->prompt.count, &b->prompt.image, b->prompt.image.grid_h > 0, &prefix, &e);
	for (int32_t g = 0; g < b->a.group && !bad; g++)
		bad = batch_add_response(&batch, &prefix, b->responses + g * b->a.response, b->a.response, &e);
	if (bad)
		favor_die("%s", e.message);
	float *logp = favor_malloc((size_t)batch.targets * 3 * sizeof *logp), *entropy = logp + batch.targets,
	      *g = entropy + batch.targets;
	for (int32_t i = 0; i < batch.targets; i++)
		g[i] = (i / b->a.response % 2 ? 1.0f : -1.0f) / (float)batch.targets;

	b->profile.phase = UPDATE;
	double begin = clock_seconds();
	learner_zero(&b->learner);
	seconds[UPDATE] = clock_seconds() - begin;

	b->profile.phase = FORWARD;
	begin = clock_seconds();
	pass_forward(&pass, run, b->model, &batch, 1, 1, 0, 1, logp, entropy);
	seconds[FORWARD] = clock_seconds() - begin;

	b->profile.phase = BACKWARD;
	begin = clock_seconds();
	pass_backward(&pass, g, &b->learner.grad);
	op_sync(run->backend);
	seconds[BACKWARD] = clock_seconds() - begin;
	pass_end(&pass);

	b->profile.phase = UPDATE;
	begin = clock_seconds();
	double squares[SLICE_PARTS];
	learner_squares(&b->learner, squares);
	if (!isfinite(learner_step(&b->learner, 1e-6f, squares)))
		favor_die("the gradient is not finite");
	seconds[UPDATE] += clock_seconds() - begin;
	free(logp);
	batch_free(&batch);
	arena_reset(run->arena, mark);
}

static void step(struct bench *b, double seconds[PHASES])
{
	const struct run run = {&b->profile.backend, &b->arena, NULL, NULL};
	b->profile.phase = -1; /* what belongs to no phase */
	roll_out(b, &run, seconds);
	b->profile.phase = -1;
	learn(b, &run, seconds);
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* A block of this size comes from memory on any machine. */
static const int64_t MEMORY_BYTES = (int64_t)512 << 20;

static double bandwidth(int threads, double bytes)
{
	return machine_read_bandwidth(threads, bytes < (double)MEMORY_BYTES ? (int64_t)bytes : MEMORY_BYTES);
}

static void print_row(const char *name, double *seconds, int n, const struct need *need, double floor, const char *by,
                      double peak)
{
	qsort(seconds, (size_t)n, sizeof *seconds, by_value);
	const double median = 0.5 * (seconds[(n - 1) / 2] + seconds[n / 2]);
	printf("%-9s %9.3f %9.1f %9.2f %9.2f %9.2f %8.1f %6.1f%% %7.1f %9.2f %-7s %6.2f\n", name, 1e-9 * need->flops,
	       need->bytes / 1048576, 1e3 * seconds[0], 1e3 * median, 1e3 * seconds[n - 1], 1e-9 * need->flops / median,
	       100 * need->flops / median / peak, 1e-9 * need->bytes / median, 1e3 * floor, by,
	       floor > 0 ? median / floor : 0);
}

/* One line a phase and one for all of them; rates are the median's. times [repeat][PHASES] */
static void print_table(const struct bench *b, const double *times, const struct need *needs, double peak)
{
	const int n = b->a.repeat, threads = b->profile.backend.threads;
	double *column = favor_malloc((size_t)n * sizeof *column), *whole = favor_calloc((size_t)n, sizeof *whole);
	double floors = 0;
	struct need sum = {0};
	printf("\n%-9s %9s %9s %9s %9s %9s %8s %7s %7s %9s %-7s %6s\n", "phase", "GFLOP", "MiB", "min ms", "median", "max",
	       "GFLOP/s", "peak", "GB/s", "floor ms", "by", "times");
	for (int p = 0; p < PHASES; p++) {
		if (needs[p].flops <= 0)
			continue;
		const double compute = needs[p].flops / peak, memory = needs[p].bytes / bandwidth(threads, needs[p].set),
		             floor = compute > memory ? compute : memory;
		for (int i = 0; i < n; i++) {
			column[i] = times[i * PHASES + p];
			whole[i] += column[i];
		}
		print_row(phase_names[p], column, n, &needs[p], floor, compute > memory ? "compute" : "memory", peak);
		floors += floor;
		sum.flops += needs[p].flops;
		sum.bytes += needs[p].bytes;
	}
	print_row("step", whole, n, &sum, floors, "", peak);
	free(column);
	free(whole);
}

static int parse(int argc, char **argv, struct arguments *a)
{
	*a = (struct arguments){.group = 8, .image = 224, .text = 60, .response = 64, .repeat = 5};
	const struct bench_option options[] = {{"model", .text = &a->model},
	                                       BENCH_NUMBER("group", &a->group, 1, 4096),
	                                       BENCH_NUMBER("image", &a->image, 0, 4096),
	                                       BENCH_NUMBER("text", &a->text, 1, INT_MAX / 2),
	                                       BENCH_NUMBER("response", &a->response, 2, 65536),
	                                       BENCH_NUMBER("repeat", &a->repeat, 1, INT_MAX),
	                                       BENCH_NUMBER("threads", &a->threads, 0, INT_MAX),
	                                       {"bf16", .flag = &a->bf16},
	                                       {.name = NULL}};
	static const char usage[] = "bench_roofline --model DIR [--group 8] [--image 224] [--text 60] [--response 64] "
	                            "[--repeat 5] [--threads 0] [--bf16]";
	if (bench_parse(argc, argv, options, usage))
		return -1;
	if (!a->model)
		fprintf(stderr, "usage: %s\n", usage);
	return a->model ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct bench b = {0};
	struct favor_error e = {""};
	if (parse(argc, argv, &b.a))
		return 2;
	if (open_bench(&b, &e)) {
		fprintf(stderr, "bench_roofline: %s\n", e.message);
		close_bench(&b);
		return 2;
	}
	const struct model *m = b.model;
	const int threads = b.profile.backend.threads, n = b.a.repeat;
	double *times = favor_malloc((size_t)n * PHASES * sizeof *times), sums[PHASES] = {0}, once[PHASES];
	struct need needs[PHASES];
	const double before = machine_flops(threads, b.a.bf16);
	profile_on(&b.profile, 0);
	step(&b, once); /* the first allocates */
	for (int i = 0; i < n; i++)
		step(&b, times + i * PHASES);
	const double after = machine_flops(threads, b.a.bf16), peak = after > before ? after : before; /* clocks move */
	const struct need_shape shape = {.patches = (double)b.prompt.image.grid_h * b.prompt.image.grid_w, .prompt = b.prompt.count, .groups = 1,
	                                 .group = b.a.group, .response = b.a.response, .operand = b.a.bf16 ? 2 : sizeof(float)};
	count_needs(m, &shape, needs);
	printf("machine: %d threads, vectors of %d floats: %.1f GFLOP/s %s (%.1f on one thread); reads %.1f GB/s from "
	       "memory, %.1f GB/s from a block as large as the weights\n",
	       threads, machine_lanes(), 1e-9 * peak, b.a.bf16 && machine_has_pairs() ? "bfloat16" : "float32",
	       1e-9 * machine_flops(1, b.a.bf16),
	       1e-9 * bandwidth(threads, (double)MEMORY_BYTES),
	       1e-9 * bandwidth(threads, (double)m->params.total * sizeof(float)));
	printf("model: %s, %.3f M parameters (vision tower %.3f M), %.1f MiB\n", b.a.model, 1e-6 * (double)m->params.total,
	       1e-6 * (double)m->params.vision_total, (double)m->params.total * sizeof(float) / 1048576);
	printf("group: %d responses of %d tokens; prompt of %d tokens, %d of them an image's (%d patches); packed row of "
	       "%d\n",
	       b.a.group, b.a.response, b.prompt.count, b.prompt.count - b.a.text, b.prompt.image.grid_h * b.prompt.image.grid_w,
	       b.prompt.count + b.a.group * (b.a.response - 1));
	print_table(&b, times, needs, peak);

	profile_on(&b.profile, 1);
	for (int i = 0; i < n; i++) {
		step(&b, once);
		for (int p = 0; p < PHASES; p++)
			sums[p] += once[p] / n;
	}
	profile_on(&b.profile, 0);
	for (int p = 0; p < PHASES; p++) {
		if (needs[p].flops <= 0)
			continue;
		printf("\n%s, op by op: mean of %d runs, %.2f ms each\n", phase_names[p], n, 1e3 * sums[p]);
		profile_print(&b.profile, stdout, p, sums[p], n, peak);
	}
	free(times);
	close_bench(&b);
	return 0;
}
