/* The tokeniser against golden values of the `tokenizers` library (tools/golden_tokenizer.py): ids, decoded text, and
 * the refusal of what is not supported. Exact everywhere. */
#include "data/pretokenize.h"
#include "data/nfc.h"
#include "data/tokenizer.h"
#include "data/utf8.h"
#include "base/hash.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static char *golden_path(const char *name)
{
	const char *folder = getenv("FAVOR_GOLDEN");
	assert_non_null(folder);
	return favor_format("%s/data/%s", folder, name);
}

static json_t *golden(const char *name)
{
	char *path = golden_path(name);
	json_error_t where;
	json_t *root = json_load_file(path, JSON_ALLOW_NUL, &where);
	if (!root)
		fail_msg("%s: %s", path, where.text);
	free(path);
	return root;
}

static struct tokenizer *parse(const json_t *root, size_t flags)
{
	struct favor_error e = {""};
	char *text = json_dumps(root, flags);
	struct tokenizer *t = tokenizer_parse(text, strlen(text), "test", &e);
	if (!t)
		fail_msg("%s", e.message);
	free(text);
	return t;
}

/* ids of the text = expected; what: for messages */
static void check_ids(struct tokenizer *t, const json_t *text, int added_tokens, const json_t *expected,
                      const char *what)
{
	struct favor_error e = {""};
	struct token_ids ids = {0};
	if (tokenizer_encode(t, json_string_value(text), json_string_length(text), added_tokens, &ids, &e))
		fail_msg("%s: \"%s\": %s", what, json_string_value(text), e.message);
	int equal = json_array_size(expected) == (size_t)ids.count;
	for (int i = 0; equal && i < ids.count; i++)
		equal = json_integer_value(json_array_get(expected, (size_t)i)) == ids.ids[i];
	if (!equal) {
		char *want = json_dumps(expected, JSON_COMPACT);
		print_error("got");
		for (int i = 0; i < ids.count; i++)
			print_error(" %d", ids.ids[i]);
		fail_msg("\n%s: \"%s\" should give %s", what, json_string_value(text), want);
	}
	token_ids_free(&ids);
}

static void check_text(const struct tokenizer *t, const json_t *list, const json_t *expected, const char *what)
{
	struct token_ids ids = {0};
	size_t i, n;
	json_t *id;
	json_array_foreach (list, i, id)
		token_ids_push(&ids, (int32_t)json_integer_value(id));
	char *text = tokenizer_decode(t, ids.ids, ids.count, 0, &n);
	if (n != json_string_length(expected) || memcmp(text, json_string_value(expected), n))
		fail_msg("%s: decoded \"%s\" instead of \"%s\"", what, text, json_string_value(expected));
	assert_int_equal(text[n], 0);
	free(text);
	token_ids_free(&ids);
}

static void check_line(struct tokenizer *t, const json_t *line, const char *what)
{
	const json_t *text = json_array_get(line, 0), *ids = json_array_get(line, 1), *decoded = json_array_get(line, 2);
	check_ids(t, text, 1, ids, what);
	check_ids(t, text, 1, ids, what); /* from the cache */
	check_text(t, ids, json_is_null(decoded) ? text : decoded, what);
}

static void lines_of_the_tiny_tokenizer(void **state)
{
	(void)state;
	char *folder = golden_path("tiny-tokenizer");
	struct favor_error e = {""};
	struct tokenizer *t = tokenizer_open(folder, &e);
	if (!t)
		fail_msg("%s", e.message);
	json_t *lines = golden("tokenizer_lines.json"), *line;
	size_t i;
	assert_true(json_array_size(lines) > 250);
	json_array_foreach (lines, i, line) {
		check_line(t, line, "tiny");
		const json_t *plain = json_array_get(line, 3);
		check_ids(t, json_array_get(line, 0), 0, json_is_null(plain) ? json_array_get(line, 1) : plain,
		          "tiny, added tokens as text");
	}
	assert_int_equal(tokenizer_vocab_size(t), 600);
	assert_int_equal(tokenizer_id(t, "<|im_start|>"), 587);
	assert_int_equal(tokenizer_id(t, "<|video_pad|>"), 599);
	assert_int_equal(tokenizer_id(t, "!"), 0);
	assert_int_equal(tokenizer_id(t, "no such token"), -1);
	json_decref(lines);
	tokenizer_destroy(t);
	free(folder);
}

