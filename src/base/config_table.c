/* The option table and what follows from one row: its default, what values it takes, how it prints. Adding an option is
 * one field in config.h and one row here. */
#include "base/config_table.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const method_names[] = {"grpo", "sft", NULL};
static const char *const device_names[] = {"auto", "cpu", "cuda", NULL};
static const char *const vision_names[] = {"full", "frozen", NULL};
static const char *const dtype_names[] = {"float32", "bfloat16", NULL};
static const char *const init_names[] = {"random", NULL};
static const char *const accuracy_names[] = {"strict", "visual-rft", NULL};
static const char *const schedule_names[] = {"constant", "linear", "cosine", NULL};
static const char *const loss_names[] = {"grpo", "dr_grpo", "dapo", NULL};
static const char *const scale_names[] = {"group", "none", NULL};
static const char *const transport_names[] = {"auto", "nccl", "host", NULL};
/* PLACEMENT_COUNTS has no name: it is chosen by giving counts */
static const char *const placement_names[] = {"auto", "colocate", NULL};

#define AT(field) offsetof(struct config, field)
#define BOOL(k, field, d, h) {.key = k, .kind = OPTION_BOOL, .offset = AT(field), .fallback = d, .help = h}
#define INT32(k, field, d, lo, hi, h) \
	{.key = k, .kind = OPTION_INT32, .offset = AT(field), .fallback = d, .min = lo, .max = hi, .help = h}
#define INT64(k, field, d, lo, hi, h) \
	{.key = k, .kind = OPTION_INT64, .offset = AT(field), .fallback = d, .min = lo, .max = hi, .help = h}
#define UINT64(k, field, d, h) {.key = k, .kind = OPTION_UINT64, .offset = AT(field), .fallback = d, .help = h}
#define FLOAT(k, field, d, lo, hi, h) \
	{.key = k, .kind = OPTION_FLOAT, .offset = AT(field), .fallback = d, .min = lo, .max = hi, .help = h}
#define FLOAT_ABOVE(k, field, d, lo, hi, h) \
	{.key = k, .kind = OPTION_FLOAT, .offset = AT(field), .fallback = d, .min = lo, .max = hi, .above = 1, .help = h}
#define ENUM(k, field, d, n, h) \
	{.key = k, .kind = OPTION_ENUM, .offset = AT(field), .fallback = d, .names = n, .help = h}
#define TEXT(k, field, d, h) {.key = k, .kind = OPTION_STRING, .offset = AT(field), .fallback = d, .help = h}
#define LIST(k, field, h) {.key = k, .kind = OPTION_LIST, .offset = AT(field), .fallback = "", .help = h}

