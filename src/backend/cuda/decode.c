/* Decoding without waiting for the host: steps that are recorded as CUDA graphs and replayed, the end of a step, and
 * results on their way to the host.
 *
 * A step is known by its key (op_replay). The first time its ops are queued one by one: memory grows, weights are
 * rounded, products' algorithms are chosen, kernels are loaded and attention is planned then. The second time they are
 * captured, and from then on a step is one cudaGraphLaunch. What may not be in a graph ends the job while one is
 * captured (cuda_not_recording). Before a replay attention's plan and the weights' copies are brought up to date; where
 * attention would now be launched with other numbers, or device memory was given back since, the graph is dropped. */
#include "backend/cuda/state.h"

#include <stdlib.h>
#include <string.h>

enum { RECORDINGS = 8 };

struct recording {
	unsigned char key[REPLAY_KEY_MOST];
	size_t bytes;        /* of key; 0: unused */
	uint64_t given_back; /* as it was when the step was queued first */
	uint64_t used;       /* when last */
	int ran;             /* it was queued to the end once */
	struct cuda_attends attends;
	cudaGraphExec_t graph; /* NULL: none yet */
};

struct cuda_decode {
	int graphs; /* 0: nothing is recorded */
	struct recording recordings[RECORDINGS], *current;
	uint64_t uses;
	/* copies to the host */
	char *memory; /* page-locked; POSTS * room */
	size_t room;
	cudaEvent_t done[POSTS];
	void *to[POSTS];
	size_t bytes[POSTS];
	uint64_t posted;
};

static void check_graph(const struct cuda_state *s, cudaError_t code, const char *call)
{
	if (code != cudaSuccess)
		s->host.die(
		    "CUDA: %s on GPU %d (%s): %s (%d); with FAVOR_CUDA_GRAPH=0 decoding launches its kernels one by one", call,
		    s->device, s->name, cudaGetErrorString(code), (int)code);
}
#define GRAPH(s, call) check_graph(s, call, #call)

void cuda_not_recording(const struct cuda_state *s, const char *what)
{
	if (s->recording)
		s->host.die("cuda: %s while a step is recorded", what);
}

struct cuda_decode *cuda_decode_new(struct cuda_state *s, int graphs)
{
	struct cuda_decode *d = calloc(1, sizeof *d);
	if (!d)
		s->host.die("out of memory: no room for the steps of decoding");
	d->graphs = graphs;
	for (int i = 0; i < POSTS; i++)
		CUDA(s, cudaEventCreateWithFlags(&d->done[i], cudaEventDisableTiming));
	return d;
}

static void forget(struct cuda_state *s, struct recording *r)
{
	if (r->graph)
		GRAPH(s, cudaGraphExecDestroy(r->graph));
	*r = (struct recording){.bytes = 0};
}

void cuda_decode_destroy(struct cuda_state *s, struct cuda_decode *d)
{
	for (int i = 0; i < RECORDINGS; i++)
		forget(s, &d->recordings[i]);
	for (int i = 0; i < POSTS; i++)
		CUDA(s, cudaEventDestroy(d->done[i]));
	CUDA(s, cudaFreeHost(d->memory));
	free(d);
}

void cuda_step_attends(struct cuda_state *s, const struct cuda_attends *attends)
{
	struct recording *r = s->decode->current;
	if (r)
		r->attends = *attends;
}

/* The recording of that key; a new one in place of the one that was not used for longest. */
static struct recording *find(struct cuda_state *s, const void *key, size_t bytes)
{
	struct cuda_decode *d = s->decode;
	struct recording *oldest = &d->recordings[0];
	for (int i = 0; i < RECORDINGS; i++) {
		struct recording *r = &d->recordings[i];
		if (r->bytes && r->given_back != s->given_back)
			forget(s, r);
		if (r->bytes == bytes && !memcmp(r->key, key, bytes))
			return r;
		if (r->used < oldest->used)
			oldest = r;
	}
	forget(s, oldest);
	memcpy(oldest->key, key, bytes);
	oldest->bytes = bytes;
	oldest->given_back = s->given_back;
	return oldest;
}