/* The object's values replace (one level of objects below: the model's) those of base. */
static void apply(json_t *base, json_t *changes)
{
	const char *key;
	json_t *value;
	json_object_foreach (changes, key, value) {
		if (!strcmp(key, "model"))
			json_object_update(json_object_get(base, key), value);
		else
			json_object_set(base, key, value);
	}
}

static void variants_of_the_file(void **state)
{
	(void)state;
	json_t *list = golden("tokenizer_variants.json"), *variant, *line;
	size_t i, k;
	assert_true(json_array_size(list) >= 30);
	json_array_foreach (list, i, variant) {
		const char *name = json_string_value(json_object_get(variant, "name"));
		json_t *file = golden("tiny-tokenizer/tokenizer.json");
		apply(file, json_object_get(variant, "changes"));
		struct tokenizer *t = parse(file, i % 2 ? JSON_COMPACT : JSON_ENSURE_ASCII | JSON_INDENT(1));
		json_array_foreach (json_object_get(variant, "lines"), k, line)
			check_line(t, line, name);
		tokenizer_destroy(t);
		json_decref(file);
	}
	json_decref(list);
}

static void special_tokens_are_skipped(void **state)
{
	(void)state;
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	struct tokenizer *t = parse(file, 0);
	int32_t ids[] = {tokenizer_id(t, "<|im_start|>"), tokenizer_id(t, "a"), 70000, -5, INT32_MAX, tokenizer_id(t, "b"),
	                 tokenizer_id(t, "<|im_end|>")};
	char *text = tokenizer_decode(t, ids, 7, 1, NULL);
	assert_string_equal(text, "ab");
	free(text);
	text = tokenizer_decode(t, ids, 7, 0, NULL);
	assert_string_equal(text, "<|im_start|>ab<|im_end|>");
	free(text);
	text = tokenizer_decode(t, NULL, 0, 0, NULL);
	assert_string_equal(text, "");
	free(text);
	size_t n;
	const char *json = tokenizer_json(t, &n);
	assert_int_equal(strlen(json), n);
	tokenizer_destroy(t);
	json_decref(file);
}

static void invalid_utf8_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {{"ab\x80", "byte 2"},           {"\xc0\xaf", "byte 0"},
	             {"x\xed\xa0\x80", "byte 1"},    {"\xf4\x90\x80\x80", "byte 0"},
	             {"\xf5\x80\x80\x80", "byte 0"}, {"日\xe6\x97", "byte 3"},
	             {"\xe0\x9f\xbf", "byte 0"},     {"\xf0\x8f\xbf\xbf", "byte 0"},
	             {"ok\xff", "byte 2"},           {"\xc3", "byte 0"}};
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	struct tokenizer *t = parse(file, 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct token_ids ids = {0};
		struct favor_error e = {""};
		assert_int_equal(tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 1, &ids, &e), -1);
		assert_non_null(strstr(e.message, cases[i].message));
		assert_int_equal(ids.count, 0);
		token_ids_free(&ids);
	}
	tokenizer_destroy(t);
	json_decref(file);
}

/* Lossy decoding: one U+FFFD for each longest start of a character (as Rust and Python's "replace" do). */
static void broken_bytes_are_replaced(void **state)
{
	(void)state;
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	struct tokenizer *t = parse(file, 0);
	struct token_ids all = {0}, ids = {0};
	struct favor_error e = {""};
	/* ids of single bytes: Latin-1 letters U+00C0.. are themselves in the byte alphabet */
	static const char *const names[] = {"Ã", "©", "ð", "Ł", "í", "ł", "Ģ", "a"}; /* c3 a9 f0 9f ed a0 80 61 */
	for (size_t i = 0; i < 8; i++) {
		int32_t id = tokenizer_id(t, names[i]);
		assert_true(id >= 0);
		token_ids_push(&all, id);
	}
	char *text = tokenizer_decode(t, all.ids, all.count, 0, NULL);
	assert_string_equal(text, "é\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
	                          "a"); /* f0 9f | ed | a0 | 80 */
	free(text);
	assert_int_equal(tokenizer_encode(t, "\xc3\xa9", 2, 1, &ids, &e), 0);
	token_ids_free(&all);
	token_ids_free(&ids);
	tokenizer_destroy(t);
	json_decref(file);
}

/* ---- files that are refused, each with what the message must name ---- */

