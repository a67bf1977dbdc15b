/* Rollout by steps on the CUDA backend: replayed as graphs, launched one by one, and by the host token after token: the
 * same bits. Responses stop at different positions; greedy and sampled, with truncation; one response, one token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../apart.h"
#include "../tiny.h"
#include "backend/cuda/open.h"
#include "backend/ops.h"

static struct backend *cuda_new(const char *graph, enum products products)
{
	struct favor_error e = {""};
	char device[320];
	setenv("FAVOR_CUDA_GRAPH", graph, 1);
	struct backend *b = backend_cuda_open(0, device, sizeof device, &e);
	if (!b)
		fail_msg("%s", e.message);
	backend_set_products(b, products);
	return b;
}

static const struct sampling ways[] = {{1.3f, 1, 0, 0}, {0.9f, 0.9f, 0.01f, 40}, {0, 1, 0, 0}};
enum { WAYS = sizeof ways / sizeof *ways };

static void rules(struct rollout *r, int way, int32_t max_tokens)
{
	r->max_tokens = max_tokens;
	r->seed = 5;
	r->sampling = ways[way];
	for (int32_t id = 64; id < 88; id += 2) /* some common letters */
		r->stop[r->stop_count++] = id;
}

/* Groups of the text prompts, by one rollout after another: many responses, one, as many as at first. An emulation
 * takes its time. */
enum { ROUNDS = 3, TEXT = 2, PROMPTS = TINY_PROMPTS - TEXT };
static const int32_t counts[ROUNDS][PROMPTS] = {{4, 3}, {1}, {4, 3}};
static int prompts_of(int round)
{
	return round == 1 ? 1 : PROMPTS;
}

static void roll(const char *graph, enum products products, int way, int32_t max_tokens,
                 struct group *groups[ROUNDS][PROMPTS])
{
	struct tiny t;
	struct rollout r;
	tiny_open(&t, cuda_new(graph, products));
	rollout_init(&r, t.model, t.tokenizer);
	rules(&r, way, max_tokens);
	for (int round = 0; round < ROUNDS; round++)
		tiny_roll(&t, &r, TEXT, prompts_of(round), counts[round], groups[round]);
	rollout_free(&r);
	tiny_close(&t);
}

static void destroy(struct group *groups[ROUNDS][PROMPTS])
{
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < prompts_of(round); i++)
			group_destroy(groups[round][i]);
}

static void test_graphs(void **state)
{
	(void)state;
	int stopped = 0, cut = 0;
	for (int products = PRODUCTS_FLOAT32; products <= PRODUCTS_BFLOAT16; products++)
		for (int way = 0; way < WAYS; way++)
			for (int32_t max_tokens = way ? 16 : 1; max_tokens <= 16; max_tokens += 15) {
				if (products == PRODUCTS_BFLOAT16 && way != 1)
					continue;
				struct group *one[ROUNDS][PROMPTS], *two[ROUNDS][PROMPTS];
				roll("1", (enum products)products, way, max_tokens, one);
				roll("0", (enum products)products, way, max_tokens, two);
				for (int round = 0; round < ROUNDS; round++)
					for (int i = 0; i < prompts_of(round); i++)
						for (int32_t k = 0; k < counts[round][i]; k++) {
							tiny_same_response(one[round][i], k, two[round][i], k);
							tiny_same_response(one[0][i], k, one[round][i], k);
							stopped += one[round][i]->finish[k] == FINISH_STOP;
							cut += one[round][i]->finish[k] == FINISH_LENGTH;
						}
				destroy(one);
				destroy(two);
			}
	assert_true(stopped > 0 && cut > 0);
}

/* The host's way: each token is waited for, and the next step is made of it. */
static void test_by_the_host(void **state)
{
	(void)state;
	enum { G = 2, TOKENS = 20, MANY_TOKENS = 72 };
	const int32_t responses = G;
	for (int products = PRODUCTS_FLOAT32; products <= PRODUCTS_BFLOAT16; products++)
		for (int way = 1; way < WAYS; way++) {
			struct favor_error e = {""};
			struct tiny t;
			struct rollout r;
			struct group *g;
			tiny_open(&t, cuda_new("1", (enum products)products));
			rollout_init(&r, t.model, t.tokenizer);
			/* once past the 64 steps after which attention is told anew: nothing stops these */
			const int32_t tokens = products == PRODUCTS_FLOAT32 && way == 1 ? MANY_TOKENS : TOKENS;
			rules(&r, way, tokens);
			if (tokens == MANY_TOKENS)
				r.stop_count = 0;
			tiny_roll(&t, &r, TEXT, 1, &responses, &g);
			assert_true(tokens == TOKENS || g->start[G] == G * MANY_TOKENS);
			const struct run run = {t.backend, &r.arena, NULL, NULL};
			const struct prompt *p = &t.prompts[TEXT];
			struct session_prompt prompt;
			struct arena_mark mark = arena_mark(&r.arena);
			struct tensor logits = run_tensor(&run, 1, t.model->config.vocab_size);
			for (int32_t k = 0; k < G; k++) {
				struct timeline line, *all[1] = {&line};
				session_reset(&r.session, &(struct session_room){1, p->ids.count, G, tokens});
				assert_int_equal(0, session_prefill(&r.session, &run, 0, p->ids.ids, p->ids.count, p->inputs,
				                                    p->image_count, &prompt, logits, &e));
				session_timeline(&r.session, k, &prompt, &line);
				for (int32_t i = g->start[k]; i < g->start[k + 1]; i++) {
					struct sampled d;
					const double u = rng_uniform(r.seed, r.domain, 10 + TEXT, (uint32_t)k, (uint32_t)(i - g->start[k]));
					op_sample(t.backend, &d, logits, &u, &r.sampling);
					assert_int_equal(d.token, g->token_ids[i]);
					assert_memory_equal(&d.logp, &g->logp[i], sizeof d.logp);
					assert_memory_equal(&d.sampling_logp, &g->sampling_logp[i], sizeof d.logp);
					assert_memory_equal(&d.entropy, &g->entropy[i], sizeof d.entropy);
					session_decode(&r.session, &run, all, &d.token, 1, logits);
				}
			}
			arena_reset(&r.arena, mark);
			group_destroy(g);
			rollout_free(&r);
			tiny_close(&t);
		}
}