const struct option config_options[] = {
	ENUM("method", method, "grpo", method_names, "what train does: reinforcement learning, or supervised fine-tuning"),
	ENUM("device", device, "auto", device_names,
	     "what ranks that roll out or learn compute on: GPUs by CUDA, the CPU, or GPUs where there are any"),

	TEXT("model.path", model.path, "", "Hugging Face folder or checkpoint to start from"),
	{.key = "model.init", .kind = OPTION_STRING, .offset = AT(model.init), .fallback = "", .names = init_names,
	 .help = "\"\" reads the weights; random draws them from run.seed (the folder then needs config.json and "
	         "tokenizer.json only)"},
	ENUM("model.vision", model.vision, "full", vision_names, "train the vision tower too, or leave it as it is"),
	INT32("model.feature_cache", model.feature_cache, "256", 0, 1048576,
	      "MiB in which a rank keeps the features of images that a frozen tower has seen, so that each is computed once; 0: "
	      "none are kept"),
	{.key = "model.dtype", .kind = OPTION_ENUM, .offset = AT(model.dtype), .fallback = "float32", .names = dtype_names,
	 .help = "what matrix products multiply: floats, or each rounded to bfloat16 (on GPUs also stored so); weights, sums "
	         "and all else are float32"},

	TEXT("data.train", data.train, "", "training set: .jsonl, .csv, or a folder with one folder per class"),
	TEXT("data.eval", data.eval, "", "held-out set, in the same forms"),
	TEXT("data.root", data.root, "", 
	     "folder that relative image paths start at, and that no image may leave; \"\" is the data file's own"),
	BOOL("data.allow_outside", data.allow_outside, "false",
	     "take images from outside of data.root too: by absolute paths, \"..\" or links"),
	TEXT("data.train_split", data.train_split, "",
	     "records to train on, by their split (a CSV's column, a JSON line's key); \"\" is train"),
	TEXT("data.eval_split", data.eval_split, "", "records to evaluate on, by their split; \"\" is test"),
	INT32("data.shots", data.shots, "0", 0, 1e6, "training examples per class (few-shot); 0 takes all"),
	UINT64("data.seed", data.seed, "0", "seed of the few-shot selection"),
	{.key = "data.prompt", .kind = OPTION_STRING, .offset = AT(data.prompt), .fallback = "think", .required = 1,
	 .help = "think, answer, or the path of a text file; {classes} and {problem} in it are filled in"},
	{.key = "data.system", .kind = OPTION_STRING, .offset = AT(data.system), .fallback = "default", .required = 1,
	 .help = "system turn: default, none, or the text itself"},
	LIST("data.classes", data.classes, "class names in their order; [] takes the sorted labels of the data"),
	TEXT("data.classes_file", data.classes_file, "", "class names from a file, one a line, instead of data.classes"),
	TEXT("data.aliases", data.aliases, "",
	     "JSON file {\"label\": [\"alias\", ...]} of answers that count as the label"),
	INT64("data.min_pixels", data.min_pixels, "0", 0, 1e9,
	      "images are scaled up to this area; 0 is the model folder's setting"),
	INT64("data.max_pixels", data.max_pixels, "0", 0, 1e9,
	      "images are scaled down to this area; 0 is the model folder's setting"),
	INT32("data.eval_limit", data.eval_limit, "0", 0, 2147483647,
	      "evaluate the first so many records only; 0 takes all"),
	BOOL("data.augment", data.augment, "false", "random crop, flip and colour noise of training images (sft only)"),

	INT32("rollout.group_size", rollout.group_size, "8", 1, 4096, "responses sampled per prompt (G)"),
	INT32("rollout.groups", rollout.groups, "0", 0, 4096,
	      "groups whose responses a rollout rank decodes together; where some have ended the next group begins; 0: its share of a "
	      "step, up to 8"),
	INT32("rollout.max_tokens", rollout.max_tokens, "96", 1, 1048576,
	      "longest response in tokens, the stop token included"),
	FLOAT("rollout.temperature", rollout.temperature, "1.0", 0, 100, "of sampling; 0 is greedy and not for training"),
	FLOAT_ABOVE("rollout.top_p", rollout.top_p, "1.0", 0, 1,
	            "sample from the most probable tokens of this mass; 1 is off"),
	INT32("rollout.top_k", rollout.top_k, "0", 0, 2147483647, "sample from the k most probable tokens; 0 is off"),
	FLOAT("rollout.min_p", rollout.min_p, "0.0", 0, 1,
	      "drop tokens less probable than this fraction of the most probable one; 0 is off"),
	LIST("rollout.stop", rollout.stop, "further stop tokens by their text, each one token of the model's, besides the model's own"),

	FLOAT("reward.accuracy.weight", reward.accuracy, "1.0", 0, 1000, "weight of a right answer; 0 leaves it out"),
	ENUM("reward.accuracy.mode", reward.accuracy_mode, "strict", accuracy_names,
	     "rule for a right answer; visual-rft is that project's looser one, for comparison"),
	FLOAT("reward.format", reward.format, "1.0", 0, 1000, "weight of the <think><answer> format; 0 leaves it out"),

	INT32("learner.steps", learner.steps, "100", 1, 1e9, "optimiser steps of the run"),
	INT32("learner.groups_per_step", learner.groups_per_step, "4", 1, 1e6,
	      "groups (sft: examples) in one step, over all ranks"),
	INT32("learner.micro_batch", learner.micro_batch, "1", 1, 1e6,
	      "groups (sft: examples) in one forward and backward pass"),
	INT32("learner.iterations", learner.iterations, "1", 1, 1000, "optimiser steps on the same groups; 1 is on policy"),
	FLOAT("learner.lr", learner.lr, "1.0e-5", 0, 10, "learning rate after warm-up"),
	FLOAT("learner.lr_end", learner.lr_end, "0.0", 0, 10, "learning rate at the end of a linear or cosine schedule"),
	ENUM("learner.schedule", learner.schedule, "constant", schedule_names, "course of the learning rate after warm-up"),
	INT32("learner.warmup", learner.warmup, "0", 0, 1e9, "steps in which the learning rate rises from 0"),
	FLOAT("learner.beta", learner.beta, "0.04", 0, 100, "weight of the KL term; 0 keeps no reference model in memory"),
	FLOAT("learner.clip_low", learner.clip_low, "0.2", 0, 1, "the probability ratio is clipped at 1 - clip_low"),
	FLOAT("learner.clip_high", learner.clip_high, "0.2", 0, 100, "the probability ratio is clipped at 1 + clip_high"),
	ENUM("learner.loss", learner.loss, "grpo", loss_names,
	     "normaliser of the loss: each response's length, max_tokens, or the tokens of the step"),
	ENUM("learner.scale_rewards", learner.scale_rewards, "group", scale_names,
	     "divide advantages by the group's standard deviation or not"),
	BOOL("learner.mask_truncated", learner.mask_truncated, "false",
	     "responses cut at max_tokens add nothing to the loss"),
	FLOAT("learner.max_grad_norm", learner.max_grad_norm, "1.0", 0, 1e9,
	      "gradients are scaled down to this norm; 0 is off"),
	FLOAT("learner.weight_decay", learner.weight_decay, "0.0", 0, 10, "decoupled weight decay of AdamW"),
	FLOAT("learner.adam_beta1", learner.adam_beta1, "0.9", 0, 0.999999, "decay of the mean of gradients"),
	FLOAT("learner.adam_beta2", learner.adam_beta2, "0.999", 0, 0.999999, "decay of the mean of squared gradients"),
	FLOAT_ABOVE("learner.adam_eps", learner.adam_eps, "1.0e-8", 0, 1,
	            "added to the root of the mean of squared gradients"),
	BOOL("learner.recompute", learner.recompute, "false",
	     "compute activations again in the backward pass: slower, less memory"),
	BOOL("learner.shard", learner.shard, "false",
	     "AdamW's moments are divided among the learners, each steps its slice of the weights: less memory, and the same bits "
	     "(by NCCL as far as it adds in the same order for one rank as for all)"),
	INT32("learner.eval_every", learner.eval_every, "0", 0, 1e9, "steps between evaluations on data.eval; 0 is never"),

	ENUM("placement", placement.mode, "auto", placement_names,
	     "which ranks do what: auto, colocate (every rank does all), or the three counts below"),
	INT32("placement.rollout", placement.rollout, "0", 1, 1e6, "ranks that sample"),
	INT32("placement.reward", placement.reward, "0", 1, 1e6, "ranks that score"),
	INT32("placement.learner", placement.learner, "0", 1, 1e6, "ranks that learn"),

	BOOL("comm.reproducible", comm.reproducible, "false",
	     "sum gradients group by group in a fixed order: the same bits for any number of learners and any micro_batch; "
	     "one pass a group, more memory and traffic"),
	ENUM("comm.transport", comm.transport, "auto", transport_names,
	     "how gradients and weights pass between ranks on GPUs: by NCCL or through the host and MPI; auto takes NCCL where "
	     "every rank of the team has a GPU of its own"),
	BOOL("comm.overlap", comm.overlap, "true", "NCCL sums gradients while the last backward pass goes on; same bits"),
	INT64("comm.bucket_kib", comm.bucket_kib, "32768", 1, 1073741824, "KiB of gradients that NCCL sums at a time"),

	INT32("checkpoint.every", checkpoint.every, "20", 0, 1e9, "steps between checkpoints; 0 writes the last only"),
	INT32("checkpoint.keep", checkpoint.keep, "3", 0, 1e9, "newest checkpoints kept; 0 keeps all"),

	{.key = "run.dir", .kind = OPTION_STRING, .offset = AT(run.dir), .fallback = "runs/default", .required = 1,
	 .help = "folder for all that the run leaves"},
	UINT64("run.seed", run.seed, "0", "seed of sampling, data order and random weights"),
	{.key = "run.deadline", .kind = OPTION_DOUBLE, .offset = AT(run.deadline), .fallback = "60.0", .max = 86400,
	 .above = 1, .help = "seconds of silence after which a wait for another rank ends the job"},
	INT32("run.threads", run.threads, "0", 0, 4096,
	      "threads per rank; 0 shares the node's cores among its working ranks"),
	INT64("run.memory_limit", run.memory_limit, "0", 0, 1e9,
	      "MiB that a rank may use; 0 shares the node's memory among its ranks"),
	INT32("run.samples_per_step", run.samples_per_step, "1", -1, 1e9,
	      "groups written to samples.jsonl a step; -1 writes all"),
};
const int config_option_count = (int)(sizeof config_options / sizeof *config_options);
_Static_assert(sizeof config_options / sizeof *config_options <= CONFIG_OPTIONS_MAX, "CONFIG_OPTIONS_MAX is too small");
_Static_assert(sizeof(int) == sizeof(int32_t) && sizeof(enum method) == sizeof(int32_t),
               "options are stored through int32_t");

