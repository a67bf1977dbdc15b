/* What train and eval share: configuration on all ranks, data sets, classes, encoder, the checks before the first step,
 * the plan of memory. */
#ifndef FAVOR_APP_SETUP_H
#define FAVOR_APP_SETUP_H

#include "app/assets.h"
#include "app/device.h"
#include "base/clock.h"
#include "base/config.h"
#include "comm/world.h"
#include "data/dataset.h"
#include "data/encode.h"
#include "learner/learner.h"
#include "reward/reward.h"
#include "rollout/rollout.h"

struct setup {
	struct world *world;
	struct config config;
	struct backend *backend;
	struct device_note device; /* what backend is, and why */
	struct assets assets;
	struct dataset train, eval;
	struct class_list classes;
	void *data; /* not rank 0: what train and eval point into; owned */
	struct encoder encoder;
	int32_t train_checked;  /* training records that were checked: all, or the first of the run's order */
	int32_t longest_prompt; /* tokens */
	int64_t most_patches;   /* of one prompt */
	int32_t longest_target; /* sft: tokens */
	double reward_seconds;  /* that this rank spent on scoring since the last step's metrics */
};

/* NEED_NO_WEIGHTS: the model's files are checked, but no weights are read and no memory is taken for them. */
enum setup_needs { NEED_TRAIN = 1, NEED_EVAL = 2, NEED_NO_WEIGHTS = 4 };

/* Collective. Rank 0 reads the file; all get the same configuration. Parses argv = [command, CONFIG, key=value ...]
 * (options with -- are the caller's and already taken out). Opens the world's roles, data, model; checks the records
 * that training will use (of small sets all), each image included; ranks share the work. 0, or -1 with the same message on all ranks. */
int setup_open(struct setup *s, struct world *w, const char *config_path, const char *const *overrides,
               int override_count, int needs, struct favor_error *e);
/* Its two halves, both collective: configuration and roles; data, model and checks. */
int setup_begin(struct setup *s, struct world *w, const char *config_path, const char *const *overrides,
                int override_count, int needs, struct favor_error *e);
int setup_load(struct setup *s, const char *config_path, int needs, struct favor_error *e);
void setup_close(struct setup *s);
/* Collective: the leader says what the ranks compute on. */
void setup_say_device(const struct setup *s);
/* Collective: says the message that all ranks have, once, and closes the world. Returns code. */
int setup_end(struct world *w, int code, struct favor_error *e);
/* Records that an evaluation looks at: data.eval_limit applied. */
int32_t setup_eval_count(const struct setup *s);
/* Threads for a phase in which ranks of that role compute. */
void setup_threads(struct setup *s, enum role r);
/* Stop tokens of data.. rollout.stop added to r's; sampling and lengths from the configuration. */
int setup_rollout(struct setup *s, struct rollout *r, struct favor_error *e);
/* The token that ends a response in SFT: the first eos. -1 with a message if the model names none. */
int setup_stop_token(const struct setup *s, int32_t *id, struct favor_error *e);
/* What this rank needs, in bytes. -1 if the longest prompt and response are longer than the model can take. */
struct memory_plan {
	int64_t weights, fixed, activations, rollout, features; /* fixed: gradients, moments, reference */
	int64_t host;  /* memory of the host that tensors pass through to and from checkpoints, and on_device blocks to and from MPI */
	int64_t total; /* of all; on_device without host */
	int64_t limit; /* of total: run.memory_limit, or this rank's share of the node's memory, or of its GPU's */
	int on_device;
	enum { SHARD_IS_NO_HELP, SHARD_HELPS, SHARD_WANTS_LEARNERS } shard; /* what learner.shard would do */
};
/* Whether this rank's backend keeps packed weights in the gradient's memory (learner_lend). */
int setup_lends(const struct setup *s);
enum { EVAL_AT_ONCE = 8 }; /* records that decode together in an evaluation */
/* How many groups' responses a rollout rank decodes together: rollout.groups, at most learner.groups_per_step. The same on
 * all ranks. */
int32_t setup_groups_at_once(const struct setup *s);
/* Bytes for features of images (model_keep_features); 0: none are kept. */
int64_t setup_feature_bytes(const struct setup *s);
/* What makes such a plan smaller, for a message: "lower ..., or set ...". */
enum { PLAN_ADVICE_MAX = 320 };
void memory_plan_advice(const struct memory_plan *p, char *text, size_t size);
int setup_plan(const struct setup *s, struct memory_plan *plan, struct favor_error *e);
/* Prints the plan (leader) and refuses what doesn't fit. `learner`, `rollout`: what this rank plays. Collective. */
int setup_memory_plan(struct setup *s, struct favor_error *e);
int64_t peak_rss_mib(void);

#endif
