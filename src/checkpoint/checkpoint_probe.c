/* What the HDF5 library does with a file is tried in a process of its own first.
 *
 * The library (1.10) does not survive every file: one that was made to, checksums and all, can lead it astray. favor
 * checks what it can before and around the library's calls (h5.c); for the rest a child opens the file with the same
 * code. If the child crashes, or computes for minutes, the file is refused with a message, and the job lives. A file
 * that harms without a crash is not seen: checkpoints of unknown origin belong into a sandbox (docs/RELIABILITY.md). */
#include "checkpoint/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 120 };

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
	reader_open_here(&r, path, &ignored);
	reader_close(&r);
	*survived = 1;
	_exit(0);
}

int checkpoint_probe(const char *path, struct favor_error *e)
{
	volatile int *survived = mmap(NULL, sizeof *survived, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (survived == MAP_FAILED)
		return 0;
	*survived = 0;
	pid_t child = fork();
	if (child == 0)
		try_it(path, survived);
	int status = 0, rc = 0;
	pid_t waited = child;
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
