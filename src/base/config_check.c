/* What must hold between options. Each option's own range is in the table. */
#include "base/config_table.h"

#include <stdlib.h>
#include <string.h>

/* "PLACE: message", PLACE being where that option was given. */
static int fail_option(const struct option_origin *origins, const char *key, struct favor_error *e)
{
	char *place = option_origin_text(&origins[option_find(key)]);
	favor_fail_prefix(e, "%s", place);
	free(place);
	return -1;
}

/* The place of whichever of the two was given last: that is the one to look at. */
static const char *later(const struct option_origin *origins, const char *a, const char *b)
{
	const struct option_origin *x = &origins[option_find(a)], *y = &origins[option_find(b)];
	return y->serial > x->serial || (y->serial == x->serial && y->line > x->line) ? b : a;
}

static int check_placement(const struct placement_options *p, const struct option_origin *origins,
                           struct favor_error *e)
{
	if (p->mode != PLACEMENT_COUNTS)
		return 0;
	const char *missing = p->rollout < 1 ? "rollout" : p->reward < 1 ? "reward" : p->learner < 1 ? "learner" : NULL;
	if (!missing)
		return 0;
	favor_fail(e, "placement.%s is not given; counts need all three: placement: {rollout: N, reward: N, learner: N}",
	           missing);
	/* the place of any part that was given */
	const char *key = later(origins, later(origins, "placement", "placement.rollout"),
	                        later(origins, "placement.reward", "placement.learner"));
	return fail_option(origins, key, e);
}

static int check_classes(const struct config *c, const struct option_origin *origins, struct favor_error *e)
{
	const struct string_list *classes = &c->data.classes;
	if (classes->count && *c->data.classes_file) {
		favor_fail(e, "data.classes and data.classes_file are both given; give one of them");
		return fail_option(origins, later(origins, "data.classes", "data.classes_file"), e);
	}
	for (int i = 0; i < classes->count; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(classes->items[i], classes->items[j]) == 0) {
				favor_fail(e, "data.classes has \"%.120s\" twice, as items %d and %d", classes->items[i], j + 1, i + 1);
				return fail_option(origins, "data.classes", e);
			}
	return 0;
}

/* Only shells put the home folder for a ~, and not behind "run.dir="; a folder of that name is hardly meant. */
static int check_paths(const struct config *c, const struct option_origin *origins, struct favor_error *e)
{
	static const char *const keys[] = {"model.path",  "data.train",        "data.eval",    "data.root",
	                                   "data.prompt", "data.classes_file", "data.aliases", "run.dir"};
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		const char *path = *(char *const *)((const char *)c + config_options[option_find(keys[i])].offset);
		if (path[0] == '~' && path[1] == '/') {
			favor_fail(e, "%s: ~ is not taken for the home folder in %.200s; write its path (or ./~ for a folder of that name)", keys[i],
			           path);
			return fail_option(origins, keys[i], e);
		}
	}
	return 0;
}

static int check_grpo(const struct config *c, const struct option_origin *origins, struct favor_error *e)
{
	if (c->rollout.group_size < 2) {
		favor_fail(e, "rollout.group_size is %d; method grpo compares the responses of a group and needs at least 2",
		           c->rollout.group_size);
		return fail_option(origins, "rollout.group_size", e);
	}
	if (c->rollout.temperature == 0.0f) {
		favor_fail(
			e, "rollout.temperature is 0; method grpo needs responses that differ: a temperature above 0, such as 1.0");
		return fail_option(origins, "rollout.temperature", e);
	}
	if (c->reward.accuracy == 0.0f && c->reward.format == 0.0f) {
		favor_fail(e, "all weights of reward are 0, so nothing can be learned; give reward.accuracy or reward.format a "
		              "weight above 0");
		return fail_option(origins, later(origins, "reward.accuracy.weight", "reward.format"), e);
	}
	if (c->data.augment) {
		favor_fail(e, "data.augment is for method sft; set data.augment: false");
		return fail_option(origins, "data.augment", e);
	}
	return 0;
}

int config_check(const struct config *c, const struct option_origin *origins, struct favor_error *e)
{
	if (c->learner.micro_batch > c->learner.groups_per_step) {
		favor_fail(e, "learner.micro_batch is %d, more than learner.groups_per_step %d; lower it or raise that",
		           c->learner.micro_batch, c->learner.groups_per_step);
		return fail_option(origins, later(origins, "learner.micro_batch", "learner.groups_per_step"), e);
	}
	if (c->learner.warmup > c->learner.steps) {
		favor_fail(e, "learner.warmup is %d, more than learner.steps %d; lower it or raise that", c->learner.warmup,
		           c->learner.steps);
		return fail_option(origins, later(origins, "learner.warmup", "learner.steps"), e);
	}
	if (c->data.min_pixels && c->data.max_pixels && c->data.min_pixels > c->data.max_pixels) {
		favor_fail(e, "data.min_pixels is %lld, more than data.max_pixels %lld", (long long)c->data.min_pixels,
		           (long long)c->data.max_pixels);
		return fail_option(origins, later(origins, "data.min_pixels", "data.max_pixels"), e);
	}
	if (c->learner.eval_every && !*c->data.eval) {
		favor_fail(e, "learner.eval_every is %d, but there is nothing to evaluate on; give data.eval, or set learner.eval_every: 0",
		           c->learner.eval_every);
		return fail_option(origins, later(origins, "learner.eval_every", "data.eval"), e);
	}
	if (check_paths(c, origins, e) != 0 || check_placement(&c->placement, origins, e) != 0 || check_classes(c, origins, e) != 0)
		return -1;
	return c->method == METHOD_GRPO ? check_grpo(c, origins, e) : 0;
}
