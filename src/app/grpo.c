/* A GRPO step. Reads: groups through rollout and reward -> advantages -> loss and gradient of micro-batches -> sum over
 * learners -> AdamW -> publish. */
#include "app/exchange.h"
#include "app/plan.h"
#include "app/trainer.h"

#include "base/hash.h"
#include "learner/advantage.h"
#include "learner/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Plain sums over groups. A learner fills one such for each of its groups; all are added in index order (sum_groups), so
 * that metrics don't depend on the number of learners either. */
struct group_sums {
	double sequences, groups, reward, reward_square, zero_std;
	double tokens, prompt_tokens, truncated, ended_tokens;
	double named[GROUP_MAX_REWARDS], named_square[GROUP_MAX_REWARDS];
	double stopping;  /* learners that know that the run stops */
	double digest[4]; /* 16 bits each, so that sums of doubles stay exact; carried together at the end */
};
enum { GROUP_SUMS = sizeof(struct group_sums) / sizeof(double), LOSS_SUMS = sizeof(struct loss_sums) / sizeof(double) };

static void add_group(struct group_sums *s, const struct group *g, double std)
{
	const uint64_t digest = group_digest(g);
	s->groups++;
	s->zero_std += std == 0;
	s->prompt_tokens += g->prompt_tokens;
	for (int i = 0; i < 4; i++)
		s->digest[i] += (double)(digest >> (16 * i) & 0xffff);
	for (int32_t k = 0; k < g->responses; k++) {
		const int32_t n = g->start[k + 1] - g->start[k];
		s->sequences++;
		s->tokens += n;
		s->reward += (double)g->reward[k];
		s->reward_square += (double)g->reward[k] * (double)g->reward[k];
		if (g->finish[k] == FINISH_LENGTH)
			s->truncated++;
		else
			s->ended_tokens += n;
		for (int32_t j = 0; j < g->reward_count; j++) {
			const double x = (double)g->rewards[j * g->responses + k];
			s->named[j] += x;
			s->named_square[j] += x * x;
		}
	}
}

/* Standard deviation with Bessel's correction from sums. */
static double deviation(double sum, double square, double n)
{
	return n > 1 ? sqrt(fmax(0, (square - sum * sum / n) / (n - 1))) : 0;
}

static void reward_metrics(const struct trainer *t, struct metrics *m, const struct group_sums *s)
{
	const char *names[GROUP_MAX_REWARDS];
	const int rewards = reward_names(&t->s.config.reward, names);
	char name[METRICS_NAME_MAX];
	metrics_set(m, "reward", s->reward / s->sequences);
	metrics_set(m, "reward_std", deviation(s->reward, s->reward_square, s->sequences));
	metrics_set(m, "frac_reward_zero_std", s->zero_std / s->groups);
	for (int i = 0; i < rewards; i++) {
		snprintf(name, sizeof name, "rewards/%s/mean", names[i]);
		metrics_set(m, name, s->named[i] / s->sequences);
		snprintf(name, sizeof name, "rewards/%s/std", names[i]);
		metrics_set(m, name, deviation(s->named[i], s->named_square[i], s->sequences));
	}
}

static void length_metrics(struct metrics *m, const struct group_sums *s, double longest, double shortest)
{
	const double ended = s->sequences - s->truncated;
	metrics_set(m, "completions/mean_length", s->tokens / s->sequences);
	metrics_set(m, "completions/min_length", shortest);
	metrics_set(m, "completions/max_length", longest);
	metrics_set(m, "completions/clipped_ratio", s->truncated / s->sequences);
	metrics_set(m, "completions/mean_terminated_length", ended > 0 ? s->ended_tokens / ended : 0);
}

static void loss_metrics(const struct trainer *t, struct metrics *m, const struct loss_sums *l)
{
	metrics_set(m, "loss", l->loss);
	if (t->s.config.learner.beta > 0)
		metrics_set(m, "kl", l->kl / l->tokens);
	metrics_set(m, "entropy", l->entropy / l->tokens);
	metrics_set(m, "clip_ratio/low_mean", l->clip_low / l->tokens);
	metrics_set(m, "clip_ratio/high_mean", l->clip_high / l->tokens);
	metrics_set(m, "clip_ratio/region_mean", l->clip_region / l->tokens);
}