/* What the host waits for while groups pass: a backend's table with these in it. */
static struct {
	struct backend_ops ops;
	uint64_t posted, before; /* results on their way so far | when the newest group's prompt was asked for */
	int queued;              /* steps since then */
	int waits, too_early;    /* by other ways than collect | collected what lies behind a prompt that no step followed */
} watched;

static void watched_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u, const struct sampling *how)
{
	watched.waits++;
	watched.ops.sample(b, out, logits, u, how);
}

static void watched_download(struct backend *b, void *to, const void *from, size_t bytes)
{
	watched.waits++;
	watched.ops.download(b, to, from, bytes);
}

static void watched_sync(struct backend *b)
{
	watched.waits++;
	watched.ops.sync(b);
}

static uint64_t watched_post(struct backend *b, void *to, const void *from, size_t bytes)
{
	const uint64_t number = watched.ops.post(b, to, from, bytes);
	watched.posted = number + 1;
	return number;
}

static void watched_collect(struct backend *b, uint64_t number)
{
	watched.too_early += number >= watched.before && !watched.queued;
	watched.ops.collect(b, number);
}

static enum replay watched_replay(struct backend *b, const void *key, size_t bytes)
{
	watched.queued++;
	return watched.ops.replay(b, key, bytes);
}

static void watch(struct backend *b)
{
	memset(&watched, 0, sizeof watched);
	watched.ops = b->ops;
	b->ops.sample = watched_sample;
	b->ops.download = watched_download;
	b->ops.sync = watched_sync;
	b->ops.post = watched_post;
	b->ops.collect = watched_collect;
	b->ops.replay = watched_replay;
}

/* Groups pass through the places of two, so that a place that is free is taken while other responses go on. */
enum { PASSING = 6, WIDE = 3, PASSING_TOKENS = 16 };
struct passing {
	struct tiny *t;
	int at, late, apart; /* the next one | groups that began while others went on | none begins while another goes on */
	struct group *groups[PASSING];
};

static int next_passing(void *arg, int busy, int32_t room, struct rollout_request *q)
{
	struct passing *p = arg;
	(void)room;
	if (p->at == PASSING)
		return -1;
	p->late += busy && p->at >= 2;
	watched.before = watched.posted;
	watched.queued = 0;
	*q = (struct rollout_request){.prompt = &p->t->prompts[TEXT + p->at % PROMPTS],
	                              .index = (uint64_t)p->at,
	                              .responses = WIDE - p->at % 2,
	                              .source = p->at};
	p->at++;
	return 1;
}

static void done_passing(void *arg, const struct rollout_request *q, struct group *group)
{
	((struct passing *)arg)->groups[q->source] = group;
}

static void test_places(void **state)
{
	(void)state;
	struct group *first[PASSING];
	for (int graph = 1; graph >= 0; graph--) {
		struct tiny t;
		struct rollout r;
		struct favor_error e = {""};
		tiny_open(&t, cuda_new(graph ? "1" : "0", PRODUCTS_FLOAT32));
		rollout_init(&r, t.model, t.tokenizer);
		rules(&r, 1, PASSING_TOKENS);
		struct passing p = {.t = &t};
		const struct rollout_source source = {next_passing, done_passing, &p};
		const struct rollout_room room = {2, WIDE, t.prompts[TEXT].ids.count};
		watch(t.backend);
		assert_int_equal(rollout_run(&r, &room, &source, &e), 0);
		t.backend->ops = watched.ops;
		assert_true(p.late > 0);
		/* a group's first tokens are not waited for: steps that feed them are queued before */
		assert_int_equal(watched.waits, 0);
		assert_int_equal(watched.too_early, 0);
		assert_true(watched.posted > 0);
		for (int i = 0; i < PASSING; i++) {
			if (graph) { /* as it is alone */
				struct group *alone;
				const struct rollout_request q = {.prompt = &t.prompts[TEXT + i % PROMPTS],
				                                  .index = (uint64_t)i,
				                                  .responses = WIDE - i % 2};
				assert_int_equal(rollout_groups(&r, &q, 1, &alone, &e), 0);
				for (int32_t k = 0; k < q.responses; k++)
					tiny_same_response(p.groups[i], k, alone, k);
				group_destroy(alone);
				first[i] = p.groups[i];
				continue;
			}
			for (int32_t k = 0; k < first[i]->responses; k++)
				tiny_same_response(p.groups[i], k, first[i], k);
			group_destroy(p.groups[i]);
		}
		rollout_free(&r);
		tiny_close(&t);
	}
	for (int i = 0; i < PASSING; i++)
		group_destroy(first[i]);
}

