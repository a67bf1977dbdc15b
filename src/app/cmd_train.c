/* favor train: start or resume, the loop over steps, the end. A step itself is in grpo.c and sft.c. */
#include "app/commands.h"
#include "app/exchange.h"
#include "app/options.h"
#include "app/plan.h"
#include "app/trainer.h"
#include "base/file.h"
#include "base/stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <errno.h>

int trainer_gradient(struct trainer *t, uint64_t first, int64_t count, int64_t mine, trainer_pass pass, void *arg)
{
	struct learner *l = &t->learner;
	struct world *w = t->s.world;
	const int64_t batch = t->s.config.learner.micro_batch, learners = world_role_count(w, ROLE_LEARNER);
	int result = 0;
	teams_begin_gradient(&t->teams);
	learner_zero(l);
	exchange_zero_sum(t);
	for (int64_t at = 0; at < mine && !l->sum && !result; at += batch) {
		if (t->teams.gradients && t->s.config.comm.overlap && mine - at <= batch)
			l->ready = teams_ready;
		result = pass(arg, at, (int)(mine - at < batch ? mine - at : batch));
	}
	learner_gradient_ready(l);
	l->ready = NULL;
	teams_end_gradient(&t->teams);
	/* round k has an item of each learner: they are neighbours, beginning with the owner of the first */
	const int owner = (int)(first % (uint64_t)learners);
	for (int64_t k = 0; k * learners < count && l->sum && result >= 0; k++) {
		if (k < mine && !result) {
			learner_zero_gradient(l);
			result = pass(arg, k, 1);
		}
		if (result < 0)
			break;
		/* who has given up still takes part, with what is good for nothing: the others wait for it */
		const int64_t left = count - k * learners;
		world_phase(w, "add gradients", t->step, -1);
		exchange_add_in_order(t, owner, (int)(left < learners ? left : learners));
	}
	return result;
}

double trainer_update(struct trainer *t, float lr, double *reduce_seconds, double *optimizer_seconds)
{
	struct learner *l = &t->learner;
	double squares[SLICE_PARTS];
	double begin = clock_seconds();
	world_phase(t->s.world, "sum gradients", t->step, -1);
	if (l->sum)
		exchange_share_sum(t);
	else
		exchange_sum_gradients(t);
	double summed = clock_seconds();
	world_phase(t->s.world, "optimizer", t->step, -1);
	learner_squares(l, squares);
	if (l->sharded)
		world_sum_learners(t->s.world, squares, SLICE_PARTS);
	const double norm = learner_step(l, lr, squares);
	if (!isfinite(norm))
		favor_die(
		    "the gradient's norm is %g: the loss is no longer finite; lower learner.lr or set learner.max_grad_norm",
		    norm);
	const double stepped = clock_seconds();
	world_phase(t->s.world, "share weights", t->step, -1);
	exchange_share_weights(t);
	*reduce_seconds += summed - begin + clock_seconds() - stepped;
	*optimizer_seconds += stepped - summed;
	return norm;
}

static double peak_rss_mib(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_maxrss / 1024);
}

void trainer_common_metrics(struct trainer *t, struct metrics *m, double begin, double tokens)
{
	struct world *w = t->s.world;
	const double idle = world_idle_seconds(w);
	double sums[4] = {t->rolls ? idle : 0, world_plays(w, ROLE_REWARD) ? idle : 0, t->learns ? idle : 0,
	                  t->s.reward_seconds};
	t->s.reward_seconds = 0;
	const double rss = peak_rss_mib();
	double peak[3] = {t->rolls ? rss : 0, world_plays(w, ROLE_REWARD) ? rss : 0, t->learns ? rss : 0};
	world_sum_all(w, sums, 4);
	world_max_all(w, peak, 3);
	if (!t->leads)
		return;
	const double seconds = clock_seconds() - begin;
	t->tokens_seen += tokens;
	metrics_set(m, "num_tokens", t->tokens_seen);
	metrics_set(m, "step_time", seconds);
	metrics_set(m, "tokens_per_second", tokens / seconds);
	if (t->s.config.method == METHOD_GRPO) {
		metrics_set(m, "idle/rollout", sums[0] / world_role_count(w, ROLE_ROLLOUT) / seconds);
		metrics_set(m, "idle/reward", sums[1] / world_role_count(w, ROLE_REWARD) / seconds);
	}
	metrics_set(m, "idle/learner", sums[2] / world_role_count(w, ROLE_LEARNER) / seconds);
	if (t->s.config.method == METHOD_GRPO) {
		metrics_set(m, "time/reward", sums[3]);
		metrics_set(m, "memory/rollout_peak_rss_mib", peak[0]);
		metrics_set(m, "memory/reward_peak_rss_mib", peak[1]);
	}
	metrics_set(m, "memory/learner_peak_rss_mib", peak[2]);
}