static void digest_metric(struct metrics *m, const struct group_sums *s)
{
	uint64_t digest = 0;
	char text[24];
	for (int i = 0; i < 4; i++)
		digest += (uint64_t)s->digest[i] << (16 * i);
	snprintf(text, sizeof text, "%016llx", (unsigned long long)digest);
	metrics_set(m, "samples_digest", (double)(digest & 0x1fffffffffffffull));
	metrics_set_text(m, "samples_digest", text);
}

/* each[count + 1]: this learner's groups filled, the others' 0. In the last: whether this learner knows that the run
 * stops; the sum says how many do. */
static void sum_groups(struct trainer *t, struct group_sums *each, int64_t count, struct group_sums *sums)
{
	double *to = (double *)sums, *from = (double *)each;
	world_sum_learners(t->s.world, from, (int)((count + 1) * GROUP_SUMS));
	*sums = (struct group_sums){0};
	for (int64_t i = 0; i <= count; i++)
		for (size_t k = 0; k < GROUP_SUMS; k++)
			to[k] += from[(size_t)i * GROUP_SUMS + k];
}

/* The same for losses; a micro-batch fills the place of its first group. Returns how many learners know of a stop. */
static double sum_losses(struct trainer *t, struct loss_sums *each, int64_t count, int stopping, struct loss_sums *l)
{
	each[count].loss = stopping;
	world_sum_learners(t->s.world, (double *)each, (int)((count + 1) * LOSS_SUMS));
	*l = (struct loss_sums){0};
	for (int64_t i = 0; i < count; i++) {
		l->loss += each[i].loss;
		l->policy_loss += each[i].policy_loss;
		l->kl += each[i].kl;
		l->entropy += each[i].entropy;
		l->clip_low += each[i].clip_low;
		l->clip_high += each[i].clip_high;
		l->clip_region += each[i].clip_region;
		l->tokens += each[i].tokens;
		l->sequences += each[i].sequences;
		l->difference_sum += each[i].difference_sum;
		l->ratio_max = fmax(l->ratio_max, each[i].ratio_max);
		l->difference_max = fmax(l->difference_max, each[i].difference_max);
	}
	return each[count].loss;
}

/* The lines of learner `owner` on the leader; *lines is replaced there. bytes: their length with the end. */
static void bring_lines(struct world *w, char **lines, size_t bytes, int owner)
{
	const size_t n = (bytes + sizeof(float) - 1) / sizeof(float);
	float *carrier = favor_calloc(n, sizeof *carrier);
	if (*lines)
		memcpy(carrier, *lines, bytes);
	world_bring(w, carrier, (int64_t)n, owner, "wait for the leader to take samples", "wait for a learner's samples");
	if (world_is_leader(w)) {
		free(*lines);
		*lines = (char *)carrier;
	} else {
		free(carrier);
	}
}

/* The newest lines are kept for checkpoints. */
static void keep_lines(struct trainer *t, const char *lines)
{
	for (const char *end; (end = strchr(lines, '\n')); lines = end + 1) {
		char **slot = &t->samples[t->sample_count++ % SAMPLES_KEPT];
		free(*slot);
		*slot = favor_format("%.*s", (int)(end - lines), lines);
	}
}

/* The step's first groups in samples.jsonl and for checkpoints. They are the same whatever the number of learners: who owns one gives
 * its lines to the leader. first: index of the step's first group. Collective among learners. */
static void log_samples(struct trainer *t, uint64_t first, struct group *const *groups, const struct prompt *prompts,
                        float *const *advantages, int64_t count)
{
	struct world *w = t->s.world;
	const char *names[GROUP_MAX_REWARDS];
	const int32_t per_step = t->s.config.learner.groups_per_step, limit = t->s.config.run.samples_per_step,
	              n = limit < 0 || limit > per_step ? per_step : limit;
	const int learners = world_role_count(w, ROLE_LEARNER), me = world_role_index(w, ROLE_LEARNER);
	char **lines = favor_calloc((size_t)n, sizeof *lines);
	double *bytes = favor_calloc((size_t)n, sizeof *bytes);
	reward_names(&t->s.config.reward, names);
	for (int64_t i = 0; i < count; i++) {
		const struct group *g = groups[i];
		const struct record *r = &t->s.train.records[g->record];
		const uint64_t place = g->index - first;
		if (place >= (uint64_t)n)
			continue;
		lines[place] = run_log_group_json(t->step + 1, g, r->image_count ? r->images[0] : "", r->label, prompts[i].text, names,
		                                  advantages[i]);
		bytes[place] = (double)strlen(lines[place]) + 1;
	}
	if (learners > 1 && n > 0)
		world_sum_learners(w, bytes, n);
	for (int32_t i = 0; i < n; i++) {
		const int owner = (int)((first + (uint64_t)i) % (uint64_t)learners);
		if (owner && (t->leads || owner == me))
			bring_lines(w, &lines[i], (size_t)bytes[i], owner);
		if (t->leads) {
			run_log_samples(t->log, lines[i]);
			keep_lines(t, lines[i]);
		}
		free(lines[i]);
	}
	free(lines);
	free(bytes);
}

