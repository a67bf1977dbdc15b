/* See teams.h. */
#include "app/teams.h"

#include "backend/ops.h"
#include "base/slice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a rank has, for all to see. */
struct card {
	int32_t learns, rolls;
	int32_t gpu, able; /* computes on one; its backend has what teams need */
	unsigned char device[DEVICE_ID_BYTES];
	char what[192]; /* "NCCL 2.28.9", or what is missing */
};

enum { GRADIENTS, WEIGHTS, TEAMS };

static const struct backend_team_ops *ops_of(const struct teams *t)
{
	return t->s->backend->team;
}

static struct card my_card(const struct setup *s)
{
	struct card c = {.learns = world_plays(s->world, ROLE_LEARNER), .rolls = world_plays(s->world, ROLE_ROLLOUT)};
	const struct backend_team_ops *ops = s->backend ? s->backend->team : NULL;
	c.gpu = s->device.cuda && (c.learns || c.rolls);
	if (c.gpu)
		op_device(s->backend, c.device);
	if (c.gpu && ops) {
		c.able = !ops->look(s->backend, c.what, sizeof c.what);
	} else
		snprintf(c.what, sizeof c.what, "this favor was built without NCCL");
	return c;
}

/* The ranks of a team, in its order; returns how many. Gradients: the learners; weights: the leader and who rolls out without
 * learning. */
static int members_of(int team, const struct card *cards, int ranks, int *members)
{
	int n = 0;
	for (int r = 0; r < ranks; r++)
		if (team == GRADIENTS ? cards[r].learns : r == 0 || (cards[r].rolls && !cards[r].learns))
			members[n++] = r;
	return n;
}

/* Why the team can't go by NCCL; 0 if it can. */
static int obstacle(const struct setup *s, const struct card *cards, const int *members, int n, int team, int survives,
                    char *why, size_t size)
{
	const struct comm_options *o = &s->config.comm;
	const struct card *first = &cards[members[0]];
	if (o->transport == TRANSPORT_HOST)
		return snprintf(why, size, "comm.transport: host");
	for (int i = 0; i < n; i++)
		if (!cards[members[i]].gpu)
			return snprintf(why, size, "rank %d has no GPU", members[i]);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < i; k++)
			if (!memcmp(cards[members[i]].device, cards[members[k]].device, DEVICE_ID_BYTES))
				return snprintf(why, size, "ranks %d and %d share a GPU of %s", members[k], members[i],
				                world_host_of(s->world, members[i]));
	for (int i = 0; i < n; i++)
		if (!cards[members[i]].able)
			return snprintf(why, size, "rank %d: %s", members[i], cards[members[i]].what);
	for (int i = 1; i < n; i++)
		if (strcmp(cards[members[i]].what, first->what))
			return snprintf(why, size, "rank %d has %s, rank %d %s", members[0], first->what, members[i],
			                cards[members[i]].what);
	if (team == GRADIENTS && o->reproducible)
		return snprintf(why, size, "comm.reproducible: they are added in a fixed order");
	if (team == WEIGHTS && survives)
		return snprintf(why, size, "ranks that roll out may be lost");
	return 0;
}

/* ---- waits */

struct wait {
	struct backend_team *team;
	int (*state)(struct backend_team *t);
};

static int is_reached(void *arg)
{
	const struct wait *w = arg;
	const int state = w->state(w->team);
	if (state < 0)
		favor_die("%s; comm.transport: host goes without NCCL", w->team->error);
	return state;
}

static void wait_for(struct teams *t, struct backend_team *team, int (*state)(struct backend_team *), const char *what)
{
	struct wait w = {team, state};
	world_wait_outside(t->s->world, is_reached, &w, what,
	                   "NCCL hangs: NCCL_DEBUG=INFO says more, comm.transport: host goes without it");
}

static void must(const struct backend_team *team, int result)
{
	if (result)
		favor_die("%s; comm.transport: host goes without NCCL", team->error);
}

/* ---- beginning and end */