static void introduce_shard(const struct trainer *t)
{
	const struct learner *l = &t->learner;
	const double mib = 2 * (double)sizeof(float) / 1048576;
	if (l->sharded)
		fprintf(stderr, "favor: moments sharded over %d learners: %.1f MiB on the leader, %.1f MiB together\n",
		        world_role_count(t->s.world, ROLE_LEARNER), (double)l->own_count * mib, (double)l->count * mib);
	else
		fprintf(stderr, "favor: learner.shard: there is one learner, which keeps all moments (%.1f MiB)\n",
		        (double)l->count * mib);
}

/* Writes the effective configuration and says what will be trained. Leader. */
static int introduce(struct trainer *t, struct favor_error *e)
{
	const struct config *c = &t->s.config;
	const struct model *m = t->s.assets.model;
	char *path = favor_format("%s/config.yaml", c->run.dir), *yaml = config_to_yaml(c),
	     *ranks = world_placement_text(t->s.world);
	FILE *f = fopen(path, "w");
	int bad = !f || fputs(yaml, f) < 0;
	if (f && fclose(f))
		bad = 1;
	if (bad)
		favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
	const double million = 1e6;
	fprintf(stderr, "favor: %s of %s on %d rank%s (%s)\n", c->method == METHOD_GRPO ? "GRPO" : "SFT", c->model.path,
	        world_size(t->s.world), world_size(t->s.world) == 1 ? "" : "s", ranks);
	fprintf(stderr,
	        "favor: %d training records (%d checked), %d evaluation records, %d classes; longest prompt %d tokens, %lld "
	        "patches\n",
	        t->s.train.count, t->s.train_checked, t->s.eval.count, t->s.classes.count, t->s.longest_prompt, (long long)t->s.most_patches);
	fprintf(stderr, "favor: parameters: %.3f M, trainable %.3f M (vision tower %.3f M, %s)\n",
	        (double)m->params.total / million, (double)t->learner.count / million,
	        (double)m->params.vision_total / million, c->model.vision == VISION_FULL ? "trained" : "frozen");
	if (c->learner.shard)
		introduce_shard(t);
	fprintf(stderr, "favor: effective configuration in %s\n", path);
	free(path);
	free(yaml);
	free(ranks);
	return bad ? -1 : 0;
}

/* A checkpoint that the user names: what the run's folder holds must be the run that it is of, up to there. Else logs would be cut and
 * mixed, and --resume auto would take what is not of this run. */
static int check_named(const char *resume, const char *dir, const char *latest, int holds_run, struct favor_error *e)
{
	char *own = favor_format("%s/checkpoints", dir), *slash = strrchr(resume, '/'),
	     *folder = favor_format("%.*s", slash ? (int)(slash - resume) + 1 : 1, slash ? resume : ".");
	struct stat a, b;
	struct checkpoint named, newest;
	int result = 0;
	if (!holds_run || stat(resume, &a)) /* what is not there is reported where it is read */
		goto done;
	if (stat(folder, &a) || stat(own, &b) || a.st_dev != b.st_dev || a.st_ino != b.st_ino) {
		result = favor_fail(e, "%s: already holds a run, and %s is not of its checkpoints; go on with that run by --resume auto, or give "
		                    "another run.dir", dir, resume);
		goto done;
	}
	if (!latest || (result = checkpoint_open(resume, &named, e)))
		goto done;
	const int64_t step = named.step;
	checkpoint_free(&named);
	if ((result = checkpoint_open(latest, &newest, e)))
		goto done;
	if (newest.step > step)
		result = favor_fail(e, "%s: the run has later checkpoints, up to %s; go on from that one by --resume auto, or from this one with "
		                    "another run.dir", resume, latest);
	checkpoint_free(&newest);
done:
	free(folder);
	free(own);
	return result;
}

/* The checkpoint to go on from, agreed by all ranks: NULL for a new run. A run that is there already is not written
 * over. */
static int choose_resume(struct trainer *t, const char *resume, char **path, struct favor_error *e)
{
	void *data = NULL;
	size_t n = 0;
	int ok = 1;
	*path = NULL;
	if (world_rank(t->s.world) == 0) {
		const char *dir = t->s.config.run.dir;
		char *latest = checkpoint_latest(dir);
		char *metrics = favor_format("%s/metrics.jsonl", dir);
		struct stat st;
		const int holds_run = latest || (stat(metrics, &st) == 0 && st.st_size > 0);
		if (resume && strcmp(resume, "auto")) {
			data = favor_strdup(resume);
			ok = !check_named(resume, dir, latest, holds_run, e);
		} else if (resume) {
			data = latest ? favor_strdup(latest) : NULL;
			if (!latest)
				fprintf(stderr, "favor: no checkpoint in %s yet: starting from the beginning\n", dir);
		} else if (holds_run) {
			ok = 0;
			favor_fail(e, "%s: already holds a run; go on with --resume auto, or give another run.dir", dir);
		}
		n = data ? strlen(data) + 1 : 0;
		free(latest);
		free(metrics);
	}
	if (world_agree(t->s.world, ok, e)) {
		free(data);
		return -1;
	}
	world_broadcast(t->s.world, &data, &n);
	if (n)
		*path = data;
	else
		free(data);
	return 0;
}

