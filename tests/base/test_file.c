/* Files that are none, lines without an end, links that lead away. */
#include "base/file.h"

#include "../folder.h"

#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

struct place {
	char *folder, *path; /* path: folder/f */
};

static int set_up(void **state)
{
	struct place *p = favor_calloc(1, sizeof *p);
	char *made = folder_new(), real[PATH_MAX];
	assert_non_null(realpath(made, real));
	p->folder = favor_strdup(real);
	free(made);
	p->path = favor_format("%s/f", p->folder);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;
	folder_remove(p->folder);
	free(p->path);
	free(p);
	return 0;
}

static void whole(void **state)
{
	struct place *p = *state;
	struct favor_error e = {""};
	size_t n = 7;
	assert_null(file_read(p->path, 100, &n, &e));
	assert_non_null(strstr(e.message, "/f: can't be opened: No such file"));
	folder_write_bytes(p->folder, "f", "a\0b", 3);
	char *data = file_read(p->path, 3, &n, &e);
	assert_int_equal(n, 3);
	assert_memory_equal(data, "a\0b", 4);
	free(data);
	assert_null(file_read(p->path, 2, &n, &e));
	assert_non_null(strstr(e.message, "/f: 3 bytes are too many: at most 2 are read"));
	/* a claim of a tebibyte, on no disk: nothing is allocated for it */
	assert_int_equal(truncate(p->path, (off_t)1 << 40), 0);
	assert_null(file_read(p->path, 1 << 20, &n, &e));
	folder_write(p->folder, "f", "");
	data = file_read(p->path, 0, &n, &e);
	assert_true(data && n == 0 && !data[0]);
	free(data);
}

/* A pipe without a writer would be waited for. */
static void no_files(void **state)
{
	struct place *p = *state;
	struct favor_error e = {""};
	assert_int_equal(mkfifo(p->path, 0600), 0);
	assert_null(file_open(p->path, &e));
	assert_non_null(strstr(e.message, "/f: this is no file"));
	assert_null(file_open(p->folder, &e));
	assert_non_null(strstr(e.message, "this is no file"));
	assert_null(file_open("/dev/zero", &e));
}

static int opens(const char *path, const char *folder, struct favor_error *e)
{
	FILE *f = file_open_below(path, folder, "; remedy", e);
	if (f)
		fclose(f);
	return f != NULL;
}

static void links(void **state)
{
	struct place *p = *state;
	struct favor_error e = {""};
	char *inner = favor_format("%s/in", p->folder), *near = favor_format("%s/in2", p->folder),
	     *file = favor_format("%s/in/f", p->folder), *out = favor_format("%s/in/out", p->folder),
	     *same = favor_format("%s/in/same", p->folder), *climb = favor_format("%s/in/../f", p->folder),
	     *beside = favor_format("%s/in2/f", p->folder);
	assert_int_equal(mkdir(inner, 0777) | mkdir(near, 0777), 0);
	folder_write(p->folder, "f", "x");
	folder_write(inner, "f", "x");
	folder_write(near, "f", "x");
	assert_int_equal(symlink("../f", out) | symlink("f", same), 0);
	assert_true(opens(file, inner, &e) && opens(same, inner, &e) && opens(out, p->folder, &e) && opens(out, NULL, &e));
	assert_true(opens(out, "/", &e));
	assert_false(opens(beside, inner, &e)); /* in2 only begins like in */
	assert_false(opens(climb, inner, &e));
	assert_false(opens(out, inner, &e));
	char *wanted = favor_format("%s: is a link to a place outside of %s; remedy", out, inner);
	assert_string_equal(e.message, wanted);
	char *const all[] = {inner, near, file, out, same, climb, beside, wanted};
	for (int i = 0; i < 8; i++)
		free(all[i]);
}

static void line_by_line(void **state)
{
	struct place *p = *state;
	static const char *const texts[] = {"", "\n", "a\n\nbc", "one\ntwo\n", "\0\n\0\n"};
	static const size_t sizes[] = {0, 1, 5, 8, 4};
	for (int k = 0; k < 5; k++) {
		folder_write_bytes(p->folder, "f", texts[k], sizes[k]);
		struct lines l = {.file = fopen(p->path, "rb"), .limit = 100};
		size_t at = 0;
		int found;
		while ((found = lines_next(&l)) == LINES_ONE) {
			const char *feed = memchr(texts[k] + at, '\n', sizes[k] - at);
			size_t n = feed ? (size_t)(feed - texts[k]) + 1 - at : sizes[k] - at;
			assert_int_equal(l.n, n);
			assert_int_equal(l.start, at);
			assert_memory_equal(l.text, texts[k] + at, n);
			assert_int_equal(l.text[n], 0);
			at += n;
		}
		assert_int_equal(found, LINES_END);
		assert_int_equal(at, sizes[k]);
		fclose(l.file);
		lines_free(&l);
	}
}

/* Lines of every length around the first buffer's, and around the limit. */
static void long_lines(void **state)
{
	struct place *p = *state;
	struct favor_error e = {""};
	const size_t limit = 200000;
	for (size_t n = 65530; n <= limit + 2; n += n < 65545 ? 1 : n < limit - 5 ? 9973 : 1) {
		char *text = favor_malloc(n + 8);
		memset(text, 'x', n + 8);
		text[n - 1] = '\n';
		memcpy(text + n, "ab\ncd", 5);
		folder_write_bytes(p->folder, "f", text, n + 5);
		struct lines l = {.file = fopen(p->path, "rb"), .limit = limit};
		int found = lines_next(&l);
		assert_int_equal(found, n <= limit ? LINES_ONE : LINES_LONG);
		if (found == LINES_ONE) {
			assert_true(l.n == n && l.text[0] == 'x' && l.text[n - 2] == 'x' && !l.text[n]);
			assert_true(lines_next(&l) == LINES_ONE && l.n == 3 && !strcmp(l.text, "ab\n") && l.number == 2);
			assert_true(lines_next(&l) == LINES_ONE && l.n == 2 && !strcmp(l.text, "cd"));
			assert_int_equal(lines_next(&l), LINES_END);
		} else {
			lines_fail(&l, found, p->path, &e);
			assert_non_null(strstr(e.message, "/f:1: the line is longer than 200000 bytes"));
		}
		fclose(l.file);
		lines_free(&l);
		free(text);
	}
	/* a line of a gibibyte, on no disk: refused after the limit is read, not after all of it */
	folder_write(p->folder, "f", "first\n");
	assert_int_equal(truncate(p->path, (off_t)1 << 30), 0);
	struct lines l = {.file = fopen(p->path, "rb"), .limit = limit};
	assert_int_equal(lines_next(&l), LINES_ONE);
	assert_int_equal(lines_next(&l), LINES_LONG);
	assert_true(l.capacity <= limit + 2 && ftell(l.file) < 1 << 20);
	fclose(l.file);
	lines_free(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(whole, set_up, tear_down),
	                                   cmocka_unit_test_setup_teardown(no_files, set_up, tear_down),
	                                   cmocka_unit_test_setup_teardown(links, set_up, tear_down),
	                                   cmocka_unit_test_setup_teardown(line_by_line, set_up, tear_down),
	                                   cmocka_unit_test_setup_teardown(long_lines, set_up, tear_down)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