/* Groups in a room for more than 64 responses, one beside the other or, apart, one after the other. */
enum { CROWD = 33, CROWD_TOKENS = 4 };

static int next_of_crowd(void *arg, int busy, int32_t room, struct rollout_request *q)
{
	struct passing *p = arg;
	(void)room;
	if (p->at == PROMPTS)
		return -1;
	if (busy && p->apart)
		return 0;
	*q = (struct rollout_request){
	    .prompt = &p->t->prompts[TEXT + p->at], .index = (uint64_t)p->at, .responses = CROWD, .source = p->at};
	p->at++;
	return 1;
}

/* How many decode beside it is no matter of a response's bits, though products of more rows, or of matrices that lie otherwise,
 * may add in another order: those of the emulation do here. */
static void test_crowd(void **state)
{
	(void)state;
	struct group *groups[2][PROMPTS];
	setenv("FAVOR_EMULATED_SUMS", "1", 1);
	for (int apart = 0; apart < 2; apart++) {
		struct tiny t;
		struct rollout r;
		struct favor_error e = {""};
		tiny_open(&t, cuda_new("1", PRODUCTS_FLOAT32));
		rollout_init(&r, t.model, t.tokenizer);
		rules(&r, 0, CROWD_TOKENS);
		struct passing p = {.t = &t, .apart = apart};
		const struct rollout_source source = {next_of_crowd, done_passing, &p};
		const struct rollout_room room = {PROMPTS, CROWD, t.prompts[TEXT].ids.count};
		assert_int_equal(rollout_run(&r, &room, &source, &e), 0);
		memcpy(groups[apart], p.groups, sizeof groups[apart]);
		rollout_free(&r);
		tiny_close(&t);
	}
	unsetenv("FAVOR_EMULATED_SUMS");
	for (int i = 0; i < PROMPTS; i++) {
		for (int32_t k = 0; k < CROWD; k++)
			tiny_same_response(groups[0][i], k, groups[1][i], k);
		group_destroy(groups[0][i]);
		group_destroy(groups[1][i]);
	}
}

struct apart {
	const char *graph, *setting, *value;
};

static void roll_with(void *arg)
{
	const struct apart *a = arg;
	struct group *groups[ROUNDS][PROMPTS];
	setenv(a->setting, a->value, 1);
	roll(a->graph, PRODUCTS_FLOAT32, 0, 20, groups);
}

/* Rolls out in a process of its own whose emulation has that setting: its exit code, and what it says. */
static int roll_apart(const char *graph, const char *setting, const char *value, char *message, size_t size)
{
	struct apart a = {graph, setting, value};
	const int status = run_apart(roll_with, &a, message, size);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Where streams can't be captured, or a graph can't be launched, the run ends and says what to do; launched one by one
 * it goes. That the sixth launch of a graph is missed shows that steps are replays. */
static void test_without_graphs(void **state)
{
	(void)state;
	if (!strstr(getenv("FAVOR_CUDA_LIBRARY"), "emulated"))
		skip(); /* a GPU takes no such orders */
	static const struct {
		const char *setting, *value, *call;
	} ways_to_fail[] = {{"FAVOR_EMULATED_NO_GRAPHS", "1", "cudaStreamBeginCapture"},
	                    {"FAVOR_EMULATED_GRAPH_LAUNCHES", "5", "cudaGraphLaunch"}};
	for (size_t i = 0; i < sizeof ways_to_fail / sizeof *ways_to_fail; i++) {
		char message[2048];
		assert_int_equal(roll_apart("0", ways_to_fail[i].setting, ways_to_fail[i].value, message, sizeof message), 0);
		assert_int_equal(roll_apart("1", ways_to_fail[i].setting, ways_to_fail[i].value, message, sizeof message), 1);
		assert_non_null(strstr(message, ways_to_fail[i].call));
		assert_non_null(strstr(message, "with FAVOR_CUDA_GRAPH=0 decoding launches its kernels one by one"));
	}
	struct favor_error e = {""};
	char device[320];
	setenv("FAVOR_CUDA_GRAPH", "yes", 1);
	assert_null(backend_cuda_open(0, device, sizeof device, &e));
	assert_non_null(strstr(e.message, "FAVOR_CUDA_GRAPH is \"yes\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_without_graphs), cmocka_unit_test(test_graphs),
	                                   cmocka_unit_test(test_by_the_host), cmocka_unit_test(test_places),
	                                   cmocka_unit_test(test_crowd)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
