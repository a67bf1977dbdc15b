/* Rollout on the tiny golden model: what a response is does not depend on its batch mates, ends are where they should
 * be, and the recorded probabilities are those of the distributions that they are said to be of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../tiny.h"
#include "model/pass.h"

#include <math.h>

static void destroy(struct group **groups, int n)
{
	for (int i = 0; i < n; i++)
		group_destroy(groups[i]);
}

/* Invariant 1: prompts of different kinds decoded together, with stops that thin the batch out, are those decoded
 * alone; and a response is the same whatever the number of its siblings and of threads. */
static void test_together(void **state)
{
	(void)state;
	static const int32_t counts[TINY_PROMPTS] = {4, 2, 5, 3}, one = 1;
	struct group *first[TINY_PROMPTS];
	for (int threads = 1; threads <= 3; threads++) {
		struct tiny t;
		struct rollout r;
		struct group *together[TINY_PROMPTS], *alone;
		tiny_open(&t, backend_cpu_new(threads));
		rollout_init(&r, t.model, t.tokenizer);
		r.max_tokens = 24;
		r.seed = 5;
		r.sampling.temperature = 1.3f;
		for (int32_t id = 64; id < 88; id += 2) /* some common letters */
			r.stop[r.stop_count++] = id;
		tiny_roll(&t, &r, 0, TINY_PROMPTS, counts, together);
		int stopped = 0, cut = 0;
		for (int i = 0; i < TINY_PROMPTS; i++) {
			assert_int_equal(together[i]->responses, counts[i]);
			assert_int_equal(together[i]->index, 10 + i);
			assert_int_equal(together[i]->step, 3);
			assert_int_equal(together[i]->record, i);
			assert_int_equal(together[i]->prompt_tokens, t.prompts[i].ids.count);
			assert_true(together[i]->temperature == 1.3f);
			tiny_roll(&t, &r, i, 1, &counts[i], &alone);
			assert_int_equal(group_digest(alone), group_digest(together[i]));
			for (int32_t k = 0; k < counts[i]; k++) {
				tiny_same_response(alone, k, together[i], k);
				stopped += alone->finish[k] == FINISH_STOP;
				cut += alone->finish[k] == FINISH_LENGTH;
			}
			group_destroy(alone);
			tiny_roll(&t, &r, i, 1, &one, &alone);
			tiny_same_response(alone, 0, together[i], 0);
			group_destroy(alone);
			if (threads > 1) {
				assert_int_equal(group_digest(first[i]), group_digest(together[i]));
				group_destroy(together[i]);
			} else {
				first[i] = together[i];
			}
		}
		assert_true(stopped > 0 && cut > 0); /* batches of different lengths were among them */
		rollout_free(&r);
		tiny_close(&t);
	}
	destroy(first, TINY_PROMPTS);
}

/* Many groups of four prompts through few places. */
enum { MANY = 24, MANY_RESPONSES = 4, STOP_IDS = 12 };
struct many {
	struct tiny *t;
	int at, dry;          /* the next one | how often it still says that there is none now */
	int out, most, early; /* under way, at most so far | groups that ended while one that was given before went on */
	int given[MANY], dropped;
	struct group *groups[MANY];
};

static struct rollout_request many_request(const struct tiny *t, int i)
{
	return (struct rollout_request){.prompt = &t->prompts[i % TINY_PROMPTS],
	                                .index = (uint64_t)i,
	                                .record = (uint32_t)i,
	                                .responses = MANY_RESPONSES - i % 2,
	                                .source = i};
}

static int next_of_many(void *arg, int busy, int32_t room, struct rollout_request *q)
{
	struct many *m = arg;
	assert_true(room > 0);
	assert_int_equal(busy, m->out > 0);
	if (m->at == MANY)
		return -1;
	if (busy && m->dry++ % 3)
		return 0;
	*q = many_request(m->t, m->at);
	m->given[m->at++] = 1;
	m->out++;
	m->most = m->out > m->most ? m->out : m->most;
	return 1;
}

