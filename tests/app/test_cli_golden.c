/* The program against transformers, from photo and text to tokens and log-probabilities, and its sampling against its
 * own scoring. Golden values: tools/golden_cli.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/safetensors.h"
#include "run.h"

#include <math.h>

static char *golden(const char *name)
{
	return favor_format("%s/cli/%s", getenv("FAVOR_GOLDEN"), name);
}

static json_t *cases(void)
{
	char *path = golden("cases.json");
	json_t *j = json_load_file(path, 0, NULL);
	if (!j)
		fail_msg("%s can't be read", path);
	free(path);
	return j;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));
	if (!s)
		fail_msg("no text \"%s\"", key);
	return s;
}

/* The arguments of a case after the command; paths are owned by the caller: free_paths. */
struct paths {
	char *model, *image[8];
	int count;
};

static void case_arguments(struct arguments *a, struct paths *p, const char *command, const json_t *c)
{
	const json_t *images = json_object_get(c, "images");
	*a = (struct arguments){0};
	*p = (struct paths){.model = golden("model"), .count = (int)json_array_size(images)};
	argue(a, command);
	argue(a, "--json");
	argue(a, "--model");
	argue(a, p->model);
	for (int i = 0; i < p->count; i++) {
		p->image[i] = golden(json_string_value(json_array_get(images, (size_t)i)));
		argue(a, "--image");
		argue(a, p->image[i]);
	}
	argue(a, "--system");
	argue(a, text_of(c, "system"));
	argue(a, "--prompt");
	argue(a, text_of(c, "prompt"));
	if (json_is_true(json_object_get(c, "raw")))
		argue(a, "--raw");
}

static void free_paths(struct paths *p)
{
	free(p->model);
	for (int i = 0; i < p->count; i++)
		free(p->image[i]);
}

/* Runs to JSON lines; anything on stderr (a warning about the golden folder, say) is a failure. */
static json_t *run_json(const struct arguments *a)
{
	struct ran r = run_favor_input(a->list, NULL);
	if (r.code || r.errors[0])
		fail_msg("favor %s ended with %d: %s", a->list[0], r.code, r.errors);
	json_t *lines = run_lines(r.out);
	ran_free(&r);
	return lines;
}

static void same_ids(const char *name, const char *what, const json_t *got, const json_t *want)
{
	if (!json_equal(got, want)) {
		char *a = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY),
			 *b = json_dumps(want, JSON_COMPACT | JSON_ENCODE_ANY);
		fail_msg("%s: %s are %s, not %s", name, what, a, b);
	}
}

static void test_score(void **state)
{
	(void)state;
	json_t *all = cases(), *c;
	size_t i;
	double worst = 0;
	json_array_foreach(all, i, c) {
		struct arguments a;
		struct paths p;
		const char *name = text_of(c, "name");
		case_arguments(&a, &p, "score", c);
		argue(&a, "--response");
		argue(&a, text_of(c, "response"));
		json_t *lines = run_json(&a), *got = json_array_get(lines, 0);
		assert_int_equal(json_array_size(lines), 1);
		same_ids(name, "prompt_ids", json_object_get(got, "prompt_ids"), json_object_get(c, "prompt_ids"));
		same_ids(name, "response_ids", json_object_get(got, "response_ids"), json_object_get(c, "response_ids"));
		const json_t *have = json_object_get(got, "logprobs"), *want = json_object_get(c, "logprobs");
		assert_int_equal(json_array_size(have), json_array_size(want));
		for (size_t k = 0; k < json_array_size(want); k++) {
			double difference =
				fabs(json_real_value(json_array_get(have, k)) - json_real_value(json_array_get(want, k)));
			if (!(difference < 2e-5))
				fail_msg("%s: log-probability %zu differs by %.3g", name, k, difference);
			worst = fmax(worst, difference);
		}
		json_decref(lines);
		free_paths(&p);
	}
	print_message("%zu cases, largest difference of log-probabilities %.2g\n", json_array_size(all), worst);
	json_decref(all);
}

