/* The configuration: defaults, every kind of mistake with its message, overrides, and printing and reading again. */
#include "base/config.h"
#include "base/config_table.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All that DESIGN shows, and no more. */
static const char example[] =
    "method: grpo                 # or sft\n"
    "model:   {path: models/har-tiny, vision: full, dtype: float32}\n"
    "data:    {train: data/synth/train.jsonl, eval: data/synth/test.jsonl, shots: 4, seed: 0, prompt: think}\n"
    "rollout: {group_size: 8, max_tokens: 96, temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0}\n"
    "reward:  {accuracy: 1.0, format: 1.0}\n"
    "learner: {steps: 100, groups_per_step: 4, lr: 1.0e-5, schedule: cosine, warmup: 5, beta: 0.04, clip_low: 0.2, "
    "clip_high: 0.2, loss: grpo, max_grad_norm: 1.0, weight_decay: 0.0}\n"
    "placement: auto\n"
    "checkpoint: {every: 20, keep: 3}\n"
    "run:     {dir: runs/quickstart, seed: 0, deadline: 60}\n";

static void load_text(struct config *c, const char *yaml, const char *const *overrides, int n)
{
	struct favor_error e = {""};
	if (config_parse(c, yaml, "t.yaml", overrides, n, &e) != 0)
		fail_msg("refused: %s", e.message);
}

/* Loads text and one override (or NULL); it must be refused with a message that has all the parts. */
#define REFUSED(yaml, override, ...) refused(yaml, override, (const char *const[]){__VA_ARGS__, NULL})
static void refused(const char *yaml, const char *override, const char *const *parts)
{
	struct config c = {0};
	struct favor_error e = {""};
	if (config_parse(&c, yaml, "t.yaml", &override, override != NULL, &e) == 0)
		fail_msg("accepted: %s %s", yaml, override ? override : "");
	for (; *parts; parts++)
		if (!strstr(e.message, *parts))
			fail_msg("\"%s\" is not in: %s", *parts, e.message);
	/* nothing is owned after a failure */
	struct config zero = {0};
	assert_memory_equal(&c, &zero, sizeof c);
}

static void test_example(void **state)
{
	(void)state;
	struct config c = {0};
	load_text(&c, example, NULL, 0);
	assert_int_equal(c.method, METHOD_GRPO);
	assert_string_equal(c.model.path, "models/har-tiny");
	assert_string_equal(c.model.init, "");
	assert_int_equal(c.data.shots, 4);
	assert_string_equal(c.data.system, "default");
	assert_int_equal(c.data.classes.count, 0);
	assert_int_equal(c.learner.schedule, SCHEDULE_COSINE);
	assert_true(c.learner.lr == 1.0e-5f);
	assert_true(c.learner.adam_eps == 1.0e-8f);
	assert_true(c.reward.accuracy == 1.0f && c.reward.format == 1.0f);
	assert_int_equal(c.placement.mode, PLACEMENT_AUTO);
	assert_true(c.run.deadline == 60.0);
	config_free(&c);
}

static void test_defaults(void **state)
{
	(void)state;
	struct config c = {0};
	load_text(&c, "", NULL, 0);
	assert_string_equal(c.model.path, "");
	assert_int_equal(c.model.vision, VISION_FULL);
	assert_string_equal(c.data.prompt, "think");
	assert_int_equal(c.rollout.group_size, 8);
	assert_int_equal(c.learner.micro_batch, 1);
	assert_int_equal(c.learner.iterations, 1);
	assert_true(c.learner.beta == 0.04f && c.learner.max_grad_norm == 1.0f);
	assert_true(c.learner.adam_beta1 == 0.9f && c.learner.adam_beta2 == 0.999f);
	assert_int_equal(c.checkpoint.every, 20);
	assert_int_equal(c.run.samples_per_step, 1);
	config_free(&c);
	load_text(&c, "# nothing\nlearner:\n  # lr: 1\nmodel: ~\n", NULL, 0);
	config_free(&c);
}