static void check_refused(const char *json, size_t n, const char *needle)
{
	struct favor_error e = {""};
	struct tokenizer *t = tokenizer_parse(json, n, "FILE", &e);
	if (t)
		fail_msg("accepted, but should be refused for \"%s\"", needle);
	if (strncmp(e.message, "FILE", 4) || !strstr(e.message, needle))
		fail_msg("\"%s\" doesn't name \"%s\"", e.message, needle);
}

static void unsupported_files_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *changes, *needle;
	} cases[] = {
		{"{\"normalizer\": {\"type\": \"NFKC\"}}", "NFKC"},
		{"{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}}", "Lowercase"},
		{"{\"pre_tokenizer\": null}", "pre_tokenizer"},
		{"{\"pre_tokenizer\": {\"type\": \"Whitespace\"}}", "Whitespace"},
		{"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}}", "add_prefix_space"},
		{"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": "
	     "\"ByteLevel\", \"add_prefix_space\": false}]}}",
	     "Digits"},
		{"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": []}}", "pretokenizers"},
		{"{\"post_processor\": {\"type\": \"TemplateProcessing\"}}", "TemplateProcessing"},
		{"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"a\"}}, "
	     "{\"Sequence\": {\"id\": \"A\"}}]}}",
	     "TemplateProcessing"},
		{"{\"decoder\": null}", "decoder"},
		{"{\"decoder\": {\"type\": \"WordPiece\"}}", "WordPiece"},
		{"{\"model\": {\"type\": \"Unigram\"}}", "Unigram"},
		{"{\"model\": {\"byte_fallback\": true}}", "byte_fallback"},
		{"{\"model\": {\"unk_token\": \"<unk>\"}}", "unk_token"},
		{"{\"model\": {\"dropout\": 0.1}}", "dropout"},
		{"{\"model\": {\"end_of_word_suffix\": \"</w>\"}}", "end_of_word_suffix"},
		{"{\"model\": {\"vocab\": {}}}", "vocab"},
		{"{\"model\": {\"vocab\": []}}", "vocab"},
		{"{\"model\": {\"vocab\": {\"a\": -1}}}", "\"a\""},
		{"{\"model\": {\"vocab\": {\"a\": 1.5}}}", "\"a\""},
		{"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "\"b\""},
		{"{\"model\": {\"vocab\": {\"a\": 99999999999}}}", "\"a\""},
		{"{\"model\": {\"vocab\": {\"a\": 9999999}}}", "9999999"},
		{"{\"model\": {\"merges\": {}}}", "merges"},
		{"{\"model\": {\"merges\": [\"a b\", \"ab\"]}}", "merges[0]"},
		{"{\"model\": {\"merges\": [\"ab\"]}}", "merges[0]"},
		{"{\"model\": {\"merges\": [\"a b c\"]}}", "merges[0]"},
		{"{\"model\": {\"merges\": [[\"a\", \"b\", \"c\"]]}}", "merges[0]"},
		{"{\"model\": {\"merges\": [7]}}", "merges[0]"},
		{"{\"added_tokens\": 3}", "added_tokens"},
		{"{\"added_tokens\": [{\"id\": 586}]}", "added_tokens[0]"},
		{"{\"added_tokens\": [{\"id\": 586, \"content\": \"\"}]}", "added_tokens[0]"},
		{"{\"added_tokens\": [{\"id\": 600, \"content\": \"<x>\"}]}", "600"},
		{"{\"added_tokens\": [{\"id\": 586, \"content\": \"<x>\", \"lstrip\": 1}]}", "lstrip"},
		{"{\"added_tokens\": [{\"id\": 586, \"content\": \"<x>\"}, {\"id\": 587, \"content\": \"<x>\"}]}", "<x>"},
	};
	static const char *const patterns[] = {
		"^a",          "a$",       "\\d+",   "\\w",     "\\h",   "\\v",   "\\bx",  "[a[bc]]",       "[a&&b]",
		"[\\S]",       "[\\P{L}]", "(?m:.)", "(?<n>a)", "a{,3}", "a{2}+", "a{2}?", "\\p{Lu}",       "\\p{Han}",
		"(?i:\u00e9)", "(?i:fi)",  "(a",     "a)",      "[a",    "[]",    "a\\",   "(?i:[\u00e9])", "a**",
		"\\x{41}",     "\\1",      "(?",     "*a"};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		json_t *file = golden("tiny-tokenizer/tokenizer.json"), *changes = json_loads(cases[i].changes, 0, NULL);
		assert_non_null(changes);
		apply(file, changes);
		char *text = json_dumps(file, 0);
		check_refused(text, strlen(text), cases[i].needle);
		free(text);
		json_decref(changes);
		json_decref(file);
	}
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
		struct pretokenizer *p = pretokenizer_new();
		struct favor_error e = {""};
		if (!pretokenizer_add(p, patterns[i], strlen(patterns[i]), &e))
			fail_msg("the pattern %s was accepted", patterns[i]);
		assert_non_null(strstr(e.message, "pattern"));
		pretokenizer_destroy(p);
	}
	check_refused("", 0, "line");
	check_refused("{", 1, "line");
	check_refused("{}", 2, "model");
	check_refused("[]", 2, "model");
	check_refused("{\"model\": {\"type\": \"BPE\"}}", 26, "pre_tokenizer");
	struct favor_error e = {""};
	assert_null(tokenizer_open("/nonexistent-folder", &e));
	assert_non_null(strstr(e.message, "/nonexistent-folder/tokenizer.json"));
}