static void done_of_many(void *arg, const struct rollout_request *q, struct group *group)
{
	struct many *m = arg;
	assert_true(m->given[q->source]);
	assert_null(m->groups[q->source]);
	m->given[q->source] = 0;
	m->groups[q->source] = group;
	m->dropped += !group;
	m->out--;
	for (int i = 0; i < q->source; i++)
		if (m->given[i]) {
			m->early++;
			break;
		}
}

/* Gives up as soon as half of the groups have been given. */
static int give_up_at_half(void *arg)
{
	const struct many *m = arg;
	return m->at >= MANY / 2 && m->out > 1;
}

/* Groups of different prompts, numbers of responses and, above all, lengths pass through few places, and come out as one
 * rolled out alone does: to the bit, each once, as soon as it has ended. */
static void test_places(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 2; threads++) {
		struct tiny t;
		struct rollout r;
		struct group *alone[MANY];
		struct favor_error e = {""};
		tiny_open(&t, backend_cpu_new(threads));
		rollout_init(&r, t.model, t.tokenizer);
		r.max_tokens = 40;
		r.seed = 11;
		r.sampling.temperature = 1.3f;
		for (int32_t id = 64; id < 64 + 2 * STOP_IDS; id += 2)
			r.stop[r.stop_count++] = id;
		int32_t longest = 0, shortest = r.max_tokens, prompt_tokens = 0;
		for (int i = 0; i < MANY; i++) {
			const struct rollout_request q = many_request(&t, i);
			assert_int_equal(rollout_groups(&r, &q, 1, &alone[i], &e), 0);
			prompt_tokens = q.prompt->ids.count > prompt_tokens ? q.prompt->ids.count : prompt_tokens;
			for (int32_t k = 0; k < q.responses; k++) {
				const int32_t n = alone[i]->start[k + 1] - alone[i]->start[k];
				longest = n > longest ? n : longest;
				shortest = n < shortest ? n : shortest;
			}
		}
		assert_true(longest > 5 * shortest); /* else this says little */
		int early = 0;
		for (int32_t groups = 1; groups <= 8; groups *= 2) {
			const struct rollout_room room = {groups, MANY_RESPONSES, prompt_tokens};
			struct many m = {.t = &t};
			const struct rollout_source source = {next_of_many, done_of_many, &m};
			assert_int_equal(rollout_run(&r, &room, &source, &e), 0);
			assert_int_equal(m.at, MANY);
			assert_int_equal(m.out + m.dropped, 0);
			assert_in_range(m.most, groups > 1 ? 2 : 1, rollout_groups_most(&room));
			assert_true(groups > 1 || m.early == 0);
			early += m.early;
			for (int i = 0; i < MANY; i++) {
				assert_int_equal(group_digest(m.groups[i]), group_digest(alone[i]));
				for (int32_t k = 0; k < alone[i]->responses; k++)
					tiny_same_response(m.groups[i], k, alone[i], k);
			}
			destroy(m.groups, MANY);
		}
		assert_true(early > 0); /* groups overtook one another */
		/* given up in the middle: what is under way comes back as dropped, what has ended stays, and it goes on working */
		struct many m = {.t = &t};
		const struct rollout_source source = {next_of_many, done_of_many, &m};
		const struct rollout_room room = {4, MANY_RESPONSES, prompt_tokens}, narrow = {4, MANY_RESPONSES, 1};
		r.tick = give_up_at_half;
		r.tick_arg = &m;
		assert_int_equal(rollout_run(&r, &room, &source, &e), 1);
		assert_int_equal(m.out, 0);
		assert_true(m.dropped > 1 && m.at < MANY);
		destroy(m.groups, MANY);
		r.tick = NULL;
		m = (struct many){.t = &t};
		assert_int_equal(rollout_run(&r, &narrow, &source, &e), -1);
		assert_non_null(strstr(e.message, "room"));
		assert_int_equal(m.out, 0);
		destroy(m.groups, MANY);
		destroy(alone, MANY);
		rollout_free(&r);
		tiny_close(&t);
	}
}

