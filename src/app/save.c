/* Checkpoints of a run: what goes in, and back. */
#include "app/trainer.h"

#include "backend/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What a checkpoint says of the tensors: weights from the leader's block, moments from the learners that keep them. What does
 * not lie in the leader's own host memory is brought there one tensor after the other. All learners go through the tensors in
 * the same order. */
struct bringing {
	struct trainer *t;
	struct checkpoint_tensor *tensors; /* owned */
	int next;                          /* to be brought */
	float *host[3];                    /* values and both moments on their way; owned; NULL: they lie where they can be read */
};

/* to = one moment of the parameter; own: this learner's of it. */
static void bring_moment(struct trainer *t, const struct param *p, const float *own, float *to)
{
	const struct learner *l = &t->learner;
	struct world *w = t->s.world;
	const int learners = l->sharded ? world_role_count(w, ROLE_LEARNER) : 1, me = world_role_index(w, ROLE_LEARNER);
	for (int i = 0; i < learners; i++) {
		int64_t from = l->first + slice_start(l->count, learners, i), end = l->first + slice_start(l->count, learners, i + 1);
		from = from > p->offset ? from : p->offset;
		end = end < p->offset + p->count ? end : p->offset + p->count;
		if (from >= end)
			continue;
		float *part = to + (from - p->offset);
		if (i == me)
			op_download(t->s.backend, part, own + (from - l->own_first), (size_t)(end - from) * sizeof *part);
		world_bring(w, part, end - from, i, "wait for the leader to take moments", "wait for a learner's moments");
	}
}

static void bring_tensor(void *arg, int tensor)
{
	struct bringing *g = arg;
	struct trainer *t = g->t;
	const struct model *m = t->s.assets.model;
	const struct param *p = &m->params.params[tensor];
	g->next++;
	if (t->leads && g->host[0])
		op_download(m->backend, g->host[0], m->block + p->offset, (size_t)p->count * sizeof(float));
	if (!g->tensors[tensor].exp_avg || !g->host[1])
		return;
	bring_moment(t, p, t->learner.exp_avg, g->host[1]);
	bring_moment(t, p, t->learner.exp_avg_sq, g->host[2]);
}

/* What has not been brought: on learners that only give all of it; on the leader what it does not want any more, since the
 * file can't be written, but others wait to give. */
static void bring_rest(struct bringing *g)
{
	while (g->next < g->t->s.assets.model->params.count)
		bring_tensor(g, g->next);
}

static void bringing_begin(struct bringing *g, struct trainer *t)
{
	const struct model *m = t->s.assets.model;
	const struct learner *own = &t->learner;
	const struct param_list *l = &m->params;
	const int direct = m->backend->in_host_memory;
	*g = (struct bringing){.t = t, .tensors = favor_calloc((size_t)l->count, sizeof *g->tensors)};
	for (int i = 0; i < 3; i++)
		if (!direct || (i > 0 && own->sharded))
			g->host[i] = favor_malloc((size_t)params_largest(l) * sizeof(float));
	op_sync(m->backend);
	for (int i = 0; i < l->count; i++) {
		const struct param *p = &l->params[i];
		const int learns = p->offset >= own->first; /* a frozen tower has no moments */
		const int64_t at = p->offset - own->own_first;
		g->tensors[i] = (struct checkpoint_tensor){.name = p->name,
		                                           .ndim = p->ndim,
		                                           .values = g->host[0] ? g->host[0] : m->block + p->offset,
		                                           .exp_avg = !learns      ? NULL
		                                                      : g->host[1] ? g->host[1]
		                                                                   : own->exp_avg + at,
		                                           .exp_avg_sq = !learns      ? NULL
		                                                         : g->host[2] ? g->host[2]
		                                                                      : own->exp_avg_sq + at};
		memcpy(g->tensors[i].shape, p->shape, sizeof p->shape);
	}
}

static void bringing_end(struct bringing *g)
{
	for (int i = 0; i < 3; i++)
		free(g->host[i]);
	free(g->tensors);
}