static void test_greedy(void **state)
{
	(void)state;
	json_t *all = cases(), *c;
	size_t i, stopped = 0;
	json_array_foreach(all, i, c) {
		struct arguments a;
		struct paths p;
		case_arguments(&a, &p, "generate", c);
		for (const char *const *s = (const char *const[]){"--temperature", "0", "--max-tokens", "32", NULL}; *s; s++)
			argue(&a, *s);
		json_t *lines = run_json(&a), *got = json_array_get(lines, 0);
		assert_int_equal(json_array_size(lines), 1);
		same_ids(text_of(c, "name"), "greedy ids", json_object_get(got, "response_ids"), json_object_get(c, "greedy"));
		const size_t n = json_array_size(json_object_get(c, "greedy"));
		assert_string_equal(text_of(got, "finish"), n < 32 ? "stop" : "length");
		stopped += n < 32;
		json_decref(lines);
		free_paths(&p);
	}
	assert_in_range(stopped, 1, i - 1); /* by a token of generation_config.json */
	json_decref(all);
}

/* Patches of one image of the file `got`, from row `from` on, against the packed golden ones. Returns the rows. */
static int64_t check_pixels(const struct safetensors *got, int64_t from, int64_t number, const struct safetensors *want,
                            const char *image)
{
	char *names[3] = {favor_format("%s.level", image), favor_format("%s.value", image), favor_format("%s.grid", image)};
	const struct st_tensor *level = safetensors_find(want, names[0]), *value = safetensors_find(want, names[1]),
	                       *grid = safetensors_find(want, names[2]), *pixels = safetensors_find(got, "pixel_values"),
	                       *grids = safetensors_find(got, "image_grid_thw");
	assert_true(level && value && grid && pixels && grids);
	assert_true(number < grids->shape[0] && grids->dtype == ST_I64 && pixels->dtype == ST_F32);
	assert_memory_equal(grids->data + 24 * number, grid->data, 24);
	const int64_t rows = level->shape[0], area = 14 * 14;
	assert_true(from + rows <= pixels->shape[0] && pixels->shape[1] == 3 * 2 * area);
	float table[3 * 256], *have = favor_malloc((size_t)pixels->count * sizeof *have);
	assert_int_equal(value->count, 3 * 256);
	assert_int_equal(safetensors_copy(value, table, NULL), 0);
	assert_int_equal(safetensors_copy(pixels, have, NULL), 0);
	for (int64_t row = 0; row < rows; row++)
		for (int64_t c = 0; c < 3; c++)
			for (int64_t k = 0; k < 2 * area; k++) {
				double w = (double)table[c * 256 + level->data[(row * 3 + c) * area + k % area]];
				double h = (double)have[((from + row) * 3 + c) * 2 * area + k];
				if (!(fabs(w - h) <= 1e-6))
					fail_msg("%s: patch %lld, channel %lld, pixel %lld is %.9g, not %.9g", image, (long long)row,
					         (long long)c, (long long)k, h, w);
			}
	free(have);
	for (int i = 0; i < 3; i++)
		free(names[i]);
	return rows;
}

static void test_preprocess(void **state)
{
	(void)state;
	static const char *const images[] = {"street.jpg", "pole.png", "turned.jpg"};
	struct favor_error e = {""};
	char *folder = folder_new(), *out = favor_format("%s/x.safetensors", folder), *model = golden("model"), *path[3];
	char *expected = golden("pixels.safetensors");
	struct safetensors *want = safetensors_open_file(expected, &e);
	if (!want)
		fail_msg("%s", e.message);
	for (int i = 0; i < 3; i++)
		path[i] = golden(images[i]);
	for (int i = 0; i < 4; i++) { /* each alone, then all in one call */
		struct ran r = i < 3 ? run_favor("preprocess", "--model", model, "--image", path[i], "--out", out)
		                     : run_favor("preprocess", "--model", model, "--image", path[0], "--image", path[1],
		                                 "--image", path[2], "--out", out);
		if (r.code)
			fail_msg("%s", r.errors);
		struct safetensors *got = safetensors_open_file(out, &e);
		if (!got)
			fail_msg("%s", e.message);
		int64_t rows = 0;
		for (int k = 0; k < (i < 3 ? 1 : 3); k++)
			rows += check_pixels(got, rows, k, want, images[i < 3 ? i : k]);
		assert_int_equal(safetensors_find(got, "pixel_values")->shape[0], rows);
		safetensors_close(got);
		ran_free(&r);
	}
	for (int i = 0; i < 3; i++)
		free(path[i]);
	safetensors_close(want);
	free(expected);
	free(model);
	free(out);
	folder_remove(folder);
}

/* Which of the responses are what their text is encoded to: only those can be scored by their text. */
static int survives(const json_t *sample, const json_t *encoded)
{
	const char *text = text_of(sample, "text");
	return !strcmp(text_of(sample, "finish"), "length") && !strstr(text, "\xef\xbf\xbd") &&
	       json_equal(json_object_get(sample, "response_ids"), encoded);
}