/* Every byte of struct config but padding belongs to a row of the table: a field without a row would never be set. */
static void test_table_covers_struct(void **state)
{
	(void)state;
	static const size_t sizes[] = {[OPTION_BOOL] = 4,
	                               [OPTION_INT32] = 4,
	                               [OPTION_INT64] = 8,
	                               [OPTION_UINT64] = 8,
	                               [OPTION_FLOAT] = 4,
	                               [OPTION_DOUBLE] = 8,
	                               [OPTION_ENUM] = 4,
	                               [OPTION_STRING] = sizeof(char *),
	                               [OPTION_LIST] = sizeof(struct string_list)};
	unsigned char covered[sizeof(struct config)] = {0};
	for (int i = 0; i < config_option_count; i++) {
		const struct option *o = &config_options[i];
		for (size_t k = 0; k < sizes[o->kind]; k++)
			assert_int_equal(covered[o->offset + k]++, 0);
	}
	/* padding is at most four bytes together, and ends at a multiple of eight */
	for (size_t i = 0; i < sizeof covered; i++)
		if (!covered[i] && (i % 8 < 4 || (i >= 4 && !covered[i - 4])))
			fail_msg("byte %zu of struct config belongs to no option", i);
}

static void test_files(void **state)
{
	(void)state;
	struct config c = {0};
	struct favor_error e = {""};
	assert_int_equal(config_load(&c, "/nonexistent/x.yaml", NULL, 0, &e), -1);
	assert_non_null(strstr(e.message, "/nonexistent/x.yaml"));
	assert_int_equal(config_load(&c, "/tmp", NULL, 0, &e), -1);
	assert_non_null(strstr(e.message, "directory"));
	char path[] = "/tmp/favor-config-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "method: sft\n", 12), 12);
	close(fd);
	assert_int_equal(config_load(&c, path, NULL, 0, &e), -1);
	assert_non_null(strstr(e.message, "model.path is missing"));
	const char *const model[] = {"model.path=m"};
	assert_int_equal(config_load(&c, path, model, 1, &e), 0);
	assert_int_equal(c.method, METHOD_SFT);
	assert_string_equal(c.model.path, "m");
	config_free(&c);
	unlink(path);
	assert_int_equal(config_load(&c, NULL, NULL, 0, &e), 0); /* without a file the model is the caller's matter */
	config_free(&c);
}

static void test_places(void **state)
{
	(void)state;
	REFUSED("learner:\n  lr: abc\n", NULL, "t.yaml:2: learner.lr: found abc", "a number from 0 to 10");
	REFUSED("", "learner.lr=abc", "argument \"learner.lr=abc\": learner.lr: found abc", "a number from 0 to 10");
	REFUSED("learner:\n  steps: 3\n  lrr: 1\n", NULL, "t.yaml:3: unknown key learner.lrr",
	        "nearest valid key is learner.lr");
	REFUSED("learnr: {steps: 3}\n", NULL, "t.yaml:1: unknown key learnr", "nearest valid key is ");
	REFUSED("steps: 3\n", NULL, "unknown key steps", "learner.steps");
	REFUSED("", "rollout.temprature=1", "unknown key rollout.temprature", "rollout.temperature");
	REFUSED("xyzzyqwerty: 3\n", NULL, "unknown key xyzzyqwerty",
	        "valid at the top are method, device, model, data, rollout, reward, learner, placement, comm, checkpoint, run");
	REFUSED("reward: {xyzzyqwerty: 3}\n", NULL, "unknown key reward.xyzzyqwerty", "valid in reward are accuracy, format");
	REFUSED("", "checkpoint.xyzzyqwerty=3", "unknown key checkpoint.xyzzyqwerty", "valid in checkpoint are every, keep");
	REFUSED("? {a: b}\n: 1\n", NULL, "t.yaml:1", "key must be a plain word");
	REFUSED("\"\": 1\n", NULL, "unknown key");
}