/* The vocabulary is read by a reader of our own: all ways to write a string, and what is no JSON. */
#define AROUND_START                                                                                       \
	"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": " \
	"\"ByteLevel\"},\n \"model\": {"
#define AROUND_STOP "}}"

static struct tokenizer *parse_model(const char *model, struct favor_error *e)
{
	char *text = favor_format("%s%s%s", AROUND_START, model, AROUND_STOP);
	struct tokenizer *t = tokenizer_parse(text, strlen(text), "FILE", e);
	free(text);
	return t;
}

static void strings_of_the_vocabulary(void **state)
{
	(void)state;
	struct favor_error e = {""};
	struct tokenizer *t =
		parse_model("\"merges\" : [ [ \"\\u0061\" , \"b\" ] ,[\"\\u0120\",\"ab\"]\n] , \"type\":\"BPE\", \"vocab\" : { "
	                "\"\\ud83d\\uDE00\" : 0 , \"\\\"\\\\\\/\\b\\f\\n\\r\\t\":1,"
	                "\"a\":2,\"b\":3,\"ab\":4,\"Ġ\":5,\"Ġab\":6,\"x\\u0000y\":10, \"{[}]\": 11 }",
	                &e);
	if (!t)
		fail_msg("%s", e.message);
	assert_int_equal(tokenizer_id(t, "\U0001f600"), 0);
	assert_int_equal(tokenizer_id(t, "\"\\/\b\f\n\r\t"), 1);
	assert_int_equal(tokenizer_id(t, "{[}]"), 11);
	assert_int_equal(tokenizer_vocab_size(t), 12);
	struct token_ids ids = {0};
	assert_int_equal(tokenizer_encode(t, "ab abx", 6, 1, &ids, &e), 0);
	assert_int_equal(ids.count, 2);
	assert_int_equal(ids.ids[0], 4);
	assert_int_equal(ids.ids[1], 6);
	size_t n;
	char *text = tokenizer_decode(t, (int32_t[]){10, 7, 0}, 3, 0, &n);
	assert_int_equal(n, 7);
	assert_memory_equal(text, "x\0y\U0001f600", 7);
	free(text);
	token_ids_free(&ids);
	tokenizer_destroy(t);

	static const char *const bad[] = {
		"\"vocab\": {\"a\": 0,}, \"merges\": []",
		"\"vocab\": {\"a\": 0 \"b\": 1}, \"merges\": []",
		"\"vocab\": {\"a\" 0}, \"merges\": []",
		"\"vocab\": {\"a\": 01}, \"merges\": []",
		"\"vocab\": {\"a\": 1e2}, \"merges\": []",
		"\"vocab\": {\"a\": \"0\"}, \"merges\": []",
		"\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []",
		"\"vocab\": {\"\\ud83d\": 0}, \"merges\": []",
		"\"vocab\": {\"\\udc00\": 0}, \"merges\": []",
		"\"vocab\": {\"\\ud83d\\u0041\": 0}, \"merges\": []",
		"\"vocab\": {\"\\x\": 0}, \"merges\": []",
		"\"vocab\": {\"\\u12g4\": 0}, \"merges\": []",
		"\"vocab\": {\"\t\": 0}, \"merges\": []",
		"\"vocab\": {\"\xff\": 0}, \"merges\": []",
		"\"vocab\": {\"a\": 0]}, \"merges\": []",
		"\"vocab\": {\"a\": [0}}, \"merges\": []",
		"\"vocab\": {\"a\": 0}, \"merges\": [,]",
		"\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]",
		"\"vocab\": {\"a\": 0}, \"merges\": [{}]",
		"\"vocab\": {\"a\": 0}, \"merges\": [\"a a\",]",
		"\"vocab\": {\"a\": 0, \"aa\": 1}, \"merges\": [\"a a\" \"a a\"]",
		"\"vocab\": {\"a\": 0}, \"vocab\": {\"b\": 0}, \"merges\": []",
		"\"vocab\": {\"a\": 0}",
		"\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", 3]]",
		"\"vocab\": {\"a\": 0}, \"merges\": [\"",
		"\"vocab\": {\"a\": 0}, \"merges\": []], \"x\": 1",
		"\"vocab\": {\"a\": 0}, \"merges\": []}, \"model\": {",
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct favor_error error = {""};
		t = parse_model(bad[i], &error);
		if (t || strncmp(error.message, "FILE: ", 6))
			fail_msg("%s: %s", bad[i], t ? "accepted" : error.message);
	}
	/* the line of an error behind the vocabulary is that of the file */
	parse_model("\"vocab\": {\n\"a\": 0,\n\n\"b\": 1},\n\"merges\": [],\n \"x\": y", &e);
	if (!strstr(e.message, "line 7"))
		fail_msg("%s", e.message);
	parse_model("\"vocab\": {\n\"a\": 0,\n\n\"b\": x1}, \"merges\": []", &e);
	assert_non_null(strstr(e.message, "\"b\""));
}

