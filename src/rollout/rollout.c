/* One batch of responses from prefill to the last stop token.
 *
 *   prefill each prompt -> G first tokens from its last row
 *   while some response goes on: feed the newest tokens of all that go on, sample the next
 *
 * The batch shrinks as responses end; their bits don't change with it (backend.h). */
#include "rollout/rollout.h"

#include "backend/ops.h"
#include "base/clock.h"
#include "model/pass.h"

#include <stdlib.h>
#include <string.h>

/* One response under way. */
struct response {
	int32_t request, number; /* which group, which of its G */
	struct timeline timeline;
	int32_t *ids;            /* [max_tokens] */
	struct sampled *sampled; /* [max_tokens] */
	int32_t tokens;
	enum finish finish;
	int done;
};

void rollout_init(struct rollout *r, struct model *m, const struct tokenizer *t)
{
	*r = (struct rollout){
	    .model = m, .tokenizer = t, .domain = RNG_SAMPLE, .max_tokens = 1, .sampling = {.temperature = 1, .top_p = 1}};
	session_init(&r->session, m);
	run_arena_init(&r->arena, m->backend);
	for (int32_t i = 0; i < m->config.eos_count; i++)
		r->stop[r->stop_count++] = m->config.eos[i];
}

void rollout_free(struct rollout *r)
{
	session_free(&r->session);
	arena_free(&r->arena);
}

static int is_stop(const struct rollout *r, int32_t id)
{
	for (int32_t i = 0; i < r->stop_count; i++)
		if (r->stop[i] == id)
			return 1;
	return 0;
}

static void take(const struct rollout *r, struct response *s, const struct sampled *d)
{
	s->ids[s->tokens] = d->token;
	s->sampled[s->tokens++] = *d;
	if (is_stop(r, d->token)) {
		s->finish = FINISH_STOP;
		s->done = 1;
	} else if (s->tokens == r->max_tokens) {
		s->finish = FINISH_LENGTH;
		s->done = 1;
	}
}

static double draw(const struct rollout *r, const struct rollout_request *q, const struct response *s)
{
	return rng_uniform(r->seed, r->domain, q->index, (uint32_t)s->number, (uint32_t)s->tokens);
}

/* Prompts of all requests; the first token of each response. */
static int start(struct rollout *r, const struct run *run, const struct rollout_request *requests, int32_t n,
                 struct response *responses, struct favor_error *e)
{
	int result = 0;
	int32_t at = 0;
	for (int32_t i = 0; i < n; i++) {
		const struct prompt *p = requests[i].prompt;
		const int32_t G = requests[i].responses;
		struct arena_mark mark = arena_mark(run->arena);
		struct session_prompt prompt;
		/* G rows of the same logits, so that one op samples all first tokens */
		struct tensor logits = run_tensor(run, G, r->model->config.vocab_size);
		result = session_prefill(&r->session, run, p->ids.ids, p->ids.count, p->inputs, p->image_count, &prompt,
		                         tensor_rows(logits, 0, 1), e);
		if (result)
			goto done;
		int32_t *zeros = favor_calloc((size_t)G, sizeof *zeros);
		op_gather_rows(run->backend, tensor_rows(logits, 1, G - 1), tensor_rows(logits, 0, 1),
		               run_upload(run, zeros, (size_t)G * sizeof *zeros));
		free(zeros);
		double *u = favor_malloc((size_t)G * sizeof *u);
		struct sampled *d = favor_malloc((size_t)G * sizeof *d);
		for (int32_t g = 0; g < G; g++) {
			struct response *s = &responses[at + g];
			*s = (struct response){.request = i, .number = g};
			s->ids = favor_malloc((size_t)r->max_tokens * sizeof *s->ids);
			s->sampled = favor_malloc((size_t)r->max_tokens * sizeof *s->sampled);
			session_timeline(&r->session, &prompt, r->max_tokens, &s->timeline);
			u[g] = draw(r, &requests[i], s);
		}
		op_sample(run->backend, d, logits, u, &r->sampling);
		for (int32_t g = 0; g < G; g++)
			take(r, &responses[at + g], &d[g]);
		free(u);
		free(d);
		arena_reset(run->arena, mark);
		at += G;
	}
done:
	return result;
}