static void test_values(void **state)
{
	(void)state;
	static const char *const numbers[] = {"1e-5x",   "nan", ".nan", ".inf",   "-.inf", "inf", "0x1p-3",
	                                      "1,5",     "1e",  ".",    "1e99",   "11",    "-1",  "true",
	                                      "\"0.5\"", "1 2", "[1]",  "{a: 1}", "",      "~",   "1_000"};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		char *yaml = favor_format("learner:\n  lr: %s\n", numbers[i]);
		REFUSED(yaml, NULL, "t.yaml:2: learner.lr: found", "valid is a number");
		free(yaml);
	}
	REFUSED("learner: {lr: 1e-999}", NULL, "found 1e-999, which is too small to differ from 0; valid is a number");
	static const char *const integers[] = {"1.5",   "1.0", "1e3", "0x10", "99999999999999999999", "0", "1000000001",
	                                       "\"5\"", "5x",  "+",   ""};
	for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
		char *yaml = favor_format("learner: {steps: %s}", integers[i]);
		REFUSED(yaml, NULL, "t.yaml:1: learner.steps: found", "an integer from 1 to 1000000000");
		free(yaml);
	}
	REFUSED("learner: {steps: 1.5}", NULL, "1.5, which is no integer");
	REFUSED("run: {seed: -1}", NULL, "run.seed: found -1", "18446744073709551615");
	REFUSED("run: {seed: 18446744073709551616}", NULL, "run.seed");
	REFUSED("learner: {loss: ppo}", NULL, "learner.loss: found ppo", "one of grpo, dr_grpo, dapo");
	REFUSED("learner: {recompute: yes}", NULL, "learner.recompute: found yes", "true or false");
	REFUSED("model: {dtype: float64}", NULL, "found float64; valid is one of float32, bfloat16");
	REFUSED("model: {init: zeros}", NULL, "model.init: found zeros", "random or \"\"");
	REFUSED("model: {path: [a]}", NULL, "model.path: found a list");
	REFUSED("data: {system: a: b}", NULL, "t.yaml:1");
	REFUSED("", "data.system=Answer: shortly", "data.system: found a mapping", "quotes");
	REFUSED("data: {system: \"\"}", NULL,
	        "data.system: found the text \"\" in quotes; valid is a text that is not empty");
	REFUSED("data: {classes: a}", NULL, "data.classes: found a, which is no list; valid is a list of texts");
	REFUSED("data: {classes: [a, [b]]}", NULL, "data.classes: item 2");
	REFUSED("data: {classes: [a, \"\"]}", NULL, "data.classes: item 2");
	REFUSED("data: {train: \"a\\0b\"}", NULL, "NUL");
	REFUSED("learner: 5\n", NULL, "learner: found 5 where a mapping of options is expected");
	REFUSED("learner: [lr, 5]\n", NULL, "learner: found a list where a mapping");
	REFUSED("just text\n", NULL, "the top level: found just text where a mapping");
	REFUSED("[a, b]\n", NULL, "the top level: found a list");
	REFUSED("", "learner=5", "learner: found 5");
	REFUSED("", "learner.lr", "key.path=value");
	REFUSED("", "=5", "key.path=value");
}

static void test_yaml_errors(void **state)
{
	(void)state;
	REFUSED("method: grpo\nlearner: {lr: 1\n", NULL, "t.yaml:3", "not valid YAML");
	REFUSED("method: grpo\n\tlearner: 1\n", NULL, "t.yaml:2", "not valid YAML");
	REFUSED("method: grpo\nrun: {dir: \"\xff\xfe\"}\n", NULL, "t.yaml:2", "not valid YAML");
	REFUSED("method: grpo\n\nmethod: sft\n", NULL, "t.yaml:3: method is given twice, first in line 1");
	REFUSED("learner: {lr: 1}\nrun: {seed: 1}\nlearner: {steps: 5}\n", NULL,
	        "t.yaml:3: learner is given twice, first in line 1");
	REFUSED("learner:\n  lr: 1\n  lr: 1\n", NULL, "t.yaml:3: learner.lr is given twice");
	REFUSED("", "learner={lr: 1, lr: 2}", "learner.lr is given twice");
	REFUSED("learner: &a {lr: 1}\n", NULL, "anchors and aliases (&a)");
	REFUSED("learner: *a\n", NULL, "anchors and aliases (*a)");
	REFUSED("learner: {lr: !!float 1}\n", NULL, "tags (tag:yaml.org,2002:float)");
	REFUSED("learner: !mine {lr: 1}\n", NULL, "tags (!mine)");
	REFUSED("&k method: sft\n", NULL, "anchors and aliases (&k)");
	REFUSED("method: sft\n---\nmethod: grpo\n", NULL, "t.yaml:2: a second YAML document");
	REFUSED("<<: {lr: 1}\n", NULL, "unknown key <<");
	/* deep nesting stops at the first key that isn't known */
	char *deep = favor_malloc(20001);
	memset(deep, '[', 20000);
	deep[20000] = '\0';
	REFUSED(deep, NULL, "t.yaml:1");
	for (int i = 0; i < 20000; i += 2)
		memcpy(deep + i, "{a", 2);
	REFUSED(deep, NULL, "t.yaml:1");
	free(deep);
}