static int write_and_prune(struct trainer *t, struct bringing *g, struct favor_error *e)
{
	const struct model *m = t->s.assets.model;
	/* history by column */
	const struct history *h = &t->history;
	struct checkpoint_column *columns = favor_calloc((size_t)h->columns, sizeof *columns);
	for (int32_t c = 0; c < h->columns; c++) {
		columns[c].name = (char *)(uintptr_t)h->names[c];
		columns[c].values = favor_malloc((size_t)h->rows * sizeof(double));
		for (int32_t r = 0; r < h->rows; r++)
			columns[c].values[r] = h->values[(int64_t)r * METRICS_MAX + c];
	}
	char *newest[SAMPLES_KEPT];
	int32_t kept = 0;
	for (int64_t i = t->sample_count > SAMPLES_KEPT ? t->sample_count - SAMPLES_KEPT : 0; i < t->sample_count; i++)
		newest[kept++] = t->samples[i % SAMPLES_KEPT];
	char *config = config_to_yaml(&t->s.config), *ranks = world_placement_text(t->s.world);
	char *path = checkpoint_path(t->s.config.run.dir, t->step);
	struct checkpoint c = {.step = t->step,
	                       .seed = t->s.config.run.seed,
	                       .cursor = (uint64_t)t->step * (uint64_t)t->s.config.learner.groups_per_step,
	                       .policy_version = m->version,
	                       .config = config,
	                       .ranks = ranks,
	                       .tensor_count = m->params.count,
	                       .tensors = g->tensors,
	                       .bring = bring_tensor,
	                       .bring_arg = g,
	                       .file_count = t->file_count,
	                       .files = t->files,
	                       .history_rows = h->rows,
	                       .history_columns = h->columns,
	                       .history = columns,
	                       .sample_count = kept,
	                       .samples = newest};
	world_phase(t->s.world, "checkpoint", t->step, -1);
	int result = run_log_sync(t->log, e) || checkpoint_write(path, &c, e) ? -1 : 0;
	if (!result) {
		run_log_note(t->log, "favor: wrote %s (digest %s)", path, c.digest);
		world_phase(t->s.world, "remove old checkpoints", t->step, -1);
		t->saved_step = t->step;
		result = checkpoint_prune(t->s.config.run.dir, t->s.config.checkpoint.keep, e);
	}
	for (int32_t i = 0; i < h->columns; i++)
		free(columns[i].values);
	free(columns);
	free(config);
	free(ranks);
	free(path);
	return result;
}

int trainer_save(struct trainer *t, struct favor_error *e)
{
	struct bringing g;
	int result = 0;
	if (!t->leads && !t->learner.sharded)
		return 0;
	bringing_begin(&g, t);
	if (t->leads)
		result = write_and_prune(t, &g, e);
	else
		world_phase(t->s.world, "give moments to the checkpoint", t->step, -1);
	bring_rest(&g);
	bringing_end(&g);
	return result;
}

/* Names every option that differs from the checkpoint's run: a resume with other options is allowed, but not silent. */
static void say_differences(const char *before, const char *now)
{
	while (*before && *now) {
		size_t a = strcspn(before, "\n"), b = strcspn(now, "\n");
		if (a != b || memcmp(before, now, a))
			fprintf(stderr, "favor: resume: was \"%.*s\", is \"%.*s\"\n", (int)a, before, (int)b, now);
		before += a + (before[a] != 0);
		now += b + (now[b] != 0);
	}
}

static void restore_history(struct trainer *t, const struct checkpoint *c)
{
	for (int32_t r = 0; r < c->history_rows; r++) {
		struct metrics m = {0};
		for (int32_t k = 0; k < c->history_columns; k++)
			metrics_set(&m, c->history[k].name, c->history[k].values[r]);
		t->tokens_seen = metrics_get(&m, "num_tokens", t->tokens_seen);
		history_add(&t->history, &m);
	}
}

int trainer_restore(struct trainer *t, const char *path, struct favor_error *e)
{
	struct checkpoint c;
	int result = -1;
	if (checkpoint_open(path, &c, e))
		return -1;
	if (c.step > t->s.config.learner.steps) {
		favor_fail(e, "%s: has done %lld steps, but learner.steps is %d", path, (long long)c.step,
		           t->s.config.learner.steps);
		goto done;
	}
	struct model *m = t->s.assets.model;
	if (m) {
		if (assets_read_weights(path, m, t->learner.exp_avg, t->learner.exp_avg_sq, t->learner.own_first,
		                        t->learner.own_count, e)) /* who doesn't learn has none */
			goto done;
		m->version = c.policy_version;
	}
	t->step = t->saved_step = c.step;
	t->learner.step = (int64_t)c.policy_version;
	if (t->leads) {
		char *now = config_to_yaml(&t->s.config);
		say_differences(c.config, now);
		free(now);
		restore_history(t, &c);
		for (int32_t i = 0; i < c.sample_count; i++) {
			char **slot = &t->samples[t->sample_count++ % SAMPLES_KEPT];
			free(*slot);
			*slot = favor_strdup(c.samples[i]);
		}
	}
	result = 0;
done:
	checkpoint_free(&c);
	return result;
}
