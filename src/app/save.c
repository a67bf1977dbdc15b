/* Checkpoints of a run: what goes in, and back. */
#include "app/trainer.h"

#include "backend/ops.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A block of the backend's as the host can read it: where it lies, or a copy, which the caller frees (NULL: none). */
static float *host_view(struct backend *b, float *block, size_t bytes, float **copy)
{
	*copy = NULL;
	if (b->in_host_memory) {
		op_sync(b);
		return block;
	}
	*copy = favor_malloc(bytes);
	op_download(b, *copy, block, bytes);
	return *copy;
}

int trainer_save(struct trainer *t, struct favor_error *e)
{
	const struct model *m = t->s.assets.model;
	const int n = m->params.count;
	const size_t bytes = (size_t)m->params.total * sizeof(float);
	struct checkpoint_tensor *tensors = favor_calloc((size_t)n, sizeof *tensors);
	float *copy[3], *values = host_view(m->backend, m->block, bytes, &copy[0]);
	float *exp_avg = host_view(m->backend, t->learner.exp_avg, bytes, &copy[1]);
	float *exp_avg_sq = host_view(m->backend, t->learner.exp_avg_sq, bytes, &copy[2]);
	for (int i = 0; i < n; i++) {
		const struct param *p = &m->params.params[i];
		const int learns = p->offset >= t->learner.first; /* a frozen tower has no moments */
		tensors[i] = (struct checkpoint_tensor){.name = p->name,
		                                        .ndim = p->ndim,
		                                        .values = values + p->offset,
		                                        .exp_avg = learns ? exp_avg + p->offset : NULL,
		                                        .exp_avg_sq = learns ? exp_avg_sq + p->offset : NULL};
		memcpy(tensors[i].shape, p->shape, sizeof p->shape);
	}
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
	                       .tensor_count = n,
	                       .tensors = tensors,
	                       .file_count = t->file_count,
	                       .files = t->files,
	                       .history_rows = h->rows,
	                       .history_columns = h->columns,
	                       .history = columns,
	                       .sample_count = kept,
	                       .samples = newest};
	world_phase(t->s.world, "checkpoint", t->step, -1);
	int result = checkpoint_write(path, &c, e);
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
	for (int i = 0; i < 3; i++)
		free(copy[i]);
	free(tensors);
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
		if (assets_read_weights(path, m, t->learns ? t->learner.exp_avg : NULL,
		                        t->learns ? t->learner.exp_avg_sq : NULL, t->learns ? t->learner.first : 0, e))
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