/* Draws are of (seed, domain, index, response, position): changing one of the first three changes the responses. */
static void test_draws(void **state)
{
	(void)state;
	struct tiny t;
	struct rollout r;
	struct group *groups[4];
	const int32_t G = 3;
	struct favor_error e = {""};
	tiny_open(&t, backend_cpu_new(1));
	rollout_init(&r, t.model, t.tokenizer);
	r.max_tokens = 12;
	for (int i = 0; i < 4; i++) {
		r.seed = i == 1;
		r.domain = i == 2 ? RNG_EVAL : RNG_SAMPLE;
		const struct rollout_request q = {.prompt = &t.prompts[0], .index = i == 3, .responses = G};
		assert_int_equal(rollout_groups(&r, &q, 1, &groups[i], &e), 0);
		for (int k = 0; k < i; k++)
			assert_int_not_equal(group_digest(groups[i]), group_digest(groups[k]));
	}
	destroy(groups, 4);
	rollout_free(&r);
	tiny_close(&t);
}

static void test_ends(void **state)
{
	(void)state;
	struct tiny t;
	struct rollout r;
	struct group *g, *longer;
	const int32_t G = 6;
	tiny_open(&t, backend_cpu_new(2));
	rollout_init(&r, t.model, t.tokenizer);
	assert_int_equal(r.stop_count, 2); /* generation_config.json's */
	r.stop_count = 0;
	r.max_tokens = 10;
	tiny_roll(&t, &r, 1, 1, &G, &longer);
	assert_int_equal(longer->start[G], G * 10);

	r.max_tokens = 1;
	tiny_roll(&t, &r, 1, 1, &G, &g);
	assert_int_equal(g->start[G], G);
	for (int32_t k = 0; k < G; k++) { /* the beginnings of the longer ones */
		assert_int_equal(g->finish[k], FINISH_LENGTH);
		assert_int_equal(g->token_ids[k], longer->token_ids[longer->start[k]]);
		assert_true(g->logp[k] == longer->logp[longer->start[k]]);
	}
	group_destroy(g);

	/* the first token of response 0 ends responses now: that one at once and without a text, the others at their first
	 * of it */
	const int32_t stop = longer->token_ids[0];
	for (int32_t max_tokens = 1; max_tokens <= 10; max_tokens += 9) {
		r.max_tokens = max_tokens;
		r.stop[0] = t.model->config.vocab_size - 1;
		r.stop[1] = stop;
		r.stop_count = 2;
		tiny_roll(&t, &r, 1, 1, &G, &g);
		assert_int_equal(g->start[1], 1);
		assert_int_equal(g->finish[0], FINISH_STOP);
		assert_string_equal(g->text[0], "");
		for (int32_t k = 0; k < G; k++) {
			const int32_t n = g->start[k + 1] - g->start[k];
			assert_in_range(n, 1, max_tokens);
			for (int32_t i = 0; i < n; i++) {
				const int32_t id = g->token_ids[g->start[k] + i];
				const int ends = id == stop || id == r.stop[0];
				assert_int_equal(id, longer->token_ids[longer->start[k] + i]);
				assert_int_equal(ends, i == n - 1 && g->finish[k] == FINISH_STOP);
			}
			if (g->finish[k] == FINISH_LENGTH)
				assert_int_equal(n, max_tokens);
		}
		group_destroy(g);
	}
	group_destroy(longer);
	rollout_free(&r);
	tiny_close(&t);
}

/* logp and entropy are of softmax(logits / temperature), as the training pass computes them over the same tokens (logp
 * to the bit); sampling_logp is logp where nothing is cut off, and at least logp elsewhere. */