static void test_checks(void **state)
{
	(void)state;
	REFUSED("rollout:\n  group_size: 1\n", NULL, "t.yaml:2: rollout.group_size is 1", "at least 2");
	REFUSED("", "rollout.temperature=0", "argument \"rollout.temperature=0\": rollout.temperature is 0");
	REFUSED("reward: {accuracy: 0,\n format: 0}\n", NULL, "t.yaml:2: all weights of reward are 0");
	REFUSED("learner: {micro_batch: 5}\n", NULL, "learner.micro_batch is 5, more than learner.groups_per_step 4");
	REFUSED("learner: {eval_every: 5}\n", NULL, "t.yaml:1: learner.eval_every is 5", "give data.eval");
	REFUSED("data: {eval: x.csv}\nlearner: {eval_every: 5}\n", "data.eval=", "argument \"data.eval=\": learner.eval_every is 5");
	REFUSED("data: {train: ~/x.csv}\n", NULL, "t.yaml:1: data.train: ~ is not taken for the home folder in ~/x.csv");
	REFUSED("", "run.dir=~/x", "argument \"run.dir=~/x\": run.dir: ~ is not");
	REFUSED("", "data.system=be #1 of all", "argument \"data.system=be #1 of all\": the text from #1 of all on would be a comment",
	        "'data.system=\"...\"'");
	REFUSED("", "data.system= #1", "would be a comment");
	REFUSED("learner: {warmup: 10}\n", "learner.steps=5", "argument \"learner.steps=5\": learner.warmup is 10");
	REFUSED("learner: {clip_low: 1.5}\n", NULL, "learner.clip_low: found 1.5");
	REFUSED("rollout: {top_p: 0}\n", NULL, "rollout.top_p", "above 0 and up to 1");
	REFUSED("data: {min_pixels: 9, max_pixels: 8}\n", NULL, "data.min_pixels is 9");
	REFUSED("data: {classes: [a], classes_file: f}\n", NULL, "both given");
	REFUSED("data: {classes: [a, b, a]}\n", NULL, "\"a\" twice, as items 1 and 3");
	REFUSED("data: {augment: true}\n", NULL, "data.augment is for method sft");
	struct config c = {0};
	load_text(&c,
	          "method: sft\nrollout: {group_size: 1, temperature: 0}\nreward: {accuracy: 0, format: 0}\n"
	          "data: {augment: true}\n",
	          NULL, 0);
	assert_int_equal(c.data.augment, 1);
	config_free(&c);
}

