/* The chat template against what transformers renders, and the warning about folders with another one. */
#include "data/template.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void rendered_as_by_transformers(void **state)
{
	(void)state;
	char *path = favor_format("%s/data/template.json", getenv("FAVOR_GOLDEN"));
	json_t *cases = json_load_file(path, 0, NULL), *one;
	size_t i;
	assert_true(json_array_size(cases) == 20);
	json_array_foreach (cases, i, one) {
		const char *user = json_string_value(json_array_get(one, 2));
		char *text = template_render(json_string_value(json_array_get(one, 0)),
		                             (int)json_integer_value(json_array_get(one, 1)), user);
		assert_string_equal(text, json_string_value(json_array_get(one, 3)));
		free(text);
	}
	json_decref(cases);
	free(path);
}

static void options_of_the_system_turn(void **state)
{
	(void)state;
	assert_string_equal(template_system("default"), TEMPLATE_DEFAULT_SYSTEM);
	assert_null(template_system("none"));
	assert_string_equal(template_system("Be brief."), "Be brief.");
}

struct folder {
	char path[64];
};

static int make_folder(void **state)
{
	struct folder *f = favor_calloc(1, sizeof *f);
	strcpy(f->path, "/tmp/favor-template-XXXXXX");
	*state = f;
	return mkdtemp(f->path) ? 0 : -1;
}

static void remove_files(const struct folder *f)
{
	static const char *const names[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
	for (int i = 0; i < 3; i++) {
		char *path = favor_format("%s/%s", f->path, names[i]);
		unlink(path);
		free(path);
	}
}

static int remove_folder(void **state)
{
	struct folder *f = *state;
	remove_files(f);
	rmdir(f->path);
	free(f);
	return 0;
}

static void write_file(const struct folder *f, const char *name, const char *text)
{
	char *path = favor_format("%s/%s", f->path, name);
	FILE *out = fopen(path, "wb");
	assert_non_null(out);
	fputs(text, out);
	fclose(out);
	free(path);
}

/* The warning has all the needles. */
static void check_warning(const struct folder *f, const char *a, const char *b)
{
	char *text = template_difference(f->path);
	assert_non_null(text);
	if (!strstr(text, a) || !strstr(text, b))
		fail_msg("\"%s\" doesn't name \"%s\" and \"%s\"", text, a, b);
	free(text);
}

static void other_templates_are_named(void **state)
{
	struct folder *f = *state;
	assert_null(template_difference(f->path));
	assert_null(template_difference("/nonexistent-folder"));
	write_file(f, "tokenizer_config.json", "{\"bos_token\": null}");
	assert_null(template_difference(f->path));
	write_file(f, "tokenizer_config.json",
	           "{\"chat_template\": [{\"name\": \"tools\", \"template\": \"x\"}, {\"name\": \"default\", \"template\": "
	           "\"plain {{ x }}\"}]}");
	check_warning(f, "tokenizer_config.json", "plain {{ x }}");
	write_file(f, "chat_template.json", "{\"chat_template\": \"{% set a = 1 %}<|im_start|><|im_end|>system\"}");
	check_warning(f, "chat_template.json", TEMPLATE_DEFAULT_SYSTEM);
	write_file(f, "chat_template.json", "{\"chat_template\": ");
	check_warning(f, "chat_template.json", "line 1");
	write_file(f, "chat_template.jinja", "");
	check_warning(f, "chat_template.jinja", "0 bytes");
	/* an excerpt isn't cut in the middle of a character */
	write_file(f, "chat_template.jinja", "x日本語日本語日本語日本語日本語");
	check_warning(f, "chat_template.jinja", "\"x日本語日本語日本語日本語日\"");
}

/* The official file isn't part of the project: FAVOR_QWEN2_VL_TEMPLATE may name a copy (package trl:
 * chat_templates/qwen2_5_vl.jinja). */
static void the_official_template_is_known(void **state)
{
	struct folder *f = *state;
	const char *path = getenv("FAVOR_QWEN2_VL_TEMPLATE");
	if (!path) {
		print_message("FAVOR_QWEN2_VL_TEMPLATE names no copy of the official template\n");
		skip();
	}
	char text[4096] = "";
	FILE *in = fopen(path, "rb");
	assert_non_null(in);
	size_t n = fread(text, 1, sizeof text - 2, in);
	fclose(in);
	write_file(f, "chat_template.jinja", text);
	assert_null(template_difference(f->path));
	memcpy(text + n, "\n", 2);
	write_file(f, "chat_template.jinja", text);
	assert_null(template_difference(f->path));
	memcpy(text + n, "\n\n", 3);
	write_file(f, "chat_template.jinja", text);
	check_warning(f, "chat_template.jinja", "white space");
	text[n] = 0;
	json_t *json = json_pack("{s:[{s:s,s:s}]}", "chat_template", "name", "default", "template", text);
	char *dumped = json_dumps(json, 0);
	remove_files(f);
	write_file(f, "chat_template.json", dumped);
	assert_null(template_difference(f->path));
	free(dumped);
	json_decref(json);
	text[500] ^= 1;
	write_file(f, "chat_template.jinja", text);
	check_warning(f, "chat_template.jinja", "at byte 480;");
	text[n - 200] = 0;
	text[500] ^= 1;
	write_file(f, "chat_template.jinja", text);
	check_warning(f, "chat_template.jinja", "add_generation_prompt");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rendered_as_by_transformers),
		cmocka_unit_test(options_of_the_system_turn),
		cmocka_unit_test_setup_teardown(other_templates_are_named, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(the_official_template_is_known, make_folder, remove_folder),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
