/* An SFT step: cross-entropy on targets, with the same model, data, optimiser and loop as GRPO. Example i of the
 * endless order goes to learner i % learners; every rank learns. */
#include "app/trainer.h"

#include "base/hash.h"
#include "learner/schedule.h"

#include <stdlib.h>

enum { SFT_SUMS = 3 };

struct sft_items {
	int64_t count;
	struct prompt *prompts;
	struct token_ids *targets;
	struct example *examples;
};

static void encode_items(struct trainer *t, struct sft_items *items, uint64_t first, uint64_t count)
{
	struct favor_error e = {""};
	const struct setup *s = &t->s;
	const uint64_t learners = (uint64_t)world_role_count(s->world, ROLE_LEARNER),
	               mine = (uint64_t)world_role_index(s->world, ROLE_LEARNER);
	int32_t stop;
	if (setup_stop_token(s, &stop, &e))
		favor_die("%s", e.message);
	*items = (struct sft_items){.prompts = favor_calloc((size_t)count, sizeof *items->prompts),
	                            .targets = favor_calloc((size_t)count, sizeof *items->targets),
	                            .examples = favor_calloc((size_t)count, sizeof *items->examples)};
	for (uint64_t i = first; i < first + count; i++) {
		if (i % learners != mine)
			continue;
		const struct record *r = &s->train.records[dataset_order(&s->train, s->config.run.seed, i)];
		const int64_t n = items->count++;
		const int64_t augment = s->config.data.augment ? (int64_t)(hash_mix(s->config.run.seed ^ hash_mix(i)) >> 2)
		                                               : -1;
		world_phase(s->world, "encode", t->step, (int64_t)i);
		if (encode_record(&s->encoder, r, augment, &items->prompts[n], &e) ||
		    encode_target(&s->encoder, r, stop, &items->targets[n], &e))
			favor_die("%s:%d passed its check but can't be read now: %s", s->train.path, r->line, e.message);
		items->examples[n] = (struct example){&items->prompts[n], &items->targets[n]};
		if (world_tick(s->world))
			break; /* the step is given up before its first sum of gradients */
	}
}

static void free_items(struct sft_items *items)
{
	for (int64_t i = 0; i < items->count; i++) {
		prompt_free(&items->prompts[i]);
		token_ids_free(&items->targets[i]);
	}
	free(items->prompts);
	free(items->targets);
	free(items->examples);
}

struct examples_in_hand {
	struct trainer *t;
	const struct sft_items *items;
	double step_tokens;
	uint64_t place, learners; /* of this rank's first example in the step; the next is `learners` further */
	double (*each)[SFT_SUMS]; /* loss, entropy, tokens; 1 in the last if this rank knows that the run stops */
};

static int learn_examples(void *arg, int64_t at, int n)
{
	const struct examples_in_hand *h = arg;
	struct favor_error e = {""};
	struct loss_sums sums = {0};
	world_phase(h->t->s.world, "forward and backward", h->t->step, at);
	const int result =
	    learner_examples(&h->t->learner, n, h->items->examples + at, (int64_t)h->step_tokens, &sums, &e);
	if (result < 0)
		favor_die("step %lld: an example can't be learned from: %s", (long long)h->t->step, e.message);
	double *to = h->each[h->place + (uint64_t)at * h->learners];
	to[0] = sums.loss;
	to[1] = sums.entropy;
	to[2] = sums.tokens;
	return result;
}

int sft_step(struct trainer *t, struct metrics *m)
{
	const struct learner_options *o = &t->s.config.learner;
	struct world *w = t->s.world;
	const double begin = clock_seconds();
	const uint64_t per_step = (uint64_t)o->groups_per_step;
	struct sft_items items;
	setup_threads(&t->s, ROLE_LEARNER);
	encode_items(t, &items, (uint64_t)t->step * per_step, per_step);
	double tokens[2] = {0, 0}; /* targets, all */
	int given_up = 0;
	for (int64_t i = 0; i < items.count; i++) {
		tokens[0] += items.targets[i].count;
		tokens[1] += items.targets[i].count + items.prompts[i].ids.count;
	}
	world_sum_learners(w, tokens, 2);

	double reduce = 0, optimizer = 0;
	const uint64_t first = (uint64_t)t->step * per_step, learners = (uint64_t)world_role_count(w, ROLE_LEARNER),
	               me = (uint64_t)world_role_index(w, ROLE_LEARNER);
	struct examples_in_hand hand = {t, &items, tokens[0], (me + learners - first % learners) % learners, learners,
	                                favor_calloc(per_step + 1, sizeof *hand.each)};
	/* who knows of a stop has encoded a part alone, and learns nothing of it */
	given_up = trainer_gradient(t, first, (int64_t)per_step, items.count, learn_examples, &hand);
	free_items(&items);
	/* the last moment to give up: learners that know of a stop tell the others with these sums */
	hand.each[per_step][0] = given_up || world_stopping(w);
	world_sum_learners(w, hand.each[0], (int)(per_step + 1) * SFT_SUMS);
	double sums[SFT_SUMS] = {0};
	for (uint64_t i = 0; i < per_step; i++)
		for (int k = 0; k < SFT_SUMS; k++)
			sums[k] += hand.each[i][k];
	given_up = hand.each[per_step][0] > 0;
	free(hand.each);
	if (given_up)
		return 1;
	const double norm = trainer_update(t, schedule_lr(o, t->step), &reduce, &optimizer);
	if (t->leads) {
		metrics_set(m, "epoch", (double)((uint64_t)(t->step + 1) * per_step) / (double)t->s.train.count);
		metrics_set(m, "loss", sums[0]);
		metrics_set(m, "entropy", sums[1] / sums[2]);
		metrics_set(m, "completions/mean_length", tokens[0] / (double)per_step);
		metrics_set(m, "grad_norm", norm);
		metrics_set(m, "learning_rate", (double)schedule_lr(o, t->step));
		metrics_set(m, "time/forward", t->learner.forward_seconds);
		metrics_set(m, "time/backward", t->learner.backward_seconds);
		metrics_set(m, "time/reduce", reduce);
		metrics_set(m, "time/optimizer", optimizer);
	}
	trainer_common_metrics(t, m, begin, tokens[1]);
	return 0;
}