int option_find(const char *key)
{
	for (int i = 0; i < config_option_count; i++)
		if (strcmp(config_options[i].key, key) == 0)
			return i;
	return -1;
}

int option_is_section(const char *path)
{
	size_t n = strlen(path);
	if (n == 0)
		return 1;
	for (int i = 0; i < config_option_count; i++)
		if (strncmp(config_options[i].key, path, n) == 0 && config_options[i].key[n] == '.')
			return 1;
	return 0;
}

enum { DISTANCE_MAX = 64 };

/* Levenshtein's distance; longer texts count as far. */
static int edit_distance(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);
	if (na >= DISTANCE_MAX || nb >= DISTANCE_MAX)
		return DISTANCE_MAX;
	int row[DISTANCE_MAX];
	for (size_t j = 0; j <= nb; j++)
		row[j] = (int)j;
	for (size_t i = 1; i <= na; i++) {
		int diagonal = row[0];
		row[0] = (int)i;
		for (size_t j = 1; j <= nb; j++) {
			int change = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			int least = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
			row[j] = change < least ? change : least;
		}
	}
	return row[nb];
}

static const char *last_part(const char *key)
{
	const char *dot = strrchr(key, '.');
	return dot ? dot + 1 : key;
}

const char *option_nearest(const char *path)
{
	const char *best = NULL;
	int best_distance = DISTANCE_MAX;
	for (int i = 0; i < config_option_count; i++) {
		const char *key = config_options[i].key;
		int whole = edit_distance(path, key);
		/* the right name in the wrong section is near too */
		int last = edit_distance(last_part(path), last_part(key)) + 1;
		int distance = whole < last ? whole : last;
		if (distance < best_distance) {
			best = key;
			best_distance = distance;
		}
	}
	return best_distance <= 1 + (int)strlen(last_part(path)) / 2 ? best : NULL;
}