enum replay cuda_replay(struct backend *b, const void *key, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_decode *d = s->decode;
	cuda_not_recording(s, "another begins");
	d->current = NULL;
	if (!d->graphs)
		return REPLAY_RUN;
	struct recording *r = find(s, key, bytes);
	r->used = ++d->uses;
	if (r->ran) {
		cuda_freshen(s);
		if (!r->attends.segments || !cuda_attention_serves(b, &r->attends) || r->given_back != s->given_back)
			r->ran = 0;
	}
	if (r->ran && r->graph) {
		GRAPH(s, cudaGraphLaunch(r->graph, s->stream));
		return REPLAY_DONE;
	}
	d->current = r;
	if (r->graph) {
		GRAPH(s, cudaGraphExecDestroy(r->graph));
		r->graph = NULL;
	}
	if (!r->ran)
		return REPLAY_RUN;
	GRAPH(s, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal));
	s->recording = 1;
	return REPLAY_RECORD;
}

void cuda_recorded(struct backend *b)
{
	struct cuda_state *s = cuda_of(b);
	struct recording *r = s->decode->current;
	s->decode->current = NULL;
	if (!r)
		return;
	r->ran = 1;
	r->given_back = s->given_back;
	if (!s->recording)
		return;
	cudaGraph_t graph;
	s->recording = 0;
	GRAPH(s, cudaStreamEndCapture(s->stream, &graph));
	GRAPH(s, cudaGraphInstantiateWithFlags(&r->graph, graph, 0));
	GRAPH(s, cudaGraphDestroy(graph));
	GRAPH(s, cudaGraphLaunch(r->graph, s->stream));
}

_Static_assert(sizeof(struct sampled) == sizeof(struct kernel_sampled) &&
                   sizeof(struct segment) == sizeof(struct kernel_segment),
               "slots are passed on as they are");

void cuda_advance(struct backend *b, const struct slots *slots, struct tensor logits, const struct sampling *how)
{
	struct cuda_state *s = cuda_of(b);
	struct kernel_sampled *sampled = (struct kernel_sampled *)(void *)slots->sampled;
	const struct kernel_draws draws = {.seed = slots->seed,
	                                   .domain = slots->domain,
	                                   .index = slots->index,
	                                   .response = slots->response,
	                                   .position = slots->drawn};
	const struct kernel_sampling as = {how->temperature, how->top_p, how->min_p, how->top_k};
	const struct kernel_slots to = {.token = slots->token,
	                                .row = slots->row,
	                                .position = slots->position,
	                                .left = slots->left,
	                                .drawn = slots->drawn,
	                                .segments = (struct kernel_segment *)(void *)slots->segments,
	                                .sampled = sampled,
	                                .stop = slots->stop,
	                                .stop_count = slots->stop_count};
	KERNEL(s, kernel_sample(sampled, logits.data, logits.stride, logits.rows, logits.cols, &draws, &as, s->stream));
	KERNEL(s, kernel_advance(&to, slots->count, s->stream));
}

/* Room for copies of that many bytes; what has come stays. */
static void post_room(struct cuda_state *s, struct cuda_decode *d, size_t bytes)
{
	if (bytes <= d->room)
		return;
	char *memory = NULL;
	CUDA(s, cudaStreamSynchronize(s->stream));
	CUDA(s, cudaHostAlloc((void **)&memory, POSTS * bytes, cudaHostAllocDefault));
	for (size_t i = 0; d->memory && i < POSTS; i++)
		memcpy(memory + i * bytes, d->memory + i * d->room, d->room);
	CUDA(s, cudaFreeHost(d->memory));
	d->memory = memory;
	d->room = bytes;
}

uint64_t cuda_post(struct backend *b, void *to, const void *from, size_t bytes)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_decode *d = s->decode;
	cuda_not_recording(s, "a result is posted");
	post_room(s, d, bytes);
	const size_t at = d->posted % POSTS;
	d->to[at] = to;
	d->bytes[at] = bytes;
	CUDA(s, cudaMemcpyAsync(d->memory + at * d->room, from, bytes, cudaMemcpyDeviceToHost, s->stream));
	CUDA(s, cudaEventRecord(d->done[at], s->stream));
	return d->posted++;
}

void cuda_collect(struct backend *b, uint64_t number)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_decode *d = s->decode;
	cuda_not_recording(s, "the host waits for a result");
	if (number >= d->posted || d->posted - number > POSTS)
		s->host.die("cuda: result %llu is collected, of %llu posted the newest %d can be", (unsigned long long)number,
		            (unsigned long long)d->posted, (int)POSTS);
	const size_t at = number % POSTS;
	CUDA(s, cudaEventSynchronize(d->done[at]));
	memcpy(d->to[at], d->memory + at * d->room, d->bytes[at]);
}