static struct backend_team *join(struct teams *t, const unsigned char *id, const int *members, int n)
{
	char why[512] = "";
	int place = -1;
	for (int i = 0; i < n; i++)
		if (members[i] == world_rank(t->s->world))
			place = i;
	if (place < 0)
		return NULL;
	struct backend_team *team = ops_of(t)->join(t->s->backend, id, place, n, why, sizeof why);
	if (!team)
		favor_die("%s; comm.transport: host goes without NCCL", why);
	wait_for(t, team, ops_of(t)->settled, "wait for NCCL's team");
	return team;
}

/* The leader's ids on all ranks. */
static void share_ids(struct setup *s, unsigned char ids[TEAMS][TEAM_ID_BYTES], const int *goes)
{
	void *data = NULL;
	size_t bytes = (size_t)TEAMS * TEAM_ID_BYTES;
	char why[512] = "";
	if (world_rank(s->world) == 0) {
		for (int team = 0; team < TEAMS; team++)
			if (goes[team] && s->backend->team->new_id(s->backend, ids[team], why, sizeof why))
				favor_die("%s; comm.transport: host goes without NCCL", why);
		data = ids;
	}
	world_broadcast(s->world, &data, &bytes);
	if (data != ids) {
		memcpy(ids, data, bytes);
		free(data);
	}
}

static void say(const struct setup *s, int team, int members, int goes, const char *what, const char *why,
                void (*note)(void *arg, const char *text), void *arg)
{
	const struct comm_options *o = &s->config.comm;
	char text[512], how[128] = "";
	const int n = team == GRADIENTS ? members : members - 1;
	if (goes && team == GRADIENTS)
		snprintf(how, sizeof how, ", %lld KiB at a time, %s", (long long)o->bucket_kib,
		         o->overlap ? "during the backward pass" : "after the backward pass");
	snprintf(text, sizeof text, "favor: %s: %s%.192s%s%s", team == GRADIENTS ? "gradients" : "weights",
	         goes ? "by " : "through the host and MPI (", goes ? what : why, goes ? "" : ")", how);
	snprintf(text + strlen(text), sizeof text - strlen(text), "; %s %d %s%s", team == GRADIENTS ? "over" : "to", n,
	         team == GRADIENTS ? "learner" : "rank", n == 1 ? "" : "s");
	note(arg, text);
}

int teams_open(struct teams *t, struct setup *s, struct learner *l, int survives, void (*note)(void *arg, const char *text),
               void *arg, struct favor_error *e)
{
	static const char *const names[TEAMS] = {"gradients", "weights"};
	const int ranks = world_size(s->world);
	*t = (struct teams){.s = s, .learner = l};
	if (ranks == 1)
		return 0;
	struct card mine = my_card(s), *cards = favor_calloc((size_t)ranks, sizeof *cards);
	int *members[TEAMS], count[TEAMS], goes[TEAMS], gpus = 0, result = 0;
	unsigned char ids[TEAMS][TEAM_ID_BYTES] = {{0}};
	char why[TEAMS][512] = {"", ""};
	world_gather(s->world, &mine, sizeof mine, cards);
	for (int r = 0; r < ranks; r++)
		gpus += cards[r].gpu;
	for (int team = 0; team < TEAMS; team++) {
		members[team] = favor_calloc((size_t)ranks, sizeof **members);
		count[team] = members_of(team, cards, ranks, members[team]);
		if (team == WEIGHTS && s->config.method != METHOD_GRPO)
			count[team] = 0; /* nothing is published */
		goes[team] = count[team] > 1 && !obstacle(s, cards, members[team], count[team], team, survives, why[team],
		                                          sizeof why[team]);
		if (count[team] > 1 && !goes[team] && s->config.comm.transport == TRANSPORT_NCCL && !result)
			result = favor_fail(e, "comm.transport: nccl, but %s can't go by it: %s; auto or host goes without", names[team],
			                    why[team]);
	}
	if (result)
		goto done;
	for (int team = 0; team < TEAMS && world_rank(s->world) == 0 && gpus; team++)
		if (count[team] > 1)
			say(s, team, count[team], goes[team], cards[0].what, why[team], note, arg);
	if (goes[GRADIENTS] || goes[WEIGHTS]) {
		world_phase(s->world, "form NCCL's teams", -1, -1);
		share_ids(s, ids, goes);
		t->gradients = goes[GRADIENTS] ? join(t, ids[GRADIENTS], members[GRADIENTS], count[GRADIENTS]) : NULL;
		t->weights = goes[WEIGHTS] ? join(t, ids[WEIGHTS], members[WEIGHTS], count[WEIGHTS]) : NULL;
	}
done:
	for (int team = 0; team < TEAMS; team++)
		free(members[team]);
	free(cards);
	return result;
}