static void test_placement(void **state)
{
	(void)state;
	struct config c = {0};
	load_text(&c, "placement: {rollout: 2, reward: 1, learner: 3}\n", NULL, 0);
	assert_int_equal(c.placement.mode, PLACEMENT_COUNTS);
	assert_int_equal(c.placement.rollout, 2);
	assert_int_equal(c.placement.learner, 3);
	config_free(&c);
	const char *const one[] = {"placement.rollout=4"};
	load_text(&c, "placement: {rollout: 2, reward: 1, learner: 3}\n", one, 1);
	assert_int_equal(c.placement.rollout, 4);
	assert_int_equal(c.placement.reward, 1);
	config_free(&c);
	const char *const back[] = {"placement=colocate"};
	load_text(&c, "placement: {rollout: 2, reward: 1, learner: 3}\n", back, 1);
	assert_int_equal(c.placement.mode, PLACEMENT_COLOCATE);
	assert_int_equal(c.placement.rollout, 0);
	config_free(&c);
	const char *const all[] = {"placement={rollout: 2, reward: 1, learner: 1}"};
	load_text(&c, "placement: auto\n", all, 1);
	assert_int_equal(c.placement.mode, PLACEMENT_COUNTS);
	config_free(&c);
	REFUSED("placement: everywhere\n", NULL, "placement: found everywhere; valid is one of auto, colocate");
	REFUSED("placement: {rollout: 2, reward: 1, learner: 3}\n", "placement={rollout: 2}",
	        "argument \"placement={rollout: 2}\": placement.reward is not given");
	REFUSED("", "placement.learner=1", "argument \"placement.learner=1\": placement.rollout is not given");
	REFUSED("placement: {}\n", NULL, "t.yaml:1: placement.rollout is not given");
	REFUSED("placement: {rollout: 0}\n", NULL, "placement.rollout: found 0");
	REFUSED("placement:\n", NULL, "placement: found nothing");
}

static void test_accuracy(void **state)
{
	(void)state;
	static const struct {
		const char *yaml;
		float weight;
		enum accuracy_mode mode;
	} cases[] = {
	    {"reward: {accuracy: 0.5}", 0.5f, ACCURACY_STRICT},
	    {"reward: {accuracy: 2}", 2.0f, ACCURACY_STRICT},
	    {"reward: {accuracy: visual-rft}", 1.0f, ACCURACY_VISUAL_RFT},
	    {"reward: {accuracy: strict}", 1.0f, ACCURACY_STRICT},
	    {"reward: {accuracy: {mode: visual-rft, weight: 0.25}}", 0.25f, ACCURACY_VISUAL_RFT},
	    {"reward: {accuracy: {weight: 0.25}}", 0.25f, ACCURACY_STRICT},
	    {"reward.accuracy.mode: visual-rft", 1.0f, ACCURACY_VISUAL_RFT},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct config c = {0};
		load_text(&c, cases[i].yaml, NULL, 0);
		assert_true(c.reward.accuracy == cases[i].weight);
		assert_int_equal(c.reward.accuracy_mode, cases[i].mode);
		config_free(&c);
	}
	struct config c = {0};
	const char *const weight[] = {"reward.accuracy=visual-rft", "reward.accuracy.weight=0.5"};
	load_text(&c, example, weight, 2);
	assert_true(c.reward.accuracy == 0.5f);
	assert_int_equal(c.reward.accuracy_mode, ACCURACY_VISUAL_RFT);
	config_free(&c);
	REFUSED("reward: {accuracy: visualrft}\n", NULL, "reward.accuracy: found \"visualrft\"",
	        "one of strict, visual-rft");
	REFUSED("reward: {accuracy: -1}\n", NULL, "reward.accuracy: found \"-1\"", "a number from 0 to 1000");
	REFUSED("reward: {accuracy: {mod: strict}}\n", NULL, "unknown key reward.accuracy.mod", "reward.accuracy.mode");
}

static void test_overrides(void **state)
{
	(void)state;
	struct config c = {0};
	const char *const overrides[] = {"learner.lr=1e-4",
	                                 "learner.lr=2e-4",
	                                 "data.classes=[walking, \"sitting, still\", it's]",
	                                 "rollout.stop=['<|im_end|>']",
	                                 "data.eval=",
	                                 "method=sft",
	                                 "learner={steps: 7, beta: 0}",
	                                 "data.system=\"a: b=c # d\"",
	                                 "run.dir=runs/a b",
	                                 "model.path=~"};
	load_text(&c, example, overrides, sizeof overrides / sizeof *overrides);
	assert_true(c.learner.lr == 2e-4f);
	assert_int_equal(c.data.classes.count, 3);
	assert_string_equal(c.data.classes.items[1], "sitting, still");
	assert_string_equal(c.data.classes.items[2], "it's");
	assert_string_equal(c.rollout.stop.items[0], "<|im_end|>");
	assert_string_equal(c.data.eval, "");
	assert_int_equal(c.method, METHOD_SFT);
	assert_int_equal(c.learner.steps, 7);
	assert_int_equal(c.learner.groups_per_step, 4); /* a section adds to what was there */
	assert_string_equal(c.data.system, "a: b=c # d");
	assert_string_equal(c.run.dir, "runs/a b");
	assert_string_equal(c.model.path, "");
	config_free(&c);
	const char *const shorter[] = {"data.classes=[b]", "data.classes=[]"};
	load_text(&c, "data: {classes: [a, c]}", shorter, 1);
	assert_int_equal(c.data.classes.count, 1);
	config_free(&c);
	load_text(&c, "data: {classes: [a, c]}", shorter, 2);
	assert_int_equal(c.data.classes.count, 0);
	config_free(&c);
}

