/* What ends its process, in a process of its own. Include after cmocka.h. */
#ifndef FAVOR_TESTS_APART_H
#define FAVOR_TESTS_APART_H

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Calls run(arg) in a child, which ends with code 0 if it returns. message (size bytes): what the child writes to stderr. Returns its
 * status as waitpid has it. */
static inline int run_apart(void (*run)(void *arg), void *arg, char *message, size_t size)
{
	int pipes[2], status;
	size_t used = 0;
	assert_int_equal(pipe(pipes), 0);
	fflush(NULL);
	const pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		dup2(pipes[1], STDERR_FILENO);
		close(pipes[0]);
		run(arg);
		_exit(0);
	}
	close(pipes[1]);
	for (ssize_t n; used < size - 1 && (n = read(pipes[0], message + used, size - 1 - used)) > 0;)
		used += (size_t)n;
	message[used] = 0;
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static inline void call_apart(void *bad)
{
	signal(SIGABRT, SIG_DFL); /* cmocka's */
	(*(void (*const *)(void))bad)();
}

/* Calls `bad` in a child, which must end by abort() with this text on stderr. */
static inline void expect_abort(void (*bad)(void), const char *text)
{
	char message[4096];
	const int status = run_apart(call_apart, &bad, message, sizeof message);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(message, text))
		fail_msg("expected \"%s\" in \"%s\"", text, message);
}

#endif