struct learn_times {
	double reduce, optimizer, forward, backward;
};

/* What a pass over some of this learner's groups needs. */
struct groups_in_hand {
	struct trainer *t;
	uint64_t first; /* index of the step's first group */
	struct group *const *groups;
	const struct prompt *prompts;
	const float *const *advantages;
	const struct loss_step *step;
	struct loss_sums *each;
};

static int learn_groups(void *arg, int64_t at, int n)
{
	const struct groups_in_hand *h = arg;
	struct favor_error e = {""};
	const uint64_t index = h->groups[at]->index;
	world_phase(h->t->s.world, "forward and backward", h->t->step, (int64_t)index);
	const int result = learner_groups(&h->t->learner, n, h->groups + at, h->prompts + at, h->advantages + at,
	                                  h->t->s.config.learner.mask_truncated, h->step, &h->each[index - h->first], &e);
	if (result < 0)
		favor_die("sample %llu can't be learned from: %s", (unsigned long long)index, e.message);
	return result;
}

/* The learner's part of a step, on the groups that this rank owns; cut: some are missing, since the run stops. Learners
 * hear of that at different times, but enter the same sums: how many of them know travels with the two sums before the
 * first optimiser step, and if it is not 0 all give the step up (1). After that it is finished. */
static int learn(struct trainer *t, struct group *const *groups, int64_t count, int cut, struct group_sums *sums,
                 struct loss_sums *first, double *longest, double *shortest, double *norm, struct learn_times *times)
{
	const struct learner_options *o = &t->s.config.learner;
	struct world *w = t->s.world;
	struct favor_error e = {""};
	struct prompt *prompts = favor_calloc((size_t)count, sizeof *prompts);
	float **advantages = favor_calloc((size_t)count, sizeof *advantages);
	const int64_t per_step = o->groups_per_step;
	const uint64_t from = (uint64_t)t->step * (uint64_t)per_step;
	struct group_sums *each = favor_calloc((size_t)per_step + 1, sizeof *each);
	struct loss_sums *each_loss = favor_calloc((size_t)per_step + 1, sizeof *each_loss);
	double masked_tokens = 0, ends[2] = {0, -INFINITY};
	int given_up = 0;

	setup_threads(&t->s, ROLE_LEARNER);
	world_phase(w, "advantages", t->step, -1);
	for (int64_t i = 0; i < count; i++) {
		const struct group *g = groups[i];
		advantages[i] = favor_malloc((size_t)g->responses * sizeof **advantages);
		/* A_i = (r_i - mean) / (std + eps) */
		add_group(&each[g->index - from], g,
		          (double)advantage_group(g->reward, g->responses, o->scale_rewards, advantages[i]));
		for (int32_t k = 0; k < g->responses; k++) {
			const double n = g->start[k + 1] - g->start[k];
			ends[0] = fmax(ends[0], n);
			ends[1] = fmax(ends[1], -n);
			if (!(o->mask_truncated && g->finish[k] == FINISH_LENGTH))
				masked_tokens += n;
		}
		if (encode_record(&t->s.encoder, &t->s.train.records[g->record], -1, &prompts[i], &e))
			favor_die("record %u of %s passed its check but can't be read now: %s", g->record, t->s.train.path,
			          e.message);
	}
	each[per_step].stopping = cut || world_stopping(w);
	sum_groups(t, each, per_step, sums);
	if (sums->stopping > 0) {
		given_up = 1;
		goto done;
	}
	world_sum_learners(w, &masked_tokens, 1);
	world_max_learners(w, ends, 2);
	*longest = ends[0];
	*shortest = -ends[1];

