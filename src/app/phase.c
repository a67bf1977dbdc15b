/* The way of a group through the ranks, as one round. See phase.h. */
#include "app/phase.h"

#include <stdlib.h>
#include <string.h>

enum { EVAL_UNIT = 8 }; /* records that decode together in an evaluation */

static uint32_t record_of(const struct round *q, uint64_t position)
{
	return q->shuffled ? dataset_order(q->data, q->order_seed, position) : (uint32_t)position;
}

/* Positions of a unit: [from, to). */
static void unit_span(const struct round *q, uint64_t unit, uint64_t *from, uint64_t *to)
{
	*from = unit * (uint64_t)q->unit;
	*to = *from + (uint64_t)q->unit;
	if (!q->shuffled && *to > q->groups)
		*to = q->groups;
}

static uint64_t last_position(const struct round *q)
{
	uint64_t from, to = 0;
	unit_span(q, q->first + q->count - 1, &from, &to);
	return to;
}

/* Label and aliases of a record. */
static struct reward_target target_of(const struct setup *s, const struct record *r)
{
	const struct class_list *c = &s->classes;
	struct reward_target t = {.label = r->label};
	if (r->label_index >= 0 && c->alias_start) {
		t.aliases = (const char *const *)c->aliases + c->alias_start[r->label_index];
		t.alias_count = c->alias_start[r->label_index + 1] - c->alias_start[r->label_index];
	}
	return t;
}

/* A group from the mail must be one of this round before its record, its texts and its rewards are used: another rank may
 * run another program, data set or configuration, or have come out of step. */
static void check_group(const struct setup *s, const struct round *q, const struct group *g, int scored)
{
	const char *names[GROUP_MAX_REWARDS], *wrong = NULL;
	const uint64_t position = g->index / q->stride;
	if (g->index % q->stride || position < q->first * (uint64_t)q->unit || position >= last_position(q))
		wrong = "is not of this round";
	else if (g->record != record_of(q, position) || g->record >= (uint32_t)q->data->count)
		wrong = "is of another record";
	else if (g->responses != q->responses)
		wrong = "has another number of responses";
	else if (scored && g->reward_count != reward_names(&s->config.reward, names))
		wrong = "has other rewards";
	for (int32_t i = 0; i < g->responses && !wrong; i++)
		if (!g->text[i] || (scored && !g->answer[i]))
			wrong = "lacks a text";
	if (wrong)
		favor_die("group %llu (record %u) of rank %d %s; do all ranks run the same favor with the same data?",
		          (unsigned long long)g->index, g->record, g->rollout_rank, wrong);
}

static void score(struct setup *s, const struct round *q, struct group *g)
{
	check_group(s, q, g, 0);
	const struct record *r = &q->data->records[g->record];
	const struct reward_target t = target_of(s, r);
	world_phase(s->world, "reward", q->step, (int64_t)g->index);
	const double begin = clock_seconds();
	reward_group(g, &s->config.reward, &t);
	s->reward_seconds += clock_seconds() - begin;
	world_push(s->world, STAGE_SCORED, g);
}

/* 1: given up, since the run stops. */
static int roll(struct setup *s, struct rollout *r, const struct round *q, uint64_t unit)
{
	struct favor_error e = {""};
	uint64_t from, to;
	unit_span(q, unit, &from, &to);
	const int32_t n = (int32_t)(to - from);
	struct prompt *prompts = favor_calloc((size_t)n, sizeof *prompts);
	struct rollout_request *requests = favor_calloc((size_t)n, sizeof *requests);
	struct group **groups = favor_calloc((size_t)n, sizeof *groups);
	for (int32_t i = 0; i < n; i++) {
		const uint32_t record = record_of(q, from + (uint64_t)i);
		world_phase(s->world, "encode", q->step, (int64_t)((from + (uint64_t)i) * q->stride));
		if (encode_record(&s->encoder, &q->data->records[record], -1, &prompts[i], &e))
			favor_die("record %u of %s passed its check but can't be read now: %s", record, q->data->path, e.message);
		requests[i] = (struct rollout_request){.prompt = &prompts[i],
		                                       .index = (from + (uint64_t)i) * q->stride,
		                                       .step = q->step,
		                                       .record = record,
		                                       .responses = q->responses};
	}
	world_phase(s->world, "rollout", q->step, (int64_t)requests[0].index);
	const int stopped = rollout_groups(r, requests, n, groups, &e);
	if (stopped < 0)
		favor_die("record %u of %s: %s", requests[0].record, q->data->path, e.message);
	for (int32_t i = 0; i < n; i++) {
		if (!stopped) {
			groups[i]->rollout_rank = world_rank(s->world);
			world_push(s->world, STAGE_SAMPLED, groups[i]);
		}
		prompt_free(&prompts[i]);
	}
	free(prompts);
	free(requests);
	free(groups);
	return stopped;
}

