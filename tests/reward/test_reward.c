/* The rewards: every verdict of the adversarial set, linear time, groups, and random mutations that must neither crash
 * nor be paid. */
#include "reward/reward.h"

#include "base/rng.h"
#include "data/label.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

struct sample {
	char *text;
	size_t n;
	const char *aliases[8];
	struct reward_target target;
};

static int hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The response of a case: its text, or its bytes in hexadecimal, or a text many times over. */
static void build(struct sample *s, json_t *line)
{
	const char *text = json_string_value(json_object_get(line, "text"));
	const char *hex = json_string_value(json_object_get(line, "hex"));
	const char *before = json_string_value(json_object_get(line, "before"));
	const char *after = json_string_value(json_object_get(line, "after"));
	size_t times = (size_t)json_integer_value(json_object_get(line, "times"));
	size_t unit = json_string_length(json_object_get(line, "text"));
	if (hex) {
		s->n = strlen(hex) / 2;
		s->text = favor_malloc(s->n);
		for (size_t i = 0; i < s->n; i++)
			s->text[i] = (char)(hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]));
	} else {
		size_t head = before ? strlen(before) : 0, tail = after ? strlen(after) : 0;
		times = times ? times : 1;
		s->n = head + times * unit + tail;
		s->text = favor_malloc(s->n); /* no NUL at its end: reading past n is found by ASan */
		if (head)
			memcpy(s->text, before, head);
		for (size_t i = 0; i < times && unit; i++)
			memcpy(s->text + head + i * unit, text, unit);
		if (tail)
			memcpy(s->text + head + times * unit, after, tail);
	}
	json_t *aliases = json_object_get(line, "aliases");
	int count = (int)json_array_size(aliases);
	for (int i = 0; i < count && i < 8; i++)
		s->aliases[i] = json_string_value(json_array_get(aliases, (size_t)i));
	s->target = (struct reward_target){json_string_value(json_object_get(line, "label")), s->aliases, count};
}

static void adversarial(void **state)
{
	(void)state;
	char path[4096], *text = NULL;
	snprintf(path, sizeof path, "%s/reward/adversarial.jsonl", getenv("FAVOR_GOLDEN"));
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	size_t capacity = 0;
	int number = 0, wrong = 0;
	while (getline(&text, &capacity, file) > 0) {
		json_error_t fault;
		json_t *line = json_loads(text, JSON_ALLOW_NUL, &fault);
		assert_non_null(line);
		number++;
		struct sample s = {0};
		build(&s, line);
		clock_t start = clock();
		int accuracy = (int)reward_accuracy(s.text, s.n, &s.target), format = (int)reward_format(s.text, s.n);
		int visual = (int)reward_accuracy_visual_rft(s.text, s.n, &s.target);
		char *answer = reward_answer(s.text, s.n);
		double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
		json_t *wanted = json_object_get(line, "answer");
		const char *wanted_text = json_string_value(wanted);
		/* "*": an answer is there, and too long to be written down */
		int same = wanted_text ? answer && (strcmp(wanted_text, "*") == 0 || strcmp(answer, wanted_text) == 0)
		                       : !answer;
		if (accuracy != json_integer_value(json_object_get(line, "accuracy")) ||
		    visual != json_integer_value(json_object_get(line, "visual_rft")) ||
		    format != json_integer_value(json_object_get(line, "format")) || !same || seconds > 20) {
			wrong++;
			print_error("case %d (%s): accuracy %d, visual_rft %d, format %d, answer %.60s, %.2f s\n", number,
			            json_string_value(json_object_get(line, "why")), accuracy, visual, format,
			            answer ? answer : "none", seconds);
		}
		free(answer);
		free(s.text);
		json_decref(line);
	}
	free(text);
	fclose(file);
	assert_int_equal(wrong, 0);
	assert_true(number >= 100);
}

static void check_normal(const char *text, const char *wanted)
{
	char *got = reward_normalise(text, strlen(text));
	assert_string_equal(got, wanted);
	free(got);
}

static void normal_forms(void **state)
{
	(void)state;
	check_normal("", "");
	check_normal(" _ ", "");
	check_normal("__A_b  C_", "a b c");
	check_normal("\xE1\xBA\x9E", "ss");               /* capital sharp s */
	check_normal("\xC5\x89", "\xCA\xBCn");            /* folds to two */
	check_normal("\xE1\xBE\xBC", "\xCE\xB1\xCE\xB9"); /* alpha with iota below: folds to two letters */
	check_normal("\xCE\xB1\xCD\x85\xCC\x81",
	             "\xCE\xAC\xCE\xB9");         /* iota below comes after the accent in canonical order, then folds */
	check_normal("\xE2\x84\xAB", "\xC3\xA5"); /* the angstrom sign is A with ring */
	check_normal("\xF0\x90\x90\x80", "\xF0\x90\x90\xA8"); /* Deseret: capitals beyond 16 bits */
}