/* Every start of the file is refused, none crashes. */
static void truncated_files_are_refused(void **state)
{
	(void)state;
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	char *text = json_dumps(file, JSON_COMPACT);
	size_t n = strlen(text);
	for (size_t k = 0; k < n; k += 1 + k / 40)
		check_refused(text, k, "line");
	free(text);
	json_decref(file);
}

/* ---- Unicode ---- */

struct pieces {
	int count;
	size_t first;
};

static void count_piece(void *context, const char *text, size_t n)
{
	struct pieces *p = context;
	(void)text;
	if (!p->count++)
		p->first = n;
}

/* "a" + c is cut in two by the pattern, in front of c, if c is of the class ("a" itself is hidden by the look-behind).
 */
static void classes_are_the_library_s(void **state)
{
	(void)state;
	static const char *const names[] = {"\\p{L}", "\\p{N}", "\\p{M}", "\\s"};
	json_t *classes = golden("unicode_classes.json");
	for (int k = 0; k < 4; k++) {
		const json_t *runs = json_object_get(classes, names[k]);
		struct favor_error e = {""};
		char *pattern = favor_format("(?<=a)%s", names[k]), *outside = favor_format("(?<=a)[^%s]", names[k]);
		struct pretokenizer *in = pretokenizer_new(), *out = pretokenizer_new();
		assert_int_equal(pretokenizer_add(in, pattern, strlen(pattern), &e), 0);
		assert_int_equal(pretokenizer_add(out, outside, strlen(outside), &e), 0);
		size_t run = 0;
		for (uint32_t c = 0; c < 0x110000; c++) {
			if (c >= 0xd800 && c < 0xe000)
				continue;
			while (run < json_array_size(runs) && json_integer_value(json_array_get(runs, run + 1)) < c)
				run += 2;
			int expected = run < json_array_size(runs) && json_integer_value(json_array_get(runs, run)) <= c;
			char text[5] = "a";
			size_t n = 1 + (size_t)utf8_put(c, text + 1);
			struct pieces a = {0}, b = {0};
			assert_int_equal(pretokenizer_run(in, text, n, count_piece, &a, &e), 0);
			assert_int_equal(pretokenizer_run(out, text, n, count_piece, &b, &e), 0);
			if (a.count != 1 + expected || b.count != 2 - expected)
				fail_msg("U+%04X and %s: %d", c, names[k], expected);
		}
		pretokenizer_destroy(in);
		pretokenizer_destroy(out);
		free(pattern);
		free(outside);
	}
	json_decref(classes);
}

