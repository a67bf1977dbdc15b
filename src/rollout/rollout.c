/* From requests to groups.
 *
 *   as long as there is work or a response goes on:
 *     while a whole group's responses find free places: next request, prefill -> the logits of the prompt's last row
 *     feed the newest tokens of all responses that go on, sample the next; where the backend works ahead, some such
 *     steps are queued before the oldest one's tokens are looked at. The first of a group's steps samples its G first
 *     tokens from the prompt's logits, so nobody waits for a prompt
 *     a response that has ended frees its place; the last one of a group hands the group on and frees the prompt's
 *
 * A response's bits do not change with what else is in the batch (backend.h). All memory is taken before the first
 * token. */
#include "rollout/rollout.h"

#include "backend/ops.h"
#include "base/clock.h"
#include "model/pass.h"

#include <stdlib.h>
#include <string.h>

/* One group under way, at the prompt place with its number. */
struct under_way {
	struct rollout_request request;
	struct session_prompt prompt;
	int32_t open;            /* responses that go on; of a place that is free 0 */
	int32_t *tokens;         /* [G] so far */
	uint8_t *finish;         /* [G] enum finish, of those that have ended */
	int32_t *ids;            /* [G, max_tokens] */
	struct sampled *sampled; /* [G, max_tokens] */
	double begin;
};

/* One response place, the session's with its number. */
struct place {
	struct under_way *group; /* NULL: free */
	int32_t number;          /* which of its G */
	struct timeline timeline;
};

/* All that decodes together. */
struct together {
	struct rollout *r;
	struct run run;
	struct rollout_room room;
	const struct rollout_source *source;
	struct under_way *groups; /* [group_count] */
	int32_t group_count, groups_free;
	struct place *places; /* [place_count] */
	int32_t place_count, places_free;
	/* what decodes by steps, as steps_begin was told: [active_count]; an active place becomes NULL when its response
	 * ends */
	struct place **active;
	struct step_response *responses;
	int32_t active_count, ended;
	int changed; /* responses have begun since */
	struct sampled *drawn;
};

void rollout_init(struct rollout *r, struct model *m, const struct tokenizer *t)
{
	*r = (struct rollout){.model = m,
	                      .tokenizer = t,
	                      .domain = RNG_SAMPLE,
	                      .max_tokens = 1,
	                      .sampling = {.temperature = 1, .top_p = 1},
	                      .first = TENSOR_NONE};
	session_init(&r->session, m);
	steps_init(&r->steps, &r->session);
	run_arena_init(&r->arena, m->backend);
	for (int32_t i = 0; i < m->config.eos_count; i++)
		r->stop[r->stop_count++] = m->config.eos[i];
}