/* Answers one after the other as a group: names, rows, weights. */
static void groups(void **state)
{
	(void)state;
	static const char *const texts[] = {"<think>a</think><answer>Running</answer>", "<answer>running</answer>",
	                                    "<think>a</think><answer>run</answer>", "running"};
	struct reward_options o = {.accuracy = 2, .format = 0.5f};
	struct reward_target t = {"running", NULL, 0};
	const char *names[GROUP_MAX_REWARDS];
	struct group *g = group_new(4, 4);
	for (int i = 0; i < 4; i++)
		g->text[i] = favor_strdup(texts[i]);
	assert_int_equal(reward_names(&o, names), 2);
	assert_string_equal(names[0], "accuracy");
	assert_string_equal(names[1], "format");
	reward_group(g, &o, &t);
	assert_int_equal(g->reward_count, 2);
	static const float accuracy[] = {1, 1, 0, 0}, format[] = {1, 0, 1, 0}, sum[] = {2.5f, 2, 0.5f, 0};
	static const char *const answer[] = {"running", "running", "run", ""};
	for (int i = 0; i < 4; i++) {
		assert_true(g->rewards[i] == accuracy[i]);
		assert_true(g->rewards[4 + i] == format[i]);
		assert_true(g->reward[i] == sum[i]);
		assert_int_equal(g->answered[i], i < 3);
		assert_string_equal(g->answer[i], answer[i]);
	}
	/* scored anew by other options: one row; the answer stays the strict one */
	o = (struct reward_options){.accuracy = 1, .accuracy_mode = ACCURACY_VISUAL_RFT};
	assert_int_equal(reward_names(&o, names), 1);
	reward_group(g, &o, &t);
	assert_int_equal(g->reward_count, 1);
	for (int i = 0; i < 4; i++) {
		assert_true(g->rewards[i] == 1);
		assert_true(g->reward[i] == 1);
		assert_string_equal(g->answer[i], answer[i]);
	}
	o = (struct reward_options){.format = 1};
	assert_int_equal(reward_names(&o, names), 1);
	assert_string_equal(names[0], "format");
	reward_group(g, &o, &t);
	for (int i = 0; i < 4; i++)
		assert_true(g->rewards[i] == format[i]);
	group_destroy(g);
}

/* Random texts of pieces that matter. Whatever is paid is checked by a second, simpler way. */
static const char *const pieces[] = {"<think>",
                                     "</think>",
                                     "<answer>",
                                     "</answer>",
                                     "running",
                                     "Running",
                                     " ",
                                     "\n",
                                     "_",
                                     "<",
                                     ">",
                                     "/",
                                     "swimming",
                                     "run",
                                     "\xC5\xBF",
                                     "\xCC\x81",
                                     "\xE3\x80\x80",
                                     "\xFF",
                                     "\xE2\x82",
                                     "<answer",
                                     "/answer>",
                                     "\xEF\xAC\x81",
                                     "riding_a bike",
                                     "x",
                                     "\xCD\x85",
                                     "\xE0\xBD\xB3",
                                     "\xE1\xBE\xB3"};
enum { PIECES = sizeof pieces / sizeof *pieces };

static size_t find_last(const char *text, size_t n, const char *what, size_t before)
{
	size_t m = strlen(what);
	for (size_t i = before < n ? before : n; i-- > 0;)
		if (n - i >= m && memcmp(text + i, what, m) == 0)
			return i;
	return SIZE_MAX;
}

static void check_paid(const char *text, size_t n, const struct reward_target *t)
{
	size_t end = find_last(text, n, "</answer>", n), start = end == SIZE_MAX ? end : find_last(text, n, "<answer>", n);
	assert_true(start != SIZE_MAX && start + 8 <= end);
	char *answer = reward_normalise(text + start + 8, end - start - 8),
		 *label = reward_normalise(t->label, strlen(t->label));
	assert_string_equal(answer, label);
	free(answer);
	free(label);
}

static void mutations(void **state)
{
	(void)state;
	enum { TRIES = 100000 };
	int paid = 0, shaped = 0;
	for (uint64_t k = 0; k < TRIES; k++) {
		uint32_t w[4], draws = 0;
		char buffer[512];
		size_t n = 0;
		rng_words(99, RNG_SYNTH, k, 0, draws++, w);
		int count = (int)(w[0] % 14);
		static const int shape[] = {0, 23, 1, 2, 4, 3}; /* <think>x</think><answer>running</answer> */
		if (w[1] % 2)
			count = 6;
		for (int i = 0; i < count; i++) {
			uint32_t r[4];
			rng_words(99, RNG_SYNTH, k, 0, draws++, r);
			const char *piece = pieces[w[1] % 2 && r[1] % 8 ? (uint32_t)shape[i] : r[0] % PIECES];
			memcpy(buffer + n, piece, strlen(piece));
			n += strlen(piece);
			if (r[2] % 16 == 0 && n > 0)
				buffer[r[3] % n] = (char)(r[3] >> 24); /* a byte broken */
			if (r[2] % 16 == 1 && n > 0)
				n -= r[3] % n; /* cut off */
		}
		char *text = favor_malloc(n); /* of exactly n bytes, for ASan */
		memcpy(text, buffer, n);
		const struct reward_target t = {"running", NULL, 0};
		if (reward_accuracy(text, n, &t) != 0) {
			check_paid(text, n, &t);
			paid++;
		}
		shaped += reward_format(text, n) != 0;
		reward_accuracy_visual_rft(text, n, &t);
		char *once = reward_normalise(text, n), *twice = reward_normalise(once, strlen(once));
		assert_string_equal(once, twice);
		assert_true(utf8_valid(once, strlen(once)));
		free(once);
		free(twice);
		free(text);
	}
	assert_true(paid > 1000 && paid < TRIES / 2); /* the test means something: both happen */
	assert_true(shaped > 1000 && shaped < TRIES / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(adversarial), cmocka_unit_test(normal_forms),
	                                   cmocka_unit_test(groups), cmocka_unit_test(mutations)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