/* 1: given up. */
static int decode(struct rollout *r, const struct run *run, const struct rollout_request *requests,
                  struct response *responses, int32_t count)
{
	struct response **active = favor_malloc((size_t)count * sizeof *active);
	struct timeline **timelines = favor_malloc((size_t)count * sizeof *timelines);
	struct sampled *d = favor_malloc((size_t)count * sizeof *d);
	double *u = favor_malloc((size_t)count * sizeof *u);
	int32_t *tokens = favor_malloc((size_t)count * sizeof *tokens);
	int stopped = 0;
	while (!stopped) {
		int32_t n = 0;
		for (int32_t i = 0; i < count; i++) {
			struct response *s = &responses[i];
			if (s->done)
				continue;
			active[n] = s;
			timelines[n] = &s->timeline;
			tokens[n] = s->ids[s->tokens - 1];
			u[n++] = draw(r, &requests[s->request], s);
		}
		if (!n)
			break;
		struct arena_mark mark = arena_mark(run->arena);
		struct tensor logits = run_tensor(run, n, r->model->config.vocab_size);
		stopped = session_decode(&r->session, run, timelines, tokens, n, logits);
		if (!stopped) {
			op_sample(run->backend, d, logits, u, &r->sampling);
			for (int32_t i = 0; i < n; i++)
				take(r, active[i], &d[i]);
		}
		arena_reset(run->arena, mark);
	}
	free(active);
	free(timelines);
	free(d);
	free(u);
	free(tokens);
	return stopped;
}

/* A response's text, without its stop token. Special tokens stay visible: "<answer>run<|box_end|>ning</answer>" must
 * not read as an answer. So does a NUL, as U+FFFD: what stands behind it belongs to the response. */
static char *text_of(const struct rollout *r, const struct response *s)
{
	size_t n, nuls = 0, to = 0;
	char *text = tokenizer_decode(r->tokenizer, s->ids, s->tokens - (s->finish == FINISH_STOP), 0, &n);
	for (size_t i = 0; i < n; i++)
		nuls += !text[i];
	if (!nuls)
		return text;
	char *seen = favor_malloc(n + 2 * nuls + 1);
	for (size_t i = 0; i < n; i++) {
		if (text[i]) {
			seen[to++] = text[i];
		} else {
			memcpy(seen + to, "\xef\xbf\xbd", 3);
			to += 3;
		}
	}
	seen[to] = 0;
	free(text);
	return seen;
}

static struct group *collect(const struct rollout *r, const struct rollout_request *q, const struct response *responses)
{
	int32_t total = 0;
	for (int32_t i = 0; i < q->responses; i++)
		total += responses[i].tokens;
	struct group *g = group_new(q->responses, total);
	g->index = q->index;
	g->step = q->step;
	g->record = q->record;
	g->policy_version = r->model->version;
	g->temperature = r->sampling.temperature;
	g->prompt_tokens = q->prompt->ids.count;
	int32_t at = 0;
	for (int32_t i = 0; i < q->responses; i++) {
		const struct response *s = &responses[i];
		g->start[i] = at;
		for (int32_t k = 0; k < s->tokens; k++, at++) {
			g->token_ids[at] = s->ids[k];
			g->logp[at] = s->sampled[k].logp;
			g->sampling_logp[at] = s->sampled[k].sampling_logp;
			g->entropy[at] = s->sampled[k].entropy;
		}
		g->finish[i] = (uint8_t)s->finish;
		g->text[i] = text_of(r, s);
	}
	g->start[q->responses] = at;
	return g;
}

int rollout_groups(struct rollout *r, const struct rollout_request *requests, int32_t n, struct group **groups,
                   struct favor_error *e)
{
	const struct run run = {r->model->backend, &r->arena, r->tick, r->tick_arg};
	struct arena_mark mark = arena_mark(&r->arena);
	double begin = clock_seconds();
	int64_t rows = 0;
	int32_t count = 0;
	for (int32_t i = 0; i < n; i++) {
		rows += requests[i].prompt->ids.count + (int64_t)requests[i].responses * r->max_tokens;
		count += requests[i].responses;
	}
	if (rows > INT32_MAX)
		return favor_fail(e, "%d responses of up to %d tokens need %lld rows of keys and values; %d can be", count,
		                  r->max_tokens, (long long)rows, INT32_MAX);
	struct response *responses = favor_calloc((size_t)count, sizeof *responses);
	session_reset(&r->session, (int32_t)rows);
	int result = start(r, &run, requests, n, responses, e);
	if (!result)
		result = decode(r, &run, requests, responses, count);
	if (!result) {
		for (int32_t i = 0, at = 0; i < n; at += requests[i++].responses) {
			groups[i] = collect(r, &requests[i], responses + at);
			groups[i]->rollout_seconds = (clock_seconds() - begin) / n;
		}
	}
	for (int32_t i = 0; i < count; i++) {
		free(responses[i].ids);
		free(responses[i].sampled);
	}
	free(responses);
	arena_reset(&r->arena, mark);
	return result;
}

int64_t rollout_bytes(const struct backend *b, const struct model_config *c, int64_t prompt_tokens, int64_t patches,
                      int32_t responses, int32_t max_tokens, int32_t groups)
{
	const int64_t rows = (int64_t)groups * responses, layer_rows = prompt_tokens > rows ? prompt_tokens : rows;
	return session_bytes(b, c, groups * prompt_tokens + rows * max_tokens) +
	       pass_bytes(b, c, layer_rows, patches, 1, 1, 0) + rows * c->vocab_size * (int64_t)sizeof(float);
}