/* A step that the optimiser has begun is finished: weights that were stepped can't be given up. */
static int learner_tick(void *trainer)
{
	struct trainer *t = trainer;
	return world_tick(t->s.world) && !t->settled;
}

/* Leader. */
static void note(void *trainer, const char *text)
{
	run_log_note(((struct trainer *)trainer)->log, "%s", text);
}

static int start(struct trainer *t, const char *resume, struct favor_error *e)
{
	struct setup *s = &t->s;
	const struct config *c = &s->config;
	char *from;
	t->rolls = c->method == METHOD_GRPO && world_plays(s->world, ROLE_ROLLOUT);
	t->learns = world_plays(s->world, ROLE_LEARNER);
	t->leads = world_is_leader(s->world);
	t->saved_step = -1;
	if (plan_check(s, e) || choose_resume(t, resume, &from, e))
		return -1;
	int ok = 1;
	/* evaluation rolls out on sft's ranks too */
	if (t->rolls || (s->assets.model && world_plays(s->world, ROLE_ROLLOUT)))
		ok = !setup_rollout(s, &t->rollout, e);
	if (t->learns) {
		learner_init(&t->learner, s->assets.model, &c->learner, c->model.vision, world_role_index(s->world, ROLE_LEARNER),
		             world_role_count(s->world, ROLE_LEARNER));
		if (c->comm.reproducible)
			learner_keep_sum(&t->learner);
		if (plan_lends(s))
			learner_lend(&t->learner);
		t->learner.tick = learner_tick;
		t->learner.tick_arg = t;
		t->learner.ready_arg = &t->teams;
		/* before a resume: the reference is the model that the run began with */
		if (c->method == METHOD_GRPO && c->learner.beta > 0)
			learner_set_reference(&t->learner);
	}
	world_phase(s->world, from ? "resume" : "begin", -1, -1);
	if (ok && from)
		ok = !trainer_restore(t, from, e);
	if (ok && s->assets.model && plan_feature_bytes(s)) {
		model_keep_features(s->assets.model, (size_t)plan_feature_bytes(s));
		if (t->learns)
			learner_share_features(&t->learner);
	}
	if (ok && t->leads) {
		char *checkpoints = favor_format("%s/checkpoints", c->run.dir);
		ok = !file_make_folders(checkpoints, "; give another run.dir", e) && !assets_files(s->assets.folder, &t->files, &t->file_count, e) &&
		     !introduce(t, e);
		free(checkpoints);
		if (ok) {
			t->log = run_log_open(c->run.dir, from ? t->step : 0, c->learner.steps, e);
			ok = t->log != NULL;
		}
		if (ok && from)
			run_log_note(t->log, "favor: resumed from %s after step %lld%s", from, (long long)t->step,
			             t->step == c->learner.steps ? ", which is the last: nothing is left to train (learner.steps)" : "");
	}
	free(from);
	if (world_agree(s->world, ok, e))
		return -1;
	setup_say_device(s);
	const int survives = world_survive(s->world, note, t);
	if (survives && t->leads)
		run_log_note(t->log, "favor: this MPI goes on after a failure: ranks that roll out or score may be lost");
	return teams_open(&t->teams, s, &t->learner, survives, note, t, e);
}

/* 0, -1, or 1: given up, since the run stops. */
static int evaluate(struct trainer *t, struct metrics *m, struct favor_error *e)
{
	struct evaluation v;
	int ok = 1;
	world_phase(t->s.world, "evaluation", t->step, -1);
	struct rollout *r = t->rollout.model ? &t->rollout : NULL;
	const int stopped = phase_evaluate(&t->s, r, &t->round_number, t->step, &v);
	if (t->leads && v.count && !stopped) {
		char *path = favor_format("%s/eval-step-%06lld.json", t->s.config.run.dir, (long long)t->step);
		int64_t format = 0, correct = 0;
		for (int32_t i = 0; i < v.count; i++) {
			format += v.predictions[i].format;
			correct += v.predictions[i].correct;
		}
		double low, high;
		wilson_interval(correct, v.count, &low, &high);
		metrics_set(m, "eval/accuracy", evaluation_accuracy(&v));
		metrics_set(m, "eval/format", (double)format / v.count);
		run_log_note(t->log, "favor: eval after step %lld: accuracy %.1f%% [%.1f, %.1f] on %d images, format %.1f%%",
		             (long long)t->step, 100 * evaluation_accuracy(&v), 100 * low, 100 * high, v.count,
		             100.0 * (double)format / v.count);
		ok = !evaluation_write(&v, path, e);
		free(path);
	}
	evaluation_free(&v);
	return world_agree(t->s.world, ok, e) ? -1 : stopped;
}