char *option_names(const char *section)
{
	const size_t skip = *section ? strlen(section) + 1 : 0;
	char *all = favor_strdup("");
	const char *before = "";
	size_t length = 0;
	for (int i = 0; i < config_option_count; i++) {
		const char *key = config_options[i].key;
		if (skip && (strncmp(key, section, skip - 1) != 0 || key[skip - 1] != '.'))
			continue;
		const char *name = key + skip;
		const size_t n = strcspn(name, ".");
		/* options of a section stand together; placement is an option and a section */
		if (n == length && strncmp(name, before, n) == 0)
			continue;
		char *longer = favor_format("%s%s%.*s", all, *all ? ", " : "", (int)n, name);
		free(all);
		all = longer;
		before = name;
		length = n;
	}
	return all;
}

/* "a, b, c" */
static char *join_names(const char *const *names)
{
	char *all = favor_strdup(names[0]);
	for (int i = 1; names[i]; i++) {
		char *longer = favor_format("%s, %s", all, names[i]);
		free(all);
		all = longer;
	}
	return all;
}

char *option_valid(const struct option *o)
{
	char *names = o->names ? join_names(o->names) : NULL, *text = NULL;
	switch (o->kind) {
	case OPTION_BOOL:
		text = favor_strdup("true or false");
		break;
	case OPTION_INT32:
	case OPTION_INT64:
		text = favor_format("an integer from %.0f to %.0f", o->min, o->max);
		break;
	case OPTION_UINT64:
		text = favor_format("an integer from 0 to %llu", (unsigned long long)UINT64_MAX);
		break;
	case OPTION_FLOAT:
	case OPTION_DOUBLE:
		text = o->above ? favor_format("a number above %g and up to %g", o->min, o->max)
		                : favor_format("a number from %g to %g", o->min, o->max);
		break;
	case OPTION_ENUM:
		text = favor_format("one of %s", names);
		break;
	case OPTION_STRING:
		text = o->names ? favor_format("%s or \"\"", names)
		                : favor_strdup(o->required ? "a text that is not empty" : "a text");
		break;
	case OPTION_LIST:
		text = favor_strdup("a list of texts such as [a, b]");
		break;
	}
	free(names);
	return text;
}

