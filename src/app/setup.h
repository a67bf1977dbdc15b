/* What train and eval share: configuration on all ranks, data sets, classes, encoder, the checks before the first step. */
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
#endif