void rollout_free(struct rollout *r)
{
	steps_free(&r->steps);
	op_release(r->model->backend, r->first.data);
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

/* The next token of a response. 1: it has ended. */
static int take(const struct rollout *r, struct under_way *w, int32_t number, const struct sampled *d)
{
	const size_t at = (size_t)number * (size_t)r->max_tokens + (size_t)w->tokens[number]++;
	w->ids[at] = d->token;
	w->sampled[at] = *d;
	const int stop = is_stop(r, d->token);
	w->finish[number] = stop ? FINISH_STOP : FINISH_LENGTH;
	return stop || w->tokens[number] == r->max_tokens;
}

/* A response's text, without its stop token. Special tokens stay visible: "<answer>run<|box_end|>ning</answer>" must
 * not read as an answer. So does a NUL, as U+FFFD: what stands behind it belongs to the response. */
static char *text_of(const struct rollout *r, const int32_t *ids, int32_t tokens, enum finish finish)
{
	size_t n, nuls = 0, to = 0;
	char *text = tokenizer_decode(r->tokenizer, ids, tokens - (finish == FINISH_STOP), 0, &n);
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

static struct group *collect(const struct rollout *r, const struct under_way *w)
{
	const struct rollout_request *q = &w->request;
	int32_t total = 0;
	for (int32_t i = 0; i < q->responses; i++)
		total += w->tokens[i];
	struct group *g = group_new(q->responses, total);
	g->index = q->index;
	g->step = q->step;
	g->record = q->record;
	g->policy_version = r->model->version;
	g->temperature = r->sampling.temperature;
	g->prompt_tokens = q->prompt->ids.count;
	g->rollout_seconds = clock_seconds() - w->begin;
	int32_t at = 0;
	for (int32_t i = 0; i < q->responses; i++) {
		const int32_t *ids = w->ids + (size_t)i * (size_t)r->max_tokens;
		const struct sampled *sampled = w->sampled + (size_t)i * (size_t)r->max_tokens;
		g->start[i] = at;
		for (int32_t k = 0; k < w->tokens[i]; k++, at++) {
			g->token_ids[at] = ids[k];
			g->logp[at] = sampled[k].logp;
			g->sampling_logp[at] = sampled[k].sampling_logp;
			g->entropy[at] = sampled[k].entropy;
		}
		g->finish[i] = w->finish[i];
		g->text[i] = text_of(r, ids, w->tokens[i], (enum finish)w->finish[i]);
	}
	g->start[q->responses] = at;
	return g;
}

/* One response less goes on; the last one hands its group on. */
static void end_response(struct together *t, struct under_way *w)
{
	if (--w->open)
		return;
	t->groups_free++;
	t->source->done(t->source->arg, &w->request, collect(t->r, w));
}

/* Groups for which there is room now. */
static int32_t room_left(const struct together *t)
{
	const int32_t by_places = t->places_free / t->room.responses;
	return by_places < t->groups_free ? by_places : t->groups_free;
}

/* A group begins: its prompt is computed, and its responses take places. Not 0: it is dropped, as result of rollout_run. */
static int begin(struct together *t, const struct rollout_request *q, struct favor_error *e)
{
	struct under_way *w = t->groups;
	while (w->open)
		w++;
	const int32_t number = (int32_t)(w - t->groups);
	w->request = *q;
	w->begin = clock_seconds();
	memset(w->tokens, 0, (size_t)t->room.responses * sizeof *w->tokens);
	int result = 0;
	if (q->prompt->ids.count > t->room.prompt_tokens || q->responses > t->room.responses)
		result = favor_fail(e, "a prompt of %d tokens with %d responses; there is room for %d tokens and %d responses",
		                    q->prompt->ids.count, q->responses, t->room.prompt_tokens, t->room.responses);
	if (!result)
		result = session_prefill(&t->r->session, &t->run, number, q->prompt->ids.ids, q->prompt->ids.count,
		                         q->prompt->inputs, q->prompt->image_count, &w->prompt,
		                         tensor_rows(t->r->first, number, 1), e);
	if (result) {
		t->source->done(t->source->arg, q, NULL);
		return result;
	}
	w->open = q->responses;
	t->groups_free--;
	t->changed = 1;
	for (int32_t g = 0, at = 0; g < q->responses; g++) {
		while (t->places[at].group)
			at++;
		t->places[at].group = w;
		t->places[at].number = g;
		session_timeline(&t->r->session, at, &w->prompt, &t->places[at].timeline);
		t->places_free--;
	}
	return 0;
}

/* The place's response into what steps_begin is told. */
static void tell(struct together *t, struct place *p)
{
	const struct rollout *r = t->r;
	const struct under_way *w = p->group;
	const int32_t tokens = w->tokens[p->number], n = t->active_count++;
	t->active[n] = p;
	t->responses[n] = (struct step_response){
	    .timeline = &p->timeline,
	    .token = tokens ? w->ids[(size_t)p->number * (size_t)r->max_tokens + (size_t)tokens - 1] : -1,
	    .prompt = w->prompt.place,
	    .left = r->max_tokens - tokens,
	    .index = w->request.index,
	    .response = (uint32_t)p->number,
	    .drawn = (uint32_t)tokens};
}

/* Tells the steps of all responses that go on, of those that begin last. None waits to be collected. */
static void arrange(struct together *t)
{
	const struct rollout *r = t->r;
	const struct step_rules rules = {
	    .how = r->sampling, .seed = r->seed, .domain = r->domain, .stop = r->stop, .stop_count = r->stop_count};
	t->active_count = t->ended = t->changed = 0;
	for (int begins = 0; begins < 2; begins++)
		for (int32_t i = 0; i < t->place_count; i++) {
			struct place *p = &t->places[i];
			if (p->group && (p->group->tokens[p->number] == 0) == begins)
				tell(t, p);
		}
	if (t->active_count)
		steps_begin(&t->r->steps, &rules, t->responses, t->active_count, r->first);
}

/* Takes in the tokens of the oldest step. */
static void collect_step(struct together *t)
{
	steps_collect(&t->r->steps, t->drawn);
	for (int32_t i = 0; i < t->active_count; i++) {
		struct place *p = t->active[i];
		if (!p || t->drawn[i].token < 0 /* first tokens, of others */ || !take(t->r, p->group, p->number, &t->drawn[i]))
			continue;
		struct under_way *w = p->group;
		t->active[i] = NULL;
		t->ended++;
		p->group = NULL;
		t->places_free++;
		end_response(t, w);
	}
}

/* Whether the steps' responses should be told anew: some have begun, or too many slots have nothing to do. */
static int is_stale(const struct together *t)
{
	return t->changed || (t->r->model->backend->steps_ahead ? 2 * t->ended >= t->active_count : t->ended > 0);
}

/* Whether some response may get a token from one more step. */
static int is_worth(const struct together *t)
{
	for (int32_t i = 0; i < t->active_count; i++)
		if (t->active[i] &&
		    t->active[i]->group->tokens[t->active[i]->number] + steps_waiting(&t->r->steps) < t->r->max_tokens)
			return 1;
	return 0;
}

/* One more token of the responses that go on. 1: given up. */
static int decode(struct together *t)
{
	struct steps *s = &t->r->steps;
	const int ahead = t->r->model->backend->steps_ahead;
	for (int again = is_stale(t); again;) {
		while (steps_waiting(s))
			collect_step(t);
		arrange(t);
		while (steps_waiting(s) > ahead) /* first tokens that have come already */
			collect_step(t);
		again = !ahead && t->ended;
	}
	do {
		if (is_worth(t) && steps_queue(s, &t->run))
			return 1;
	} while (is_worth(t) && steps_waiting(s) <= ahead);
	if (steps_waiting(s))
		collect_step(t);
	return 0;
}

/* Groups whose last responses are slow stay while new ones begin, so there are more than `groups`; with one group at a
 * time, or one response a group, no more are needed. */
int32_t rollout_groups_most(const struct rollout_room *room)
{
	return room->responses > 1 ? 2 * room->groups - 1 : room->groups;
}

static struct session_room places_of(const struct rollout_room *room, int32_t max_tokens)
{
	return (struct session_room){.prompts = rollout_groups_most(room),
	                             .prompt_rows = room->prompt_tokens,
	                             .responses = room->groups * room->responses,
	                             .response_rows = max_tokens};
}

/* Room for the logits of so many prompts. */
static void first_room(struct rollout *r, int32_t prompts)
{
	struct backend *b = r->model->backend;
	const int64_t vocab = r->model->config.vocab_size;
	if (prompts <= r->first.rows)
		return;
	op_release(b, r->first.data);
	r->first = tensor_of(op_alloc(b, (size_t)(prompts * vocab) * sizeof(float)), prompts, vocab);
}

static void open_together(struct together *t, const struct session_room *places)
{
	const size_t G = (size_t)t->room.responses, tokens = G * (size_t)t->r->max_tokens, n = (size_t)places->responses;
	t->group_count = t->groups_free = places->prompts;
	t->place_count = t->places_free = places->responses;
	t->groups = favor_calloc((size_t)t->group_count, sizeof *t->groups);
	for (int32_t i = 0; i < t->group_count; i++) {
		struct under_way *w = &t->groups[i];
		w->tokens = favor_malloc(G * sizeof *w->tokens);
		w->finish = favor_malloc(G * sizeof *w->finish);
		w->ids = favor_malloc(tokens * sizeof *w->ids);
		w->sampled = favor_malloc(tokens * sizeof *w->sampled);
	}
	t->places = favor_calloc(n, sizeof *t->places);
	t->active = favor_malloc(n * sizeof *t->active);
	t->responses = favor_malloc(n * sizeof *t->responses);
	t->drawn = favor_malloc(n * sizeof *t->drawn);
	session_reset(&t->r->session, places);
	first_room(t->r, places->prompts);
	steps_drop(&t->r->steps); /* of a run that was given up */
}

/* What is still under way is dropped. */
static void close_together(struct together *t)
{
	for (int32_t i = 0; i < t->group_count; i++) {
		struct under_way *w = &t->groups[i];
		if (w->open)
			t->source->done(t->source->arg, &w->request, NULL);
		free(w->tokens);
		free(w->finish);
		free(w->ids);
		free(w->sampled);
	}
	free(t->groups);
	free(t->places);
	free(t->active);
	free(t->responses);
	free(t->drawn);
}

int rollout_run(struct rollout *r, const struct rollout_room *room, const struct rollout_source *source,
                struct favor_error *e)
{
	struct together t = {
	    .r = r, .run = {r->model->backend, &r->arena, r->tick, r->tick_arg}, .room = *room, .source = source};
	const int64_t count = (int64_t)room->groups * room->responses;
	const struct session_room places = count < INT32_MAX ? places_of(room, r->max_tokens) : (struct session_room){0};
	const int64_t rows = count < INT32_MAX ? session_rows(&places) : count;
	if (rows > INT32_MAX)
		return favor_fail(e, "%lld responses of up to %d tokens need %lld rows of keys and values; %d can be",
		                  (long long)count, r->max_tokens, (long long)rows, INT32_MAX);
	open_together(&t, &places);
	int result = 0, more = 1;
	while (!result && (more || t.groups_free < t.group_count)) {
		struct rollout_request q;
		int given = 1;
		for (int32_t left; !result && more && given && (left = room_left(&t));) {
			given = source->next(source->arg, t.groups_free < t.group_count, left, &q);
			more = given >= 0;
			if (given > 0)
				result = begin(&t, &q, e);
		}
		if (!result && t.groups_free < t.group_count)
			result = decode(&t);
	}
	close_together(&t);
	return result;
}

/* ---- a number of groups */

struct some_groups {
	const struct rollout_request *requests;
	int32_t n, at;
	struct group **groups;
};

static int next_of_some(void *arg, int busy, int32_t room, struct rollout_request *q)
{
	struct some_groups *s = arg;
	(void)busy;
	(void)room;
	if (s->at == s->n)
		return -1;
	*q = s->requests[s->at];
	q->source = s->at++;
	return 1;
}

static void done_of_some(void *arg, const struct rollout_request *q, struct group *group)
{
	((struct some_groups *)arg)->groups[q->source] = group;
}

int rollout_groups(struct rollout *r, const struct rollout_request *requests, int32_t n, struct group **groups,
                   struct favor_error *e)
{
	struct some_groups some = {requests, n, 0, groups};
	const struct rollout_source source = {next_of_some, done_of_some, &some};
	struct rollout_room room = {.groups = n};
	for (int32_t i = 0; i < n; i++) {
		groups[i] = NULL;
		if (requests[i].responses > room.responses)
			room.responses = requests[i].responses;
		if (requests[i].prompt->ids.count > room.prompt_tokens)
			room.prompt_tokens = requests[i].prompt->ids.count;
	}
	const int result = rollout_run(r, &room, &source, e);
	for (int32_t i = 0; i < n && result; i++) {
		group_destroy(groups[i]);
		groups[i] = NULL;
	}
	return result;
}

int64_t rollout_bytes(const struct backend *b, const struct model_config *c, const struct rollout_room *room,
                      int64_t patches, int32_t max_tokens)
{
	const struct session_room places = places_of(room, max_tokens);
	return session_bytes(b, c, session_rows(&places)) + pass_bytes(b, c, room->prompt_tokens, patches, 1, 1, 0) +
	       (int64_t)places.prompts * c->vocab_size * (int64_t)sizeof(float) +
	       steps_bytes(b, c, places.responses, (int64_t)room->prompt_tokens + max_tokens);
}