static void nfc_is_the_library_s(void **state)
{
	(void)state;
	json_t *classes = golden("unicode_classes.json");
	struct nfc_text out = {0};
	uint64_t h = HASH_START;
	for (uint32_t c = 0; c < 0x110000; c++) {
		if (c >= 0xd800 && c < 0xe000)
			continue;
		char one[4], text[64];
		int n = utf8_put(c, one);
		n = snprintf(text, sizeof text, "%.*sa\u0345%.*s\u0334\u0301%.*s", c ? n : 0, one, c ? n : 0, one, c ? n : 0,
		             one);
		if (!c) { /* printf can't write NULs */
			memcpy(text, "\0a\u0345\0\u0334\u0301\0", 10);
			n = 10;
		}
		int changed = nfc_normalise(text, (size_t)n, &out);
		h = hash_bytes(h, changed ? out.text : text, changed ? out.length : (size_t)n);
	}
	char digest[17];
	snprintf(digest, sizeof digest, "%016llx", (unsigned long long)h);
	assert_string_equal(digest, json_string_value(json_object_get(classes, "nfc digest")));
	free(out.text);
	json_decref(classes);
}

/* ---- sizes ---- */

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A megabyte without a place to cut, of kinds that are quadratic when done naively. Minutes then; well below the limit
 * here. */
static void huge_words(void **state)
{
	(void)state;
	static const char *const units[] = {"a", " ",          "the", "\u0301", "\u0345\u0301\u0334",
	                                    "=", "<|im_start", "\n",  "日本",   "'"};
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	struct tokenizer *t = parse(file, 0);
	struct favor_error e = {""};
	size_t n = 1 << 20;
	char *text = favor_malloc(n + 16);
	for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
		size_t unit = strlen(units[k]), length = 0;
		for (; length + unit <= n; length += unit)
			memcpy(text + length, units[k], unit);
		struct token_ids ids = {0};
		double start = seconds();
		assert_int_equal(tokenizer_encode(t, text, length, 1, &ids, &e), 0);
		double spent = seconds() - start;
		if (spent > 20)
			fail_msg("1 MB of \"%s\" took %.1f s", units[k], spent);
		assert_true(ids.count > 0);
		size_t decoded_n;
		char *decoded = tokenizer_decode(t, ids.ids, ids.count, 0, &decoded_n);
		if (k != 4) { /* the one that NFC reorders */
			assert_int_equal(decoded_n, length);
			assert_memory_equal(decoded, text, length);
		}
		free(decoded);
		token_ids_free(&ids);
	}
	free(text);
	tokenizer_destroy(t);
	json_decref(file);
}

/* More different words than the cache holds: the ids must not depend on what was encoded before. */
static void the_cache_forgets_safely(void **state)
{
	(void)state;
	json_t *file = golden("tiny-tokenizer/tokenizer.json");
	struct tokenizer *a = parse(file, 0);
	struct favor_error e = {""};
	for (int i = 0; i < 150000; i++) {
		char word[64];
		struct token_ids ids = {0};
		int n = snprintf(word, sizeof word, "%c%c%c%cthe%cing", 'a' + i % 26, 'a' + i / 26 % 26, 'a' + i / 676 % 26,
		                 'a' + i / 17576, 'z' - i % 7);
		assert_int_equal(tokenizer_encode(a, word, (size_t)n, 1, &ids, &e), 0);
		if (i % 5000 == 0) {
			struct tokenizer *fresh = parse(file, 0);
			struct token_ids again = {0};
			assert_int_equal(tokenizer_encode(fresh, word, (size_t)n, 1, &again, &e), 0);
			assert_int_equal(ids.count, again.count);
			assert_memory_equal(ids.ids, again.ids, (size_t)ids.count * sizeof *ids.ids);
			token_ids_free(&again);
			tokenizer_destroy(fresh);
		}
		token_ids_free(&ids);
	}
	tokenizer_destroy(a);
	json_decref(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_of_the_tiny_tokenizer),
		cmocka_unit_test(variants_of_the_file),
		cmocka_unit_test(special_tokens_are_skipped),
		cmocka_unit_test(invalid_utf8_is_refused),
		cmocka_unit_test(broken_bytes_are_replaced),
		cmocka_unit_test(unsupported_files_are_refused),
		cmocka_unit_test(truncated_files_are_refused),
		cmocka_unit_test(strings_of_the_vocabulary),
		cmocka_unit_test(classes_are_the_library_s),
		cmocka_unit_test(nfc_is_the_library_s),
		cmocka_unit_test(huge_words),
		cmocka_unit_test(the_cache_forgets_safely),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