static int by_index(const void *a, const void *b)
{
	const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* How many of the round's groups have index % count == mine. */
static int64_t owned(const struct round *q, uint64_t count, uint64_t mine)
{
	int64_t n = 0;
	uint64_t from = q->first * (uint64_t)q->unit, to = last_position(q);
	for (uint64_t p = from; p < to; p++)
		n += p * q->stride % count == mine;
	return n;
}

int phase_round(struct setup *s, struct rollout *r, const struct round *q, struct group ***groups, int64_t *count)
{
	struct world *w = s->world;
	*groups = NULL;
	*count = 0;
	if (world_is_leader(w)) {
		const struct world_units units = {q->unit, q->shuffled ? UINT64_MAX : q->groups, q->stride};
		world_offer_units(w, q->number, q->first, q->count, &units);
	}
	if (world_plays(w, ROLE_ROLLOUT)) {
		uint64_t unit;
		setup_threads(s, ROLE_ROLLOUT);
		for (;;) {
			world_phase(w, "wait for work", q->step, -1);
			const int none = world_pull(w, q->number, &unit);
			if (none == 1 || (!none && roll(s, r, q, unit)))
				break;
			for (struct group *g; world_plays(w, ROLE_REWARD) && (g = world_try(w, STAGE_SAMPLED));)
				score(s, q, g);
		}
	} else if (world_plays(w, ROLE_REWARD)) {
		int64_t mine = owned(q, (uint64_t)world_role_count(w, ROLE_REWARD), (uint64_t)world_role_index(w, ROLE_REWARD));
		for (struct group *g = NULL;; score(s, q, g), mine--) {
			world_phase(w, "wait for sampled groups", q->step, -1);
			if (!(g = world_take_sampled(w, q->number, mine)))
				break;
		}
	}
	if (!world_plays(w, ROLE_LEARNER))
		return world_stopping(w) != 0;
	const int64_t mine = owned(q, (uint64_t)world_role_count(w, ROLE_LEARNER),
	                           (uint64_t)world_role_index(w, ROLE_LEARNER));
	*groups = favor_calloc((size_t)mine, sizeof **groups);
	world_phase(w, "wait for scored groups", q->step, -1);
	for (struct group *g; *count < mine && (g = world_take(w, STAGE_SCORED));) {
		check_group(s, q, g, 1);
		(*groups)[(*count)++] = g;
	}
	if (*count)
		qsort(*groups, (size_t)*count, sizeof **groups, by_index);
	return *count < mine;
}

/* Class whose name or alias the normalised answer is; -1 if none. */
static int32_t class_of(const struct class_list *c, const char *answer)
{
	for (int32_t i = 0; i < c->count; i++) {
		char *name = reward_normalise(c->names[i], strlen(c->names[i]));
		int same = !strcmp(name, answer);
		free(name);
		for (int32_t k = c->alias_start ? c->alias_start[i] : 0; !same && c->alias_start && k < c->alias_start[i + 1];
		     k++) {
			char *alias = reward_normalise(c->aliases[k], strlen(c->aliases[k]));
			same = !strcmp(alias, answer);
			free(alias);
		}
		if (same)
			return i;
	}
	return -1;
}

static void predict(const struct setup *s, const struct group *g, struct evaluation *v)
{
	const struct record *r = &s->eval.records[g->record];
	const char *text = g->text[0];
	const char *answer = g->answered[0] && g->answer[0] ? g->answer[0] : "";
	const struct reward_target t = target_of(s, r);
	struct prediction p = {.image = favor_strdup(r->image_count ? r->images[0] : ""),
	                       .label = r->label_index,
	                       .answer = *answer ? class_of(&s->classes, answer) : -1,
	                       .answer_text = favor_strdup(answer),
	                       .response = favor_strdup(text),
	                       .correct = reward_accuracy(text, strlen(text), &t) > 0,
	                       .format = reward_format(text, strlen(text)) > 0,
	                       .tokens = g->start[1],
	                       .truncated = g->finish[0] == FINISH_LENGTH};
	evaluation_add(v, &p);
}

int phase_evaluate(struct setup *s, struct rollout *r, int64_t *round_number, int64_t step, struct evaluation *v)
{
	const uint64_t n = (uint64_t)setup_eval_count(s);
	*v = (struct evaluation){.class_count = s->classes.count, .classes = (const char *const *)s->classes.names};
	if (!n)
		return 0;
	struct round q = {.number = (*round_number)++,
	                  .step = step,
	                  .data = &s->eval,
	                  .count = (n + EVAL_UNIT - 1) / EVAL_UNIT,
	                  .unit = EVAL_UNIT,
	                  .groups = n,
	                  .responses = 1,
	                  .stride = (uint64_t)world_role_count(s->world, ROLE_LEARNER)};
	struct sampling kept;
	enum rng_domain domain = RNG_SAMPLE;
	if (r) {
		kept = r->sampling;
		domain = r->domain;
		r->sampling = (struct sampling){.temperature = 0, .top_p = 1};
		r->domain = RNG_EVAL;
	}
	struct group **groups;
	int64_t count;
	int stopped = phase_round(s, r, &q, &groups, &count);
	if (r) {
		r->sampling = kept;
		r->domain = domain;
	}
	/* the leader owns all groups of an evaluation, so it knows whether they are all there */
	stopped = (int)world_leader_says(s->world, stopped);
	for (int64_t i = 0; i < count; i++) {
		if (!stopped)
			predict(s, groups[i], v);
		group_destroy(groups[i]);
	}
	free(groups);
	return stopped;
}
