/* The end of the launcher. MPI_Abort, or the code that a rank leaves with, asks it to end all ranks. That is not always the
 * end: where the network is cut, mpirun waits for its daemon on a host that it can't reach, for as long as TCP tries (a quarter
 * of an hour); where a rank is stopped in MPI_Finalize, it has been seen to wait for ever. The job script waits for mpirun,
 * although no rank is left. So a rank that ends the job leaves a small process behind, which looks after a while whether the
 * daemon that started this rank is still there, and ends it. */
#include "comm/internal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LAUNCHER_SECONDS = 20, LAUNCHER_LAST_SECONDS = 3 };

/* The daemon that started this rank: a handle of it, or -1 if the parent is none (a shell, slurmstepd, which do well
 * without us). */
static int launcher(void)
{
	static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
	char path[64], name[32] = "";
	pid_t parent = getppid();
	int handle = (int)syscall(SYS_pidfd_open, parent, 0);
	snprintf(path, sizeof path, "/proc/%d/comm", (int)parent);
	int fd = handle < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC); /* stdio takes locks, which a thread that is stuck may hold */
	ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
	if (fd >= 0)
		close(fd);
	name[n < 0 ? 0 : n] = 0;
	name[strcspn(name, "\n")] = 0;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(name, names[i]) && getppid() == parent)
			return handle;
	if (handle >= 0)
		close(handle);
	return -1;
}

/* Whether the process of the handle ends within that time. */
static int ends_within(int handle, int seconds)
{
	struct pollfd p = {.fd = handle, .events = POLLIN};
	return poll(&p, 1, 1000 * seconds) != 0;
}

void world_watch_launcher(void)
{
	int handle = launcher();
	pid_t child = handle < 0 ? -1 : fork();
	if (child == 0) { /* calls that are safe after a fork, nothing else */
		setsid();     /* the launcher ends this rank's process group */
		signal(SIGTERM, SIG_IGN);
		for (int fd = 0; fd < 1024; fd++)
			if (fd != handle)
				close(fd);
		if (!ends_within(handle, LAUNCHER_SECONDS))
			syscall(SYS_pidfd_send_signal, handle, SIGTERM, NULL, 0);
		if (!ends_within(handle, LAUNCHER_LAST_SECONDS))
			syscall(SYS_pidfd_send_signal, handle, SIGKILL, NULL, 0);
		_exit(0);
	}
	if (handle >= 0)
		close(handle);
}