/* What generate says of its tokens is what score says of them, to the printed digit (invariant 5), at a temperature and
 * truncated. */
static void sampled_equals_scored(const char *const *how, const char *temperature, int truncated)
{
	enum { WANTED = 4 };
	struct arguments a = {0};
	char *model = golden("model"), *image = golden("turned.jpg"), *input = favor_strdup("");
	const char *const fixed[] = {"generate",     "--json",   "--model",       model,       "--image",
	                             image,          "--prompt", "Go on:",        "--samples", "160",
	                             "--max-tokens", "4",        "--temperature", temperature, NULL};
	for (int i = 0; fixed[i]; i++)
		argue(&a, fixed[i]);
	for (int i = 0; how[i]; i++)
		argue(&a, how[i]);
	json_t *samples = run_json(&a), *sample;
	size_t i;
	json_array_foreach(samples, i, sample) { /* a line end would make two lines of one */
		const char *text = text_of(sample, "text");
		char *more = favor_format("%s%s\n", input, strchr(text, '\n') ? "" : text);
		free(input);
		input = more;
		const json_t *logp = json_object_get(sample, "logprobs"), *drawn = json_object_get(sample, "sampling_logprobs");
		double worse = 0;
		for (size_t k = 0; k < json_array_size(logp); k++) {
			double l = json_real_value(json_array_get(logp, k)), d = json_real_value(json_array_get(drawn, k));
			assert_true(d <= 0 && (truncated ? d >= l : d == l));
			worse = fmax(worse, d - l);
		}
	}
	struct ran r = run_favor_input((const char *const[]){"tokenize", "--model", model, NULL}, input);
	assert_int_equal(r.code, 0);
	json_t *encoded = run_lines(r.out);
	assert_int_equal(json_array_size(encoded), json_array_size(samples));
	int compared = 0;
	for (i = 0; i < json_array_size(samples) && compared < WANTED; i++) {
		sample = json_array_get(samples, i);
		if (!survives(sample, json_array_get(encoded, i)))
			continue;
		struct arguments s = {0};
		const char *const score[] = {"score",         "--json",    "--model", model,        "--image",
		                             image,           "--prompt",  "Go on:",  "--response", text_of(sample, "text"),
		                             "--temperature", temperature, NULL};
		for (int k = 0; score[k]; k++)
			argue(&s, score[k]);
		json_t *lines = run_json(&s), *got = json_array_get(lines, 0);
		same_ids("scored", "response_ids", json_object_get(got, "response_ids"),
		         json_object_get(sample, "response_ids"));
		same_ids("scored", "logprobs", json_object_get(got, "logprobs"), json_object_get(sample, "logprobs"));
		json_decref(lines);
		compared++;
	}
	assert_int_equal(compared, WANTED);
	ran_free(&r);
	json_decref(encoded);
	json_decref(samples);
	free(input);
	free(model);
	free(image);
}

static void test_sampled_equals_scored(void **state)
{
	(void)state;
	sampled_equals_scored((const char *const[]){"--seed", "3", NULL}, "1", 0);
	sampled_equals_scored(
		(const char *const[]){"--seed", "4", "--top-k", "40", "--top-p", "0.9", "--min-p", "0.01", NULL}, "0.7", 1);
}

static char *sample_text(const char *seed, const char *samples)
{
	char *model = golden("model"), *image = golden("street.jpg");
	struct ran r = run_favor("generate", "--json", "--model", model, "--image", image, "--prompt", "Activity?",
	                         "--samples", samples, "--max-tokens", "12", "--seed", seed);
	assert_int_equal(r.code, 0);
	free(r.errors);
	free(model);
	free(image);
	return r.out;
}

static void test_seeds(void **state)
{
	(void)state;
	char *a = sample_text("1", "6"), *again = sample_text("1", "6"), *other = sample_text("2", "6"),
		 *fewer = sample_text("1", "3");
	assert_string_equal(a, again);
	assert_string_not_equal(a, other);
	assert_memory_equal(a, fewer, strlen(fewer)); /* a sample does not depend on how many there are */
	json_t *lines = run_lines(a);
	assert_int_equal(json_array_size(lines), 6);
	for (size_t i = 0; i < 6; i++)
		for (size_t k = 0; k < i; k++)
			assert_false(json_equal(json_object_get(json_array_get(lines, i), "response_ids"),
			                        json_object_get(json_array_get(lines, k), "response_ids")));
	json_decref(lines);
	free(a);
	free(again);
	free(other);
	free(fewer);
}

