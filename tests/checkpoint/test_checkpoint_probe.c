/* The library crashes on a file: the child that tries it first dies, the process lives. A child that computes for long
 * is a sign of life of its parent, one that sleeps is none. Both are played: this program's own H5Literate stands before
 * the library's. */
#include "checkpoint/checkpoint.h"
#include "sample.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#undef H5Literate
herr_t H5Literate(hid_t group, H5_index_t index, H5_iter_order_t order, hsize_t *at, H5L_iterate_t op, void *data);

enum { COMPUTES = -1, SLEEPS = -2 }; /* for a moment */
static pid_t the_parent;
static int the_signal, calls_in_parent, signs_of_life;

static void compute(void)
{
	struct timespec begin, now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	while ((double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec) < 0.3);
}

herr_t H5Literate(hid_t group, H5_index_t index, H5_iter_order_t order, hsize_t *at, H5L_iterate_t op, void *data)
{
	herr_t (*real)(hid_t, H5_index_t, H5_iter_order_t, hsize_t *, H5L_iterate_t, void *);
	void *found = dlsym(RTLD_NEXT, "H5Literate");
	memcpy(&real, &found, sizeof real);
	if (getpid() == the_parent)
		calls_in_parent++;
	else if (the_signal == COMPUTES)
		compute();
	else if (the_signal == SLEEPS)
		nanosleep(&(struct timespec){0, 300000000}, NULL);
	else if (the_signal == SIGUSR2)
		_exit(7);
	else if (the_signal)
		raise(the_signal);
	return real(group, index, order, at, op, data);
}

static void test_crash(void **state)
{
	(void)state;
	static const struct {
		int signal;
		const char *says;
	} cases[] = {{0, NULL},
	             {SIGSEGV, "does not survive it (Segmentation fault)"},
	             {SIGABRT, "does not survive it (Aborted)"},
	             {SIGUSR2, "does not survive it (it ends with code 7)"},
	             {SIGXCPU, "does not survive it (CPU time limit exceeded)"}};
	struct favor_error e = {""};
	struct checkpoint made, read;
	char *folder = sample_folder(), *path = favor_format("%s/c.h5", folder);
	the_parent = getpid();
	sample_make(&made, 3);
	assert_int_equal(checkpoint_write(path, &made, &e), 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		the_signal = cases[i].signal;
		calls_in_parent = 0;
		e.message[0] = 0;
		int rc = checkpoint_open(path, &read, &e);
		assert_int_equal(rc, cases[i].signal ? -1 : 0);
		assert_int_equal(calls_in_parent > 0, rc == 0); /* the file that kills is not opened here */
		if (rc) {
			char digest[17];
			if (!strstr(e.message, cases[i].says) || !strstr(e.message, path))
				fail_msg("\"%s\" is not in: %s", cases[i].says, e.message);
			assert_int_equal(checkpoint_verify(path, digest, &e), -1);
			assert_int_equal(checkpoint_inspect(path, 1, stderr, &e), -1);
		} else {
			checkpoint_free(&read);
		}
	}
	sample_free(&made);
	free(path);
	sample_remove(folder);
}

static void count_sign(void *count)
{
	++*(int *)count;
}

static void test_works_or_sleeps(void **state)
{
	(void)state;
	struct favor_error e = {""};
	struct checkpoint made, read;
	char *folder = sample_folder(), *path = favor_format("%s/c.h5", folder);
	int signs[2];
	the_parent = getpid();
	the_signal = 0;
	sample_make(&made, 3);
	assert_int_equal(checkpoint_write(path, &made, &e), 0);
	favor_process()->alive = count_sign;
	favor_process()->alive_arg = &signs_of_life;
	for (int i = 0; i < 2; i++) {
		the_signal = i ? SLEEPS : COMPUTES;
		signs_of_life = 0;
		assert_int_equal(checkpoint_open(path, &read, &e), 0);
		signs[i] = signs_of_life;
		checkpoint_free(&read);
	}
	favor_process()->alive = NULL;
	/* the words of several moments more than one that sleeps; what the open itself says comes to both */
	if (signs[0] < signs[1] + 4)
		fail_msg("%d signs of life while the child computes, %d while it sleeps", signs[0], signs[1]);
	sample_free(&made);
	free(path);
	sample_remove(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_crash), cmocka_unit_test(test_works_or_sleeps)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
