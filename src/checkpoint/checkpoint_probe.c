/* What the HDF5 library does with a file is tried in a process of its own first.
 *
 * The library (1.10) does not survive every file: one that was made to, checksums and all, can lead it astray. favor
 * checks what it can before and around the library's calls (h5.c); for the rest a child opens the file with the same
 * code. If the child crashes, or computes for minutes, the file is refused with a message, and the job lives. A file
 * that harms without a crash is not seen: checkpoints of unknown origin belong into a sandbox (docs/RELIABILITY.md).
 *
 * The parent sleeps meanwhile, and a rank that sleeps is taken for stuck after run.deadline (base/watch.h). So the child
 * says through a pipe that it works: a byte for each bit of processor time that it has used. A child that sleeps (a
 * server that is gone) says nothing. */
#include "checkpoint/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 120, WORD_MICROSECONDS = 50000 };

static int words = -1; /* in the child: the pipe's end */

static void say_word(int signal)
{
	(void)signal;
	const int saved = errno;
	const ssize_t written = write(words, "", 1);
	(void)written;
	errno = saved;
}

static void say_words(void)
{
	const struct itimerval every = {{0, WORD_MICROSECONDS}, {0, WORD_MICROSECONDS}};
	sigset_t profile;
	sigemptyset(&profile);
	sigaddset(&profile, SIGPROF);
	sigaction(SIGPROF, &(struct sigaction){.sa_handler = say_word, .sa_flags = SA_RESTART}, NULL);
	sigprocmask(SIG_UNBLOCK, &profile, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
}

/* In the child; never returns. *survived is shared with the parent: an exit code may be that of a checker (valgrind).
 */
static _Noreturn void try_it(const char *path, volatile int *survived)
{
	static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGTERM, SIGXCPU, SIGUSR1};
	struct favor_error ignored = {""};
	struct checkpoint_reader r;
	for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
		signal(deadly[i], SIG_DFL); /* MPI's and favor's own handlers are the parent's */
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	setrlimit(RLIMIT_CPU, &(struct rlimit){CPU_SECONDS, CPU_SECONDS});
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (nowhere >= 0)
		dup2(nowhere, STDERR_FILENO); /* the last words of a library are not for the user */
	say_words();
	reader_open_here(&r, path, &ignored);
	reader_close(&r);
	*survived = 1;
	_exit(0);
}

/* Until the child has ended. */
static void hear_words(int heard)
{
	char word;
	ssize_t n;
	while ((n = read(heard, &word, 1)) == 1 || (n < 0 && errno == EINTR))
		if (n == 1)
			favor_alive();
}

int checkpoint_probe(const char *path, struct favor_error *e)
{
	volatile int *survived = mmap(NULL, sizeof *survived, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (survived == MAP_FAILED)
		return 0;
	*survived = 0;
	int ends[2] = {-1, -1};
	if (pipe2(ends, O_CLOEXEC))
		ends[0] = ends[1] = -1; /* then it stays silent */
	pid_t child = fork();
	if (child == 0) {
		words = ends[1];
		try_it(path, survived);
	}
	int status = 0, rc = 0;
	pid_t waited = child;
	if (ends[1] >= 0) {
		close(ends[1]);
		hear_words(ends[0]);
		close(ends[0]);
	}
	while (child > 0 && (waited = waitpid(child, &status, 0)) < 0 && errno == EINTR)
		continue;
	/* where no child can be made, or somebody else waits for it, the file is opened without */
	if (child > 0 && waited == child && !*survived) {
		char how[80];
		if (WIFSIGNALED(status))
			snprintf(how, sizeof how, "%s", strsignal(WTERMSIG(status)));
		else
			snprintf(how, sizeof how, "it ends with code %d", WEXITSTATUS(status));
		rc = favor_fail(
		    e, "%s: the HDF5 library does not survive it (%s): the file is damaged, or made to do harm; use another",
		    path, how);
	}
	munmap((void *)(uintptr_t)survived, sizeof *survived);
	return rc;
}