static int evaluation_due(const struct trainer *t)
{
	const struct learner_options *o = &t->s.config.learner;
	return o->eval_every && (t->step % o->eval_every == 0 || t->step == o->steps);
}

static int save(struct trainer *t, struct favor_error *e)
{
	return world_agree(t->s.world, !trainer_save(t, e), e);
}

/* The evaluations that come before the next step: that of the untrained model, and one that a stopped run had no time
 * for, whose metrics its last line and its checkpoint still lack. Returns as evaluate. */
static int evaluate_first(struct trainer *t, struct favor_error *e)
{
	struct metrics m = {0};
	const int owed = t->step > 0 && isnan(history_last(&t->history, "eval/accuracy"));
	if (!evaluation_due(t) || !world_leader_says(t->s.world, t->step == 0 || owed))
		return 0;
	int result = evaluate(t, &m, e);
	if (result || t->step == 0)
		return result;
	int ok = 1;
	if (t->leads && m.count) {
		history_amend(&t->history, &m);
		ok = !run_log_amend(t->log, t->step, &m, e);
	}
	if (world_agree(t->s.world, ok, e))
		return -1;
	return save(t, e);
}

/* The run stops: what was finished since the last checkpoint is saved. */
static int stop(struct trainer *t, struct favor_error *e)
{
	struct world *w = t->s.world;
	const char *signal = stop_name(world_stopping(w));
	if (world_leader_says(w, t->step > 0 && t->step != t->saved_step) && save(t, e))
		return 1;
	if (t->leads)
		run_log_note(t->log, "favor: stopped by %s after step %lld of %d; go on with --resume auto", signal,
		             (long long)t->step, t->s.config.learner.steps);
	return STOP_EXIT_CODE;
}

/* Returns the exit code. */
static int loop(struct trainer *t, struct favor_error *e)
{
	const struct config *c = &t->s.config;
	int stopped = evaluate_first(t, e);
	while (!stopped && t->step < c->learner.steps) {
		struct metrics m = {0};
		favor_process()->step = t->step;
		stopped = c->method == METHOD_GRPO ? grpo_step(t, &m) : sft_step(t, &m);
		if (stopped)
			break;
		t->step++;
		if (evaluation_due(t))
			stopped = evaluate(t, &m, e); /* given up: the resumed run makes it */
		if (stopped < 0)
			break;
		if (t->leads) {
			history_add(&t->history, &m);
			world_phase(t->s.world, "log metrics", t->step, -1);
			run_log_metrics(t->log, t->step, &m);
			run_log_progress(t->log, t->step, &m);
		}
		const int last = t->step == c->learner.steps;
		if (!stopped && (last || (c->checkpoint.every && t->step % c->checkpoint.every == 0)) && save(t, e))
			stopped = -1;
	}
	return stopped < 0 ? 1 : stopped ? stop(t, e) : 0;
}

static void finish(struct trainer *t)
{
	teams_close(&t->teams);
	if (t->rollout.model)
		rollout_free(&t->rollout);
	if (t->learner.model)
		learner_free(&t->learner);
	if (t->log)
		run_log_close(t->log);
	history_free(&t->history);
	assets_files_free(t->files, t->file_count);
	for (int i = 0; i < SAMPLES_KEPT; i++)
		free(t->samples[i]);
	exchange_free(t);
	setup_close(&t->s);
	free(t);
}

int cmd_train(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] = "train CONFIG.yaml [key.path=value ...] [--resume auto|CKPT.h5]";
	const char *resume = NULL, *words[256];
	int count, code;
	const struct option options[] = {
	    {"--resume", OPTION_TEXT, &resume, 0, 0,
	     "auto: the newest checkpoint in run.dir (none: start anew); or a checkpoint's path"}};
	struct world *w = world_open(&argc, &argv);
	code = options_parse(argc, argv, options, 1, words, 256, &count, usage, e);
	if (code == 0 && count < 1)
		code = favor_fail(e, "usage: favor %s", usage);
	if (code)
		return setup_end(w, code < 0 ? 2 : 0, e);
	struct trainer *t = favor_calloc(1, sizeof *t);
	stop_watch();
	int input = setup_open(&t->s, w, words[0], words + 1, count - 1, NEED_TRAIN, e) || start(t, resume, e);
	code = input ? 2 : loop(t, e);
	finish(t);
	return setup_end(w, code, e);
}