struct draws {
	uint64_t index;
	uint32_t position;
};

static double draw(struct draws *d)
{
	return rng_uniform(11, RNG_INIT, d->index, 0, d->position++);
}

/* Text of all sorts: YAML's special words and characters, control characters, non-ASCII, line ends, blanks. */
static char *random_text(struct draws *d, int may_be_empty)
{
	static const char *const parts[] = {"a",
	                                    " ",
	                                    "\n",
	                                    "\t",
	                                    "\"",
	                                    "'",
	                                    "\\",
	                                    ": ",
	                                    " #",
	                                    "- ",
	                                    "null",
	                                    "~",
	                                    "true",
	                                    "1e5",
	                                    "{x",
	                                    "[y]",
	                                    "&z",
	                                    "*w",
	                                    "!t",
	                                    "%",
	                                    "@",
	                                    "`",
	                                    "|",
	                                    ">",
	                                    "\r",
	                                    "\x01",
	                                    "\x7f",
	                                    "\xc2\x85",
	                                    "ü",
	                                    "日本",
	                                    "=",
	                                    ",",
	                                    "?",
	                                    "<<",
	                                    "runs/x",
	                                    "\xe2\x80\xa8",
	                                    "\xf0\x9f\x8f\x83",
	                                    "\xef\xbb\xbf",
	                                    "\xef\xbf\xbe"};
	int n = (int)(draw(d) * 12) + !may_be_empty;
	char *text = favor_strdup("");
	while (n-- > 0) {
		char *longer = favor_format("%s%s", text, parts[(int)(draw(d) * (sizeof parts / sizeof *parts))]);
		free(text);
		text = longer;
	}
	return text;
}

static void randomise(const struct option *o, struct config *c, struct draws *d)
{
	void *field = (char *)c + o->offset;
	double u = draw(d), power = pow(10, -12 * draw(d)); /* small and large values alike */
	double low = o->above ? o->max * 1e-30 : o->min, value = low + (o->max - low) * u * power;
	if (u < 0.1 || u > 0.9)
		value = u < 0.1 ? low : o->max;
	switch (o->kind) {
	case OPTION_BOOL: *(int *)field = u < 0.5; break;
	case OPTION_INT32: *(int32_t *)field = (int32_t)value; break;
	case OPTION_INT64: *(int64_t *)field = (int64_t)value; break;
	case OPTION_UINT64: {
		uint32_t w[4];
		rng_words(12, RNG_INIT, d->index, 0, d->position++, w);
		*(uint64_t *)field = u < 0.1 ? UINT64_MAX : ((uint64_t)w[0] << 32 | w[1]) >> (w[2] % 64);
		break;
	}
	case OPTION_FLOAT: {
		float f = (float)value;
		if (u > 0.7 && u < 0.9 && f > 2 * low)
			f = nextafterf(f, 0);
		*(float *)field = f;
		break;
	}
	case OPTION_DOUBLE: *(double *)field = value; break;
	case OPTION_ENUM: {
		int n = 0;
		while (o->names[n])
			n++;
		*(int32_t *)field = (int32_t)(u * n);
		break;
	}
	case OPTION_STRING:
		free(*(char **)field);
		*(char **)field = o->names ? favor_strdup(u < 0.5 ? "" : o->names[0]) : random_text(d, !o->required);
		break;
	case OPTION_LIST:
		string_list_clear(field);
		for (int n = (int)(u * 5); n > 0; n--) {
			char *text = random_text(d, 0), *item = favor_format("%d%s", n, text);
			string_list_add(field, item);
			free(text);
			free(item);
		}
		break;
	}
}