static void test_probabilities(void **state)
{
	(void)state;
	static const struct sampling how[] = {{.temperature = 1, .top_p = 1},
	                                      {.temperature = 0.7f, .top_p = 1},
	                                      {.temperature = 2.5f, .top_p = 1},
	                                      {.temperature = 1, .top_p = 1, .top_k = 5},
	                                      {.temperature = 0.8f, .top_p = 0.6f},
	                                      {.temperature = 1, .top_p = 1, .min_p = 0.1f},
	                                      {.temperature = 1.2f, .top_p = 0.9f, .min_p = 0.02f, .top_k = 50},
	                                      {.temperature = 1, .top_p = 1, .top_k = 1}};
	const int32_t G = 5;
	struct tiny t;
	struct rollout r;
	tiny_open(&t, backend_cpu_new(2));
	rollout_init(&r, t.model, t.tokenizer);
	r.max_tokens = 16;
	const struct run run = {t.backend, &r.arena, NULL, NULL};
	for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
		const int p = (int)i % 3, cuts = how[i].top_p < 1 || how[i].min_p > 0 || how[i].top_k > 0;
		struct favor_error e = {""};
		struct group *g;
		r.sampling = how[i];
		tiny_roll(&t, &r, p, 1, &G, &g);
		const int32_t n = g->start[G];
		struct image_input images[2];
		for (int k = 0; k < t.prompts[p].image_count; k++)
			images[k] = (struct image_input){1, t.prompts[p].images[k].grid_h, t.prompts[p].images[k].grid_w,
			                                 t.prompts[p].images[k].values};
		struct batch b;
		struct prefix prefix;
		struct pass pass;
		batch_init(&b, &t.model->config);
		assert_int_equal(batch_add_prompt(&b, t.prompts[p].ids.ids, t.prompts[p].ids.count, images,
		                                  t.prompts[p].image_count, &prefix, &e),
		                 0);
		for (int32_t k = 0; k < G; k++)
			assert_int_equal(
				batch_add_response(&b, &prefix, g->token_ids + g->start[k], g->start[k + 1] - g->start[k], &e), 0);
		float *logp = favor_malloc((size_t)n * 2 * sizeof *logp), *entropy = logp + n;
		struct arena_mark mark = arena_mark(&r.arena);
		pass_forward(&pass, &run, t.model, &b, how[i].temperature, 0, 0, 0, logp, entropy);
		pass_end(&pass);
		arena_reset(&r.arena, mark);
		batch_free(&b);
		assert_memory_equal(logp, g->logp, (size_t)n * sizeof *logp);
		int raised = 0;
		for (int32_t k = 0; k < n; k++) {
			assert_true(fabsf(entropy[k] - g->entropy[k]) <= 1e-5f * (1 + entropy[k]));
			assert_true(g->entropy[k] >= 0 && (double)g->entropy[k] <= log(t.model->config.vocab_size) + 1e-5);
			assert_true(g->logp[k] <= 0 && g->sampling_logp[k] <= 0);
			if (!cuts)
				assert_memory_equal(&g->sampling_logp[k], &g->logp[k], sizeof *g->logp);
			assert_true(g->sampling_logp[k] >= g->logp[k]);
			raised += g->sampling_logp[k] > g->logp[k];
			if (how[i].top_k == 1)
				assert_true(g->sampling_logp[k] == 0);
		}
		assert_true(!cuts || raised > n / 2);
		for (int32_t k = 1; k < G; k++) /* all first tokens are drawn from one distribution */
			assert_true(g->entropy[g->start[k]] == g->entropy[0]);
		free(logp);
		group_destroy(g);
	}
	rollout_free(&r);
	tiny_close(&t);
}

/* Temperature 0 takes the most probable token, as top_k 1 does; its probability is that of temperature 1. */
static void test_greedy(void **state)
{
	(void)state;
	const int32_t G = 3;
	struct tiny t;
	struct rollout r;
	struct group *greedy, *top;
	tiny_open(&t, backend_cpu_new(1));
	rollout_init(&r, t.model, t.tokenizer);
	r.max_tokens = 16;
	r.sampling.temperature = 0;
	tiny_roll(&t, &r, 0, 1, &G, &greedy);
	r.sampling = (struct sampling){.temperature = 1, .top_p = 1, .top_k = 1};
	tiny_roll(&t, &r, 0, 1, &G, &top);
	for (int32_t k = 0; k < G; k++) {
		tiny_same_response(greedy, k, greedy, 0);
		tiny_same_response(greedy, k, top, k);
	}
	group_destroy(greedy);
	group_destroy(top);
	rollout_free(&r);
	tiny_close(&t);
}