static int fail_value(const struct option *o, const char *text, int quoted, const char *why, struct favor_error *e)
{
	char *valid = option_valid(o);
	if (quoted)
		favor_fail(e, "found the text \"%.80s\" in quotes%s; valid is %s", text, why, valid);
	else
		favor_fail(e, "found %s%.80s%s; valid is %s", *text ? "" : "nothing", text, why, valid);
	free(valid);
	return -1;
}

static size_t digits(const char *s)
{
	return strspn(s, "0123456789");
}

static int is_integer(const char *s)
{
	s += *s == '-' || *s == '+';
	return *s && s[digits(s)] == '\0';
}

/* Decimal notation only: strtod alone would take "nan", "inf" and hexadecimal. */
static int is_number(const char *s)
{
	s += *s == '-' || *s == '+';
	size_t whole = digits(s), part = 0;
	s += whole;
	if (*s == '.') {
		part = digits(s + 1);
		s += 1 + part;
	}
	if (whole + part == 0)
		return 0;
	if (*s == 'e' || *s == 'E') {
		s++;
		s += *s == '-' || *s == '+';
		if (digits(s) == 0)
			return 0;
		s += digits(s);
	}
	return *s == '\0';
}

/* of a number's text: no digit but 0 before the exponent */
static int is_zero(const char *s)
{
	s += strspn(s, "+-.0");
	return !*s || *s == 'e' || *s == 'E';
}

static int set_integer(const struct option *o, void *field, const char *text, struct favor_error *e)
{
	if (!is_integer(text))
		return fail_value(o, text, 0, is_number(text) ? ", which is no integer" : "", e);
	errno = 0;
	if (o->kind == OPTION_UINT64) {
		uint64_t value = strtoull(text, NULL, 10);
		if (errno || (text[0] == '-' && value != 0))
			return fail_value(o, text, 0, "", e);
		*(uint64_t *)field = value;
		return 0;
	}
	int64_t value = strtoll(text, NULL, 10);
	if (errno || (double)value < o->min || (double)value > o->max)
		return fail_value(o, text, 0, "", e);
	if (o->kind == OPTION_INT64)
		*(int64_t *)field = value;
	else
		*(int32_t *)field = (int32_t)value;
	return 0;
}

static int set_number(const struct option *o, void *field, const char *text, struct favor_error *e)
{
	if (!is_number(text))
		return fail_value(o, text, 0, "", e);
	/* float options are rounded from the text once, so that printing and reading again gives the same bits */
	double value = o->kind == OPTION_FLOAT ? (double)strtof(text, NULL) : strtod(text, NULL);
	if (value == 0 && !is_zero(text))
		return fail_value(o, text, 0, ", which is too small to differ from 0", e);
	double max = o->kind == OPTION_FLOAT ? (double)(float)o->max : o->max;
	if (!(value >= o->min && value <= max) || (o->above && value == o->min))
		return fail_value(o, text, 0, "", e);
	if (o->kind == OPTION_FLOAT)
		*(float *)field = (float)value;
	else
		*(double *)field = value;
	return 0;
}

static int name_index(const char *const *names, const char *text)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(names[i], text) == 0)
			return i;
	return -1;
}