static void assert_same(const struct config *a, const struct config *b)
{
	for (int i = 0; i < config_option_count; i++) {
		const struct option *o = &config_options[i];
		const char *x = (const char *)a + o->offset, *y = (const char *)b + o->offset;
		int same = 1;
		if (o->kind == OPTION_LIST) {
			const struct string_list *l = (const void *)x, *m = (const void *)y;
			same = l->count == m->count;
			for (int k = 0; k < l->count && same; k++)
				same = strcmp(l->items[k], m->items[k]) == 0;
		} else if (o->kind == OPTION_STRING) {
			same = strcmp(*(char *const *)x, *(char *const *)y) == 0;
		} else {
			int wide = o->kind == OPTION_INT64 || o->kind == OPTION_UINT64 || o->kind == OPTION_DOUBLE;
			same = memcmp(x, y, wide ? 8 : 4) == 0;
		}
		if (!same)
			fail_msg("%s differs after printing and reading", o->key);
	}
}

static void test_round_trip(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 500; round++) {
		struct config c = {0}, again = {0};
		struct draws d = {round, 0};
		load_text(&c, "", NULL, 0);
		for (int i = 0; i < config_option_count; i++)
			randomise(&config_options[i], &c, &d);
		/* the rules between options */
		c.learner.groups_per_step = c.learner.micro_batch;
		c.learner.warmup = c.learner.steps / 2;
		c.data.min_pixels = c.data.max_pixels / 2;
		c.learner.eval_every *= *c.data.eval != 0;
		if (c.data.classes.count) {
			free(c.data.classes_file);
			c.data.classes_file = favor_strdup("");
		}
		if (c.method == METHOD_GRPO) {
			c.rollout.group_size += c.rollout.group_size < 2;
			c.data.augment = 0;
			c.reward.format = 0.1f;
			c.rollout.temperature = c.rollout.temperature == 0 ? FLT_MIN : c.rollout.temperature;
		}
		if (round % 3 == 0)
			c.placement.mode = PLACEMENT_COUNTS;
		else
			c.placement.rollout = c.placement.reward = c.placement.learner = 0;
		char *yaml = config_to_yaml(&c);
		struct favor_error e = {""};
		if (config_parse(&again, yaml, "printed", NULL, 0, &e) != 0)
			fail_msg("round %d: %s\n%s", (int)round, e.message, yaml);
		assert_same(&c, &again);
		char *yaml_again = config_to_yaml(&again);
		assert_string_equal(yaml, yaml_again);
		free(yaml);
		free(yaml_again);
		config_free(&c);
		config_free(&again);
	}
}

/* Every key stands in the help and in the printed configuration. */
static void test_print(void **state)
{
	(void)state;
	struct config c = {0};
	load_text(&c, example, NULL, 0);
	char *help = config_help(), *yaml = config_to_yaml(&c);
	for (int i = 0; i < config_option_count; i++) {
		const char *key = config_options[i].key, *dot = strrchr(key, '.');
		char *line = favor_format("\n  %s\n", key), *name = favor_format("%s: ", dot ? dot + 1 : key);
		assert_non_null(strstr(help, line));
		if (strncmp(key, "placement.", 10) != 0)
			assert_non_null(strstr(yaml, name));
		free(line);
		free(name);
	}
	assert_non_null(strstr(yaml, "lr: 1.0e-05\n"));
	assert_non_null(strstr(yaml, "beta: 0.04\n"));
	assert_non_null(strstr(yaml, "deadline: 60.0\n"));
	assert_non_null(strstr(yaml, "accuracy: {weight: 1.0, mode: strict}\n"));
	assert_non_null(strstr(yaml, "path: \"models/har-tiny\"\n"));
	free(help);
	free(yaml);
	config_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example),
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_table_covers_struct),
	    cmocka_unit_test(test_files),
	    cmocka_unit_test(test_places),
	    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_yaml_errors),
	    cmocka_unit_test(test_checks),
	    cmocka_unit_test(test_placement),
	    cmocka_unit_test(test_accuracy),
	    cmocka_unit_test(test_overrides),
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_print),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