/* Greedy continuation of the first case by a folder, cut at max tokens. */
static json_t *greedy(const char *model, const json_t *c, const char *max_tokens)
{
	struct arguments a;
	struct paths p;
	case_arguments(&a, &p, "generate", c);
	free(p.model);
	p.model = favor_strdup(model);
	a.list[3] = p.model;
	for (const char *const *s = (const char *const[]){"--temperature", "0", "--max-tokens", max_tokens, NULL}; *s; s++)
		argue(&a, *s);
	json_t *lines = run_json(&a), *got = json_incref(json_array_get(lines, 0));
	json_decref(lines);
	free_paths(&p);
	return got;
}

/* The first place in the golden continuation at which one of the ids stands. */
static size_t first_of(const json_t *ids, const json_int_t *stops, int n)
{
	for (size_t i = 0; i < json_array_size(ids); i++)
		for (int k = 0; k < n; k++)
			if (json_integer_value(json_array_get(ids, i)) == stops[k])
				return i;
	return json_array_size(ids);
}

static void check_cut(const char *what, json_t *got, const json_t *whole, size_t tokens, const char *finish)
{
	const json_t *ids = json_object_get(got, "response_ids");
	if (json_array_size(ids) != tokens)
		fail_msg("%s: %zu tokens, not %zu", what, json_array_size(ids), tokens);
	for (size_t i = 0; i < tokens; i++)
		assert_true(json_equal(json_array_get(ids, i), json_array_get(whole, i)));
	assert_int_equal(json_array_size(json_object_get(got, "logprobs")), tokens);
	assert_string_equal(text_of(got, "finish"), finish);
	json_decref(got);
}

static void test_stop(void **state)
{
	(void)state;
	json_t *all = cases(), *c = json_array_get(all, 0), *whole = json_object_get(c, "greedy");
	char *model = golden("model"), *folder = folder_links(model);
	/* tokens that stand at places 9, 5 and 20 of the continuation; which comes first decides */
	const json_int_t stops[3] = {json_integer_value(json_array_get(whole, 9)),
	                             json_integer_value(json_array_get(whole, 5)),
	                             json_integer_value(json_array_get(whole, 20))};
	char *text = favor_format("{\"eos_token_id\": [%lld, %lld, %lld]}", (long long)stops[0], (long long)stops[1],
	                          (long long)stops[2]);
	folder_write(folder, "generation_config.json", text);
	free(text);
	const size_t at = first_of(whole, stops, 3);
	assert_in_range(at, 1, 5);
	check_cut("list in generation_config.json", greedy(folder, c, "32"), whole, at + 1, "stop");
	check_cut("shorter than the stop token", greedy(folder, c, "1"), whole, 1, "length");
	text = favor_format("%zu", at + 1); /* the stop token is the last that fits: it stopped, and was not cut */
	check_cut("the stop token is the last one", greedy(folder, c, text), whole, at + 1, "stop");
	free(text);

	text = favor_format("{\"eos_token_id\": %lld}", (long long)stops[0]);
	folder_write(folder, "generation_config.json", text);
	check_cut("one id in generation_config.json", greedy(folder, c, "32"), whole, first_of(whole, stops, 1) + 1,
	          "stop");
	free(text);

	/* without generation_config.json, config.json's counts, at the top or in text_config */
	for (int top = 0; top < 2; top++) {
		char *config_path = favor_format("%s/config.json", model),
			 *generation = favor_format("%s/generation_config.json", folder);
		json_t *config = json_load_file(config_path, 0, NULL);
		unlink(generation);
		json_object_del(config, "eos_token_id");
		json_object_set_new(top ? config : json_object_get(config, "text_config"), "eos_token_id",
		                    json_integer(stops[1]));
		text = json_dumps(config, 0);
		folder_write(folder, "config.json", text);
		check_cut("config.json", greedy(folder, c, "32"), whole, first_of(whole, stops + 1, 1) + 1, "stop");
		free(text);
		free(config_path);
		free(generation);
		json_decref(config);
	}
	folder_remove(folder);
	free(model);
	json_decref(all);
}