static void part(struct teams *t, struct backend_team *team)
{
	if (!team)
		return;
	const struct backend_team_ops *ops = ops_of(t);
	wait_for(t, team, ops->finished, "wait for NCCL's last sums");
	must(team, ops->start_leave(team));
	wait_for(t, team, ops->settled, "wait for the end of NCCL's team");
	ops->leave(team);
}

void teams_close(struct teams *t)
{
	part(t, t->gradients);
	part(t, t->weights);
	t->gradients = t->weights = NULL;
}

/* ---- gradients */

static int learners(const struct teams *t)
{
	return world_role_count(t->s->world, ROLE_LEARNER);
}

/* Where learner i's slice of the trainable weights begins. */
static int64_t slice(const struct teams *t, int i)
{
	return slice_start(t->learner->count, learners(t), i);
}

/* Starts the sums of the buckets that lie in [from, first + left) whole; the lowest bucket (of a slice, if sharded) is what
 * remains. */
static void start_buckets(struct teams *t, int64_t from)
{
	const struct learner *l = t->learner;
	const int64_t bucket = t->s->config.comm.bucket_kib * 1024 / (int64_t)sizeof(float);
	while (t->left > 0) {
		int owner = learners(t) - 1; /* of what ends at left */
		while (l->sharded && slice(t, owner) >= t->left)
			owner--;
		const int64_t least = l->sharded ? slice(t, owner) : 0,
		              start = t->left - least > bucket ? t->left - bucket : least;
		if (start < from)
			return;
		float *x = l->gradient + l->first + start;
		wait_for(t, t->gradients, ops_of(t)->settled, "wait for NCCL to take gradients");
		must(t->gradients, l->sharded ? ops_of(t)->start_sum_to(t->gradients, x, t->left - start, owner)
		                              : ops_of(t)->start_sum(t->gradients, x, t->left - start));
		t->left = start;
	}
}

void teams_ready(void *teams, const float *from)
{
	struct teams *t = teams;
	start_buckets(t, from - (t->learner->gradient + t->learner->first));
}

static void wait_for_sums(struct teams *t)
{
	wait_for(t, t->gradients, ops_of(t)->finished, "wait for NCCL to sum gradients");
}

void teams_begin_gradient(struct teams *t)
{
	if (!t->gradients)
		return;
	wait_for_sums(t);
	t->left = t->learner->count;
}

void teams_end_gradient(struct teams *t)
{
	if (t->gradients && t->s->config.comm.overlap)
		start_buckets(t, 0);
}

void teams_sum_gradients(struct teams *t)
{
	start_buckets(t, 0);
	wait_for_sums(t);
}

/* ---- weights */

void teams_share_weights(struct teams *t)
{
	float *weights = t->learner->model->block + t->learner->first;
	for (int i = 0; i < learners(t); i++) {
		const int64_t from = slice(t, i), n = slice(t, i + 1) - from;
		if (!n)
			continue;
		wait_for(t, t->gradients, ops_of(t)->settled, "wait for NCCL to take weights");
		must(t->gradients, ops_of(t)->start_spread(t->gradients, weights + from, n, i));
	}
	wait_for(t, t->gradients, ops_of(t)->finished, "wait for the learners' weights by NCCL");
}

void teams_publish(struct teams *t, float *weights, int64_t n)
{
	wait_for(t, t->weights, ops_of(t)->settled, "wait for NCCL to take weights");
	must(t->weights, ops_of(t)->start_spread(t->weights, weights, n, 0));
	wait_for(t, t->weights, ops_of(t)->finished, "wait for the leader's weights by NCCL");
}
