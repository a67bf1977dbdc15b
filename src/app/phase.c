/* The way of a group through the ranks, as one round. See phase.h. */
#include "app/phase.h"
#include "app/plan.h"

#include <stdlib.h>
#include <string.h>

static uint32_t record_of(const struct round *q, uint64_t position)
{
	return q->shuffled ? dataset_order(q->data, q->order_seed, position) : (uint32_t)position;
}

/* Label and aliases of a record. */
static struct reward_target target_of(const struct setup *s, const struct record *r)
{
	const struct class_list *c = &s->classes;
	struct reward_target t = {.label = r->label};
	if (r->label_index >= 0 && c->alias_start)
		t.alias_count = c->alias_start[r->label_index + 1] - c->alias_start[r->label_index];
	if (t.alias_count)
		t.aliases = (const char *const *)c->aliases + c->alias_start[r->label_index];
	return t;
}

/* A group from the mail must be one of this round before its record, its texts and its rewards are used: another rank may
 * run another program, data set or configuration, or have come out of step. */
static void check_group(const struct setup *s, const struct round *q, const struct group *g, int scored)
{
	const char *names[GROUP_MAX_REWARDS], *wrong = NULL;
	const uint64_t position = g->index / q->stride;
	if (g->index % q->stride || position < q->first || position >= q->first + q->count)
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

/* A rollout rank's part of a round: pulls groups one by one, and hands each on as soon as it has ended. */
struct rolling {
	struct setup *s;
	const struct round *q;
	struct prompt *prompts; /* [count]; one that is free has no tokens */
	int32_t count;
	uint32_t record; /* the newest, for messages */
};

/* What has come to be scored where it was made, or where no reward rank is left. */
static void score_own(struct setup *s, const struct round *q)
{
	for (struct group *g; world_plays(s->world, ROLE_REWARD) && (g = world_try(s->world, STAGE_SAMPLED));)
		score(s, q, g);
}

/* The next position, as world_pull says it; while others decode 2 says that it has not come yet. */
static int pull(struct setup *s, const struct round *q, int busy, uint64_t *position)
{
	int none;
	if (busy)
		return world_try_pull(s->world, q->number, position);
	do {
		score_own(s, q);
		world_phase(s->world, "wait for work", q->step, -1);
	} while ((none = world_pull(s->world, q->number, position)) == 2);
	return none;
}

static int next_group(void *arg, int busy, int32_t room, struct rollout_request *request)
{
	struct rolling *g = arg;
	struct setup *s = g->s;
	const struct round *q = g->q;
	struct favor_error e = {""};
	uint64_t position;
	const int none = pull(s, q, busy, &position);
	if (none)
		return none == 1 ? -1 : 0;
	if (room > 1)
		world_ask(s->world, q->number); /* the answer comes while this one's prompt is computed */
	int32_t at = 0;
	while (at < g->count && g->prompts[at].ids.count)
		at++;
	if (at == g->count)
		favor_die("%d groups are under way, another one has no place", g->count);
	g->record = record_of(q, position);
	*request = (struct rollout_request){.prompt = &g->prompts[at],
	                                    .index = position * q->stride,
	                                    .step = q->step,
	                                    .record = g->record,
	                                    .responses = q->responses,
	                                    .source = at};
	world_phase(s->world, "encode", q->step, (int64_t)request->index);
	if (encode_record(&s->encoder, &q->data->records[g->record], -1, &g->prompts[at], &e))
		favor_die("record %u of %s passed its check but can't be read now: %s", g->record, q->data->path, e.message);
	world_phase(s->world, "rollout", q->step, (int64_t)request->index);
	return 1;
}

static void group_done(void *arg, const struct rollout_request *request, struct group *group)
{
	struct rolling *g = arg;
	struct setup *s = g->s;
	prompt_free(&g->prompts[request->source]);
	g->prompts[request->source] = (struct prompt){0};
	if (!group)
		return;
	group->rollout_rank = world_rank(s->world);
	world_push(s->world, STAGE_SAMPLED, group);
	if (world_plays(s->world, ROLE_REWARD)) {
		score_own(s, g->q);
		world_phase(s->world, "rollout", g->q->step, (int64_t)request->index);
	}
}

static void roll(struct setup *s, struct rollout *r, const struct round *q)
{
	const struct rollout_room room = {q->at_once, q->responses, s->longest_prompt};
	struct rolling g = {.s = s, .q = q, .count = rollout_groups_most(&room)};
	const struct rollout_source source = {next_group, group_done, &g};
	struct favor_error e = {""};
	g.prompts = favor_calloc((size_t)g.count, sizeof *g.prompts);
	if (rollout_run(r, &room, &source, &e) < 0)
		favor_die("record %u of %s: %s", g.record, q->data->path, e.message);
	if (!world_stopping(s->world))
		score_own(s, q);
	free(g.prompts);
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
	for (uint64_t p = q->first; p < q->first + q->count; p++)
		n += p * q->stride % count == mine;
	return n;
}

int phase_round(struct setup *s, struct rollout *r, const struct round *q, struct group ***groups, int64_t *count)
{
	struct world *w = s->world;
	*groups = NULL;
	*count = 0;
	if (world_is_leader(w))
		world_offer(w, q->number, q->first, q->count, q->stride);
	if (world_plays(w, ROLE_ROLLOUT)) {
		setup_threads(s, ROLE_ROLLOUT);
		roll(s, r, q);
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
	                  .count = n,
	                  .at_once = EVAL_AT_ONCE,
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
