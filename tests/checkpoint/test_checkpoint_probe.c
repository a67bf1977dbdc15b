/* The library crashes on a file: the child that tries it first dies, the process lives. The crash is played: this
 * program's own H5Literate stands before the library's. */
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
#include <unistd.h>

#undef H5Literate
herr_t H5Literate(hid_t group, H5_index_t index, H5_iter_order_t order, hsize_t *at, H5L_iterate_t op, void *data);

static pid_t the_parent;
static int the_signal, calls_in_parent;

herr_t H5Literate(hid_t group, H5_index_t index, H5_iter_order_t order, hsize_t *at, H5L_iterate_t op, void *data)
{
	herr_t (*real)(hid_t, H5_index_t, H5_iter_order_t, hsize_t *, H5L_iterate_t, void *);
	void *found = dlsym(RTLD_NEXT, "H5Literate");
	memcpy(&real, &found, sizeof real);
	if (getpid() == the_parent)
		calls_in_parent++;
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

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_crash)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