int option_set(const struct option *o, struct config *c, const char *text, int quoted, struct favor_error *e)
{
	void *field = (char *)c + o->offset;
	if (quoted && o->kind != OPTION_STRING && o->kind != OPTION_ENUM)
		return fail_value(o, text, quoted, "", e);
	switch (o->kind) {
	case OPTION_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return fail_value(o, text, 0, "", e);
		*(int *)field = text[0] == 't';
		return 0;
	case OPTION_INT32:
	case OPTION_INT64:
	case OPTION_UINT64:
		return set_integer(o, field, text, e);
	case OPTION_FLOAT:
	case OPTION_DOUBLE:
		return set_number(o, field, text, e);
	case OPTION_ENUM: {
		int value = name_index(o->names, text);
		if (value < 0)
			return fail_value(o, text, quoted, "", e);
		*(int32_t *)field = value;
		return 0;
	}
	case OPTION_STRING: {
		/* YAML's null is "not given" */
		if (!quoted && (strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
			text = "";
		if ((o->required && !*text) || (o->names && *text && name_index(o->names, text) < 0))
			return fail_value(o, text, quoted, "", e);
		char **string = field;
		free(*string);
		*string = favor_strdup(text);
		return 0;
	}
	case OPTION_LIST:
		break;
	}
	return fail_value(o, text, quoted, ", which is no list", e);
}

void option_set_default(const struct option *o, struct config *c)
{
	void *field = (char *)c + o->offset;
	struct favor_error e = {""};
	if (o->kind == OPTION_LIST)
		string_list_clear(field);
	else if (o->kind == OPTION_INT32 && strcmp(o->fallback, "0") == 0)
		*(int32_t *)field = 0; /* for the counts of placement 0 means "not given", though no one may give it */
	else if (option_set(o, c, o->fallback, 0, &e))
		favor_die("the default of %s is not valid: %s", o->key, e.message);
}

/* The shortest decimal that reads back as the same bits, always with a point: YAML 1.1 readers take 1e-05 for text. */
static char *number_text(double value, int is_float)
{
	char s[64];
	int decimals = 0; /* of d.ddde+xx */
	for (; decimals < 17; decimals++) {
		snprintf(s, sizeof s, "%.*e", decimals, value);
		if (is_float ? strtof(s, NULL) == (float)value : strtod(s, NULL) == value)
			break;
	}
	char *e = strchr(s, 'e');
	int exponent = atoi(e + 1);
	if (exponent >= -4 && exponent < 10)
		return favor_format("%.*f", decimals - exponent > 1 ? decimals - exponent : 1, value);
	return favor_format("%.*s%s%s", (int)(e - s), s, decimals ? "" : ".0", e);
}

char *option_text(const struct option *o, const struct config *c)
{
	const void *field = (const char *)c + o->offset;
	switch (o->kind) {
	case OPTION_BOOL:
		return favor_strdup(*(const int *)field ? "true" : "false");
	case OPTION_INT32:
		return favor_format("%d", *(const int32_t *)field);
	case OPTION_INT64:
		return favor_format("%lld", (long long)*(const int64_t *)field);
	case OPTION_UINT64:
		return favor_format("%llu", (unsigned long long)*(const uint64_t *)field);
	case OPTION_FLOAT:
		return number_text((double)*(const float *)field, 1);
	case OPTION_DOUBLE:
		return number_text(*(const double *)field, 0);
	case OPTION_ENUM:
		return favor_strdup(o->names[*(const int32_t *)field]);
	case OPTION_STRING:
		return favor_strdup(*(char *const *)field);
	case OPTION_LIST:
		break;
	}
	return NULL;
}

void string_list_clear(struct string_list *l)
{
	for (int i = 0; i < l->count; i++)
		free(l->items[i]);
	free(l->items);
	*l = (struct string_list){0, NULL};
}

void string_list_add(struct string_list *l, const char *item)
{
	l->items = favor_realloc(l->items, ((size_t)l->count + 1) * sizeof *l->items);
	l->items[l->count++] = favor_strdup(item);
}

char *option_origin_text(const struct option_origin *o)
{
	if (!o->serial)
		return favor_strdup("the default");
	return o->line ? favor_format("%.400s:%d", o->source, o->line) : favor_format("argument \"%.200s\"", o->source);
}