	/* one global normaliser: invariant 3 */
	const struct loss_step step = {.type = o->loss,
	                               .clip_low = o->clip_low,
	                               .clip_high = o->clip_high,
	                               .beta = o->beta,
	                               .sequences = (int64_t)sums->sequences,
	                               .tokens = masked_tokens > 0 ? (int64_t)masked_tokens : 1,
	                               .max_tokens = t->s.config.rollout.max_tokens};
	struct groups_in_hand hand = {t, from, groups, prompts, (const float *const *)advantages, &step, each_loss};
	for (int32_t iteration = 0; iteration < o->iterations; iteration++) {
		struct loss_sums losses;
		memset(each_loss, 0, ((size_t)per_step + 1) * sizeof *each_loss);
		given_up = trainer_gradient(t, from, per_step, count, learn_groups, &hand);
		times->forward += t->learner.forward_seconds;
		times->backward += t->learner.backward_seconds;
		given_up = sum_losses(t, each_loss, per_step, given_up || (world_stopping(w) && iteration == 0), &losses) > 0;
		if (given_up)
			goto done;
		t->settled = 1;
		if (iteration == 0)
			*first = losses;
		else { /* clipping happens after the first step: keep the last iteration's ratios */
			first->loss = losses.loss;
			first->kl = losses.kl;
			first->clip_low = losses.clip_low;
			first->clip_high = losses.clip_high;
			first->clip_region = losses.clip_region;
		}
		*norm = trainer_update(t, schedule_lr(o, t->step), &times->reduce, &times->optimizer);
	}
	world_phase(w, "log samples", t->step, -1);
	log_samples(t, from, groups, prompts, advantages, count);
done:
	t->settled = 0;
	for (int64_t i = 0; i < count; i++) {
		prompt_free(&prompts[i]);
		free(advantages[i]);
	}
	free(prompts);
	free(advantages);
	free(each);
	free(each_loss);
	return given_up;
}

int grpo_step(struct trainer *t, struct metrics *m)
{
	const struct config *c = &t->s.config;
	const uint64_t per_step = (uint64_t)c->learner.groups_per_step;
	struct world *w = t->s.world;
	const double begin = clock_seconds();
	const struct round q = {.number = t->round_number++,
	                        .step = t->step,
	                        .data = &t->s.train,
	                        .order_seed = c->run.seed,
	                        .shuffled = 1,
	                        .first = (uint64_t)t->step * per_step,
	                        .count = per_step,
	                        .at_once = plan_groups_at_once(&t->s),
	                        .stride = 1,
	                        .responses = c->rollout.group_size};
	const struct model *model = t->s.assets.model;
	const uint64_t sampled_by = model ? model->version : 0;
	struct group **groups;
	int64_t count;
	const int cut = phase_round(&t->s, t->rolls ? &t->rollout : NULL, &q, &groups, &count);
	const double rolled = clock_seconds();

	struct group_sums sums = {0};
	struct loss_sums losses = {0};
	struct learn_times times = {0};
	double longest = 0, shortest = 0, norm = 0;
	int given_up = 0;
	if (t->learns)
		given_up = learn(t, groups, count, cut, &sums, &losses, &longest, &shortest, &norm, &times);
	for (int64_t i = 0; i < count; i++)
		group_destroy(groups[i]);
	free(groups);

	const double learned = clock_seconds();
	uint64_t version = model ? model->version : 0;
	world_phase(w, "publish weights", t->step, -1);
	exchange_publish(t, &version, &given_up);
	if (given_up)
		return 1;
	if (t->leads) {
		metrics_set(m, "epoch", (double)((uint64_t)(t->step + 1) * per_step) / (double)t->s.train.count);
		loss_metrics(t, m, &losses);
		reward_metrics(t, m, &sums);
		length_metrics(m, &sums, longest, shortest);
		metrics_set(m, "grad_norm", norm);
		metrics_set(m, "learning_rate", (double)schedule_lr(&c->learner, t->step));
		metrics_set(m, "policy_version", (double)sampled_by);
		metrics_set(m, "sampling/sampling_logp_difference/mean", losses.difference_sum / losses.tokens);
		metrics_set(m, "sampling/sampling_logp_difference/max", losses.difference_max);
		digest_metric(m, &sums);
		metrics_set(m, "time/rollout", rolled - begin);
		metrics_set(m, "time/forward", times.forward);
		metrics_set(m, "time/backward", times.backward);
		metrics_set(m, "time/reduce", times.reduce);
		metrics_set(m, "time/optimizer", times.optimizer);
		metrics_set(m, "time/publish", clock_seconds() - learned);
	}
	trainer_common_metrics(t, m, begin, sums.tokens + sums.prompt_tokens);
	return 0;
}
