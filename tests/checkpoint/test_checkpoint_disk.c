/* Disks that end: a write that fails at any point leaves the old checkpoint, no temporary file, a message that helps,
 * and a process that can write again. Each in a child process, so that limits and what HDF5 keeps after a failure stay
 * there. */
#include "checkpoint/checkpoint.h"
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* For builds with LeakSanitizer: HDF5 1.10 keeps what it could not flush. Our own leaks are seen all the same. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libhdf5";
}

static int files_in(const char *folder)
{
	int n = 0;
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* In the child: leaves with `code` and says why. It ends through exit, as a program does, so that HDF5's clean-up runs
 * too. */
#define MUST(condition, code) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s: %s\n", #condition, e.message); \
			exit(code); \
		} \
	} while (0)

static void limit(rlim_t bytes)
{
	struct rlimit l;
	getrlimit(RLIMIT_FSIZE, &l);
	l.rlim_cur = bytes < l.rlim_max ? bytes : l.rlim_max;
	setrlimit(RLIMIT_FSIZE, &l);
}

static void try_limits(const char *folder, const char *path, size_t full)
{
	struct favor_error e = {""};
	struct checkpoint c;
	char digest[17], old[17];
	signal(SIGXFSZ, SIG_IGN);
	sample_make(&c, 1);
	MUST(checkpoint_write(path, &c, &e) == 0, 10);
	memcpy(old, c.digest, sizeof old);
	sample_free(&c);
	sample_make(&c, 2);
	/* every place where it can fail, in steps */
	for (size_t bytes = 0; bytes < full; bytes += full / 23) {
		limit(bytes);
		int rc = checkpoint_write(path, &c, &e);
		limit(RLIM_INFINITY);
		MUST(rc == -1, 11);
		MUST(strstr(e.message, path) && strstr(e.message, "File too large") && strstr(e.message, "make room"), 12);
		MUST(files_in(folder) == 1, 13);
		MUST(checkpoint_verify(path, digest, &e) == 0 && strcmp(digest, old) == 0, 14);
	}
	MUST(checkpoint_write(path, &c, &e) == 0, 15);
	MUST(checkpoint_verify(path, digest, &e) == 0 && strcmp(digest, c.digest) == 0, 16);
	sample_free(&c);
	exit(0);
}

static int child_status(pid_t child)
{
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_limit(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder);
	struct checkpoint c;
	sample_make(&c, 1);
	assert_int_equal(checkpoint_write(path, &c, &e), 0);
	sample_free(&c);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		try_limits(folder, path, (size_t)st.st_size);
	assert_int_equal(child_status(child), 0);
	free(path);
	sample_remove(folder);
}

static void fill_disk(const char *folder, const char *path)
{
	struct favor_error e = {""};
	struct checkpoint_tensor t = {.name = "weight", .ndim = 2, .shape = {512, 1024}}; /* 2 MiB on a disk of 3 */
	struct checkpoint c = {.step = 1, .tensor_count = 1, .tensors = &t};
	char digest[17], old[17];
	t.values = favor_calloc(512 * 1024, sizeof(float));
	MUST(checkpoint_write(path, &c, &e) == 0, 10);
	memcpy(old, c.digest, sizeof old);
	t.values[5] = 1;
	for (int round = 0; round < 3; round++) {
		MUST(checkpoint_write(path, &c, &e) == -1, 11);
		MUST(strstr(e.message, path) && strstr(e.message, "No space left") && strstr(e.message, "2.0 MiB"), 12);
		MUST(files_in(folder) == 1, 13);
		/* the space of what was begun is free again */
		struct statvfs v;
		MUST(statvfs(folder, &v) == 0 && v.f_bavail * v.f_bsize > 800 << 10, 14);
		MUST(checkpoint_verify(path, digest, &e) == 0 && strcmp(digest, old) == 0, 15);
	}
	unlink(path);
	MUST(checkpoint_write(path, &c, &e) == 0, 16);
	MUST(checkpoint_verify(path, digest, &e) == 0 && strcmp(digest, c.digest) == 0, 17);
	free(t.values);
	exit(0);
}

static void test_full_disk(void **state)
{
	(void)state;
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder);
	if (mount("tmpfs", folder, "tmpfs", 0, "size=3m") != 0) {
		sample_remove(folder);
		free(path);
		skip(); /* only root may mount */
	}
	fflush(NULL);
	pid_t child = fork();
	if (child == 0)
		fill_disk(folder, path);
	int status = child_status(child);
	umount2(folder, MNT_DETACH);
	sample_remove(folder);
	free(path);
	assert_int_equal(status, 0);
}

static void test_places(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder();
	struct checkpoint c;
	sample_make(&c, 1);
	/* the folder checkpoints is made, one above it isn't */
	char *path = checkpoint_path(folder, 1);
	assert_int_equal(checkpoint_write(path, &c, &e), 0);
	free(path);
	path = favor_format("%s/no/such/a.h5", folder);
	assert_int_equal(checkpoint_write(path, &c, &e), -1);
	assert_non_null(strstr(e.message, "No such file or directory"));
	free(path);
	/* a folder in the place of the file */
	path = favor_format("%s/checkpoints", folder);
	assert_int_equal(checkpoint_write(path, &c, &e), -1);
	assert_non_null(strstr(e.message, path));
	assert_int_equal(files_in(folder), 1);
	free(path);
	sample_free(&c);
	sample_remove(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