/* The text of a response that stopped has no stop token in it; other special tokens stay. */
static void test_stop_text(void **state)
{
	(void)state;
	char *model = golden("model"), *folder = folder_links(model);
	/* with 16 common tokens as stops, some of 64 responses stop after a few tokens */
	folder_write(folder, "generation_config.json",
	             "{\"eos_token_id\": [64, 66, 68, 70, 72, 74, 76, 78, 80, 82, 84, 588, 586, 300, 301, 302]}");
	struct ran r = run_favor("generate", "--json", "--model", folder, "--prompt", "x", "--samples", "64",
	                         "--max-tokens", "40", "--temperature", "2");
	assert_int_equal(r.code, 0);
	json_t *lines = run_lines(r.out), *sample;
	char *input = favor_strdup("");
	size_t i, stopped = 0;
	json_array_foreach(lines, i, sample) {
		json_t *ids = json_deep_copy(json_object_get(sample, "response_ids"));
		if (!strcmp(text_of(sample, "finish"), "stop")) {
			json_array_remove(ids, json_array_size(ids) - 1);
			stopped++;
		} else {
			assert_int_equal(json_array_size(ids), 40);
		}
		char *dumped = json_dumps(ids, JSON_COMPACT), *more = favor_format("%s%s\n", input, dumped);
		free(input);
		input = more;
		free(dumped);
		json_decref(ids);
	}
	assert_in_range(stopped, 1, 63);
	/* line ends in a text would break the lines of tokenize: compare what comes out as one */
	struct ran decoded = run_favor_input((const char *const[]){"tokenize", "--decode", "--model", model, NULL}, input);
	assert_int_equal(decoded.code, 0);
	char *want = decoded.out;
	json_array_foreach(lines, i, sample) {
		const char *text = text_of(sample, "text");
		for (; *text; text++, want++) {
			if (!*want && !strncmp(text, "\xef\xbf\xbd", 3)) /* a NUL shows as U+FFFD */
				text += 2;
			else if (*want != *text)
				fail_msg("sample %zu: text \"%s\" is not what its ids decode to", i, text_of(sample, "text"));
		}
		assert_int_equal(*want++, '\n');
	}
	assert_int_equal(*want, 0);
	ran_free(&decoded);
	ran_free(&r);
	free(input);
	json_decref(lines);
	folder_remove(folder);
	free(model);
}

static void refused(struct ran r, const char *says)
{
	if (r.code != 2 || !strstr(r.errors, says) || r.out[0])
		fail_msg("exit code %d (2 expected) and \"%s\", which should say \"%s\"", r.code, r.errors, says);
	ran_free(&r);
}

static void test_refusals(void **state)
{
	(void)state;
	char *model = golden("model"), *image = golden("pole.png"), *missing = golden("absent.png"),
		 *no_image = golden("cases.json");
	refused(run_favor("score", "--model", model, "--prompt", "x"), "--response");
	refused(run_favor("score", "--model", model, "--prompt", "x", "--response", ""), "empty");
	refused(run_favor("score", "--model", model, "--response", "x"), "--prompt");
	refused(run_favor("score", "--model", missing, "--prompt", "x", "--response", "x"), "absent.png");
	refused(run_favor("score", "--model", model, "--image", missing, "--prompt", "x", "--response", "x"), "absent.png");
	refused(run_favor("generate", "--model", model, "--image", no_image, "--prompt", "x"), "cases.json");
	refused(run_favor("generate", "--model", model, "--image", image, "--raw", "--prompt", "no place"),
	        "0 image places");
	refused(run_favor("generate", "--model", model, "--prompt", "<|image_pad|>"), "1 image places");
	refused(run_favor("generate", "--model", model, "--prompt", "x", "--temperature", "-1"), "--temperature");
	refused(run_favor("generate", "--model", model, "--prompt", "x", "--max-tokens", "0"), "--max-tokens");
	refused(run_favor("generate", "--model", model, "--prompt", "x", "--max-tokens", "600"), "512 positions");
	refused(run_favor("generate", "--model", model, "--prompt", "x", "--colour", "red"), "--colour");
	refused(run_favor("generate", "--model", model, "--raw", "--prompt", ""), "empty");
	free(model);
	free(image);
	free(missing);
	free(no_image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_score), cmocka_unit_test(test_greedy), cmocka_unit_test(test_preprocess),
		cmocka_unit_test(test_sampled_equals_scored), cmocka_unit_test(test_seeds), cmocka_unit_test(test_stop),
		cmocka_unit_test(test_stop_text), cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
