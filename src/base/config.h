/* The configuration: one struct, filled from YAML and from key.path=value arguments through one option table that also
 * gives validation, help text and the effective configuration (config.c). Rooms take the section they need.
 * Strings are owned by the struct; "" means "not given" where no default is named. */
#ifndef FAVOR_BASE_CONFIG_H
#define FAVOR_BASE_CONFIG_H

#include "base/error.h"

#include <stdint.h>

enum method { METHOD_GRPO, METHOD_SFT };
enum vision_mode { VISION_FULL, VISION_FROZEN };
enum device { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
enum model_dtype { MODEL_FLOAT32, MODEL_BFLOAT16 };
enum loss_type { LOSS_GRPO, LOSS_DR_GRPO, LOSS_DAPO };
enum scale_rewards { SCALE_GROUP, SCALE_NONE };
enum schedule_type { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
enum placement_mode { PLACEMENT_AUTO, PLACEMENT_COLOCATE, PLACEMENT_COUNTS };
enum accuracy_mode { ACCURACY_STRICT, ACCURACY_VISUAL_RFT };

struct string_list {
	int count;
	char **items; /* owned */
};

struct model_options {
	char *path; /* Hugging Face folder or checkpoint.h5; required */
	char *init; /* "" (read weights) | "random": weights drawn from run.seed, path then needs config.json and
	               tokenizer.json only */
	enum vision_mode vision; /* full | frozen */
	int32_t feature_cache;   /* MiB for features of a frozen tower */
	enum model_dtype dtype;  /* of the operands of matrix products */
};
struct data_options {
	char *train, *eval; /* .jsonl, .csv, or a folder with one folder per class */
	char *root;         /* folder that relative image paths start at; "": the data file's own folder */
	int allow_outside; /* images may lie outside of root: absolute paths, "..", links */
	char *train_split,
	    *eval_split; /* CSV with a split column: rows to take; "" = "train" and "test" if the column is there */
	int32_t shots;   /* per class; 0 = all */
	uint64_t seed;   /* of the few-shot selection */
	char *prompt;    /* think | answer | a path to a text file with {classes} */
	char *system;    /* default | none | the text itself */
	struct string_list classes;     /* fixed order; empty: sorted labels of train and eval */
	char *classes_file;             /* one class a line; instead of classes */
	char *aliases;                  /* JSON file {"label": ["alias", ...]}; "" = none */
	int64_t min_pixels, max_pixels; /* 0 = from the model folder's image settings */
	int32_t eval_limit;             /* evaluate only the first N records; 0 = all */
	int augment;                    /* SFT only: random crop, flip and colour noise of training images */
};
struct rollout_options {
	int32_t group_size;      /* G, >= 2 for grpo */
	int32_t groups;          /* decoded together; 0: plan_groups_at_once chooses */
	int32_t max_tokens;      /* per response, the stop token included */
	float temperature;       /* > 0 in training; 0 = greedy, in eval and generate only */
	float top_p;             /* (0, 1]; 1 = off */
	int32_t top_k;           /* 0 = off */
	float min_p;             /* [0, 1]; 0 = off; relative to the most probable token */
	struct string_list stop; /* further stop tokens by their text (each must be one token), besides the model's eos */
};
struct reward_options {
	float accuracy, format; /* weights; 0 = not computed */
	enum accuracy_mode
	    accuracy_mode; /* YAML: accuracy: 1.0 | accuracy: visual-rft | accuracy: {mode: visual-rft, weight: 1.0} */
};
struct learner_options {
	int32_t steps, groups_per_step;
	int32_t micro_batch; /* groups (sft: examples) in one forward and backward pass */
	int32_t iterations;  /* optimiser steps on the same groups (mu); 1 = on policy */
	float lr, lr_end;    /* schedule ends at lr_end (linear, cosine) */
	enum schedule_type schedule;
	int32_t warmup; /* steps, linear from 0 */
	float beta;     /* KL weight; 0 = no reference model in memory */
	float clip_low, clip_high;
	enum loss_type loss;
	enum scale_rewards scale_rewards; /* group: divide by (std + eps); none: dr_grpo's advice */
	int mask_truncated;               /* responses that hit max_tokens add nothing to the loss */
	float max_grad_norm;              /* 0 = off */
	float weight_decay, adam_beta1, adam_beta2, adam_eps;
	int recompute;  /* activations of a layer are computed again in the backward pass */
	int shard;      /* each learner keeps the moments of its slice of the weights (base/slice.h) and steps that alone */
	int eval_every; /* steps between evaluations on data.eval; 0 = never */
};
struct placement_options {
	enum placement_mode mode;
	int32_t rollout, reward, learner; /* counts mode only */
};
/* How gradients and weights travel between ranks: by NCCL where it can be, by NCCL or not at all, through the host. */
enum transport { TRANSPORT_AUTO, TRANSPORT_NCCL, TRANSPORT_HOST };
struct comm_options {
	int reproducible; /* gradients are summed group by group in index order, whatever the learners */
	enum transport transport;
	int overlap;        /* NCCL's sums start while backward goes on */
	int64_t bucket_kib; /* of gradients in one of NCCL's sums */
};
struct checkpoint_options {
	int32_t every; /* steps; 0 = only the last */
	int32_t keep;  /* newest kept; 0 = all */
};
struct run_options {
	char *dir;
	uint64_t seed;
	double deadline;          /* seconds of silence after which a wait ends the job */
	int32_t threads;          /* per rank; 0 = the node's cores / compute ranks of the phase on the node */
	int64_t memory_limit;     /* MiB per rank that the plan may use; 0 = the node's (or the GPU's) memory / its ranks */
	int32_t samples_per_step; /* groups written to samples.jsonl per step; -1 = all */
};

struct config {
	enum method method;
	enum device device; /* what ranks that roll out or learn compute on */
	struct model_options model;
	struct data_options data;
	struct rollout_options rollout;
	struct reward_options reward;
	struct learner_options learner;
	struct placement_options placement;
	struct comm_options comm;
	struct checkpoint_options checkpoint;
	struct run_options run;
};

/* Defaults, then the file, then overrides ("learner.lr=1e-4", parsed as YAML values), then checks of each option and
 * between options. -1 with a message that names the file, the line (or the argument), and for an unknown key the
 * nearest valid one. path may be NULL (defaults + overrides). *c must be zeroed or hold nothing owned. */
int config_load(struct config *c, const char *path, const char *const *overrides, int override_count,
                struct favor_error *e);
/* From YAML text (a checkpoint's config attribute); `origin` stands in messages for the file's name. */
int config_parse(struct config *c, const char *yaml, const char *origin, const char *const *overrides,
                 int override_count, struct favor_error *e);
void config_free(struct config *c);
/* The effective configuration as YAML, every option, in table order; config_parse of it gives the same struct. Owned by
 * the caller. */
char *config_to_yaml(const struct config *c);
/* Help: every key with type, default, range and one sentence, made from the same table. Owned by the caller. */
char *config_help(void);

#endif
