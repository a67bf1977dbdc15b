/* Files that a checkpoint carries, written into a folder: only the names of a model's files, never through a link. */
#include "app/assets.h"

#include "../folder.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int entries(const char *folder)
{
	int n = 0;
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));)
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (d)
		closedir(d);
	return n;
}

static void names(void **state)
{
	(void)state;
	static char *const bad[] = {"../config.json",
	                            "/tmp/config.json",
	                            "a/config.json",
	                            "..",
	                            ".",
	                            "",
	                            ".bashrc",
	                            "modeling.py",
	                            "model.safetensors",
	                            "pytorch_model.bin",
	                            "config.json ",
	                            "Config.json",
	                            "config.json\n"};
	static char text[] = "{}";
	char *outer = folder_new(), *inner = favor_format("%s/in", outer);
	assert_int_equal(mkdir(inner, 0777), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct favor_error e = {""};
		struct checkpoint_file file = {bad[i], text, 2};
		struct checkpoint c = {.file_count = 1, .files = &file};
		assert_int_equal(assets_write_files(&c, inner, &e), -1);
		assert_non_null(strstr(e.message, "none of a model's"));
		assert_int_equal(entries(inner), 0);
		assert_int_equal(entries(outer), 1);
	}
	struct favor_error e = {""};
	struct checkpoint_file files[] = {{"config.json", text, 2}, {"tokenizer.json", text, 0}};
	struct checkpoint c = {.file_count = 2, .files = files};
	assert_int_equal(assets_write_files(&c, inner, &e), 0);
	assert_int_equal(entries(inner), 2);
	free(inner);
	folder_remove(outer);
}

static void links(void **state)
{
	(void)state;
	static char text[] = "{}";
	struct favor_error e = {""};
	char *outer = folder_new(), *inner = favor_format("%s/in", outer), *link = favor_format("%s/in/config.json", outer);
	assert_int_equal(mkdir(inner, 0777), 0);
	folder_write(outer, "precious", "keep me");
	assert_int_equal(symlink("../precious", link), 0);
	struct checkpoint_file file = {"config.json", text, 2};
	struct checkpoint c = {.file_count = 1, .files = &file};
	assert_int_equal(assets_write_files(&c, inner, &e), -1);
	assert_non_null(strstr(e.message, "config.json: can't be written"));
	size_t n;
	char *kept = folder_read(outer, "precious", &n);
	assert_string_equal(kept, "keep me");
	free(kept);
	free(inner);
	free(link);
	folder_remove(outer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(links)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