/* Hot sampling reaches all of the vocabulary: ids are in it, and texts are what their ids decode to, special tokens
 * included. */
static void test_texts(void **state)
{
	(void)state;
	const int32_t G = 64;
	struct tiny t;
	struct rollout r;
	struct group *g;
	tiny_open(&t, backend_cpu_new(2));
	rollout_init(&r, t.model, t.tokenizer);
	r.max_tokens = 32;
	r.sampling.temperature = 50;
	tiny_roll(&t, &r, 2, 1, &G, &g);
	const int32_t box = tokenizer_id(t.tokenizer, "<|box_start|>"), vocab = t.model->config.vocab_size;
	int boxes = 0, padding = 0, nuls = 0, stopped = 0;
	for (int32_t k = 0; k < G; k++) {
		const int32_t *ids = g->token_ids + g->start[k], n = g->start[k + 1] - g->start[k];
		size_t length;
		char *text = tokenizer_decode(t.tokenizer, ids, n - (g->finish[k] == FINISH_STOP), 0, &length);
		const char *have = g->text[k];
		for (size_t i = 0; i < length; i++) {
			if (text[i]) {
				assert_int_equal(*have++, text[i]);
				continue;
			}
			assert_int_equal(strncmp(have, "\xef\xbf\xbd", 3), 0);
			have += 3;
			nuls++;
		}
		assert_int_equal(*have, 0);
		for (int32_t i = 0; i < n; i++) {
			assert_in_range(ids[i], 0, vocab - 1);
			padding += ids[i] >= tokenizer_vocab_size(t.tokenizer);
			if (ids[i] == box) {
				boxes++;
				assert_non_null(strstr(g->text[k], "<|box_start|>"));
			}
		}
		stopped += g->finish[k] == FINISH_STOP;
		assert_null(strstr(g->text[k], "<|im_end|>"));
		free(text);
	}
	assert_true(boxes && padding && nuls && stopped); /* else the above says nothing */
	group_destroy(g);
	rollout_free(&r);
	tiny_close(&t);
}

static void test_refused(void **state)
{
	(void)state;
	struct tiny t;
	struct rollout r;
	struct group *groups[2] = {NULL, NULL}, *g;
	struct favor_error e = {""};
	const int32_t G = 2;
	tiny_open(&t, backend_cpu_new(1));
	rollout_init(&r, t.model, t.tokenizer);
	r.max_tokens = 4;
	struct rollout_request q[2] = {{.prompt = &t.prompts[0], .responses = G},
	                               {.prompt = &t.prompts[2], .responses = G}};
	const int32_t kept = t.prompts[2].ids.ids[1];
	t.prompts[2].ids.ids[1] = t.model->config.vocab_size; /* the second prompt: the first has been computed by then */
	assert_int_equal(rollout_groups(&r, q, 2, groups, &e), -1);
	assert_non_null(strstr(e.message, "vocabulary"));
	assert_null(groups[0]);
	t.prompts[2].ids.ids[1] = t.model->config.image_token;
	assert_int_equal(rollout_groups(&r, q, 2, groups, &e), -1);
	assert_non_null(strstr(e.message, "image"));
	t.prompts[2].ids.ids[1] = kept;
	q[1].responses = 1 << 20;
	r.max_tokens = 1 << 12;
	assert_int_equal(rollout_groups(&r, q, 2, groups, &e), -1);
	assert_non_null(strstr(e.message, "rows"));
	r.max_tokens = 4; /* and goes on working */
	tiny_roll(&t, &r, 2, 1, &G, &g);
	group_destroy(g);
	rollout_free(&r);
	tiny_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_together), cmocka_unit_test(test_draws), cmocka_unit_test(test_ends),
		cmocka_unit_test(test_probabilities), cmocka_unit_test(test_greedy), cmocka_unit_test(test_texts),
		cmocka_unit_test(test_refused),       cmocka_unit_test(test_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
