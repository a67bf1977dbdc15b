/* Failing on purpose; see fault.h. */
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum action { DO_KILL, DO_STOP, DO_EXIT, DO_ABORT, DO_SLEEP, DO_OOM, DO_ENOSPC, DO_SIGNAL, ACTIONS };
static const char *const ACTION_NAMES[ACTIONS] = {"kill", "stop", "exit", "abort", "sleep", "oom", "enospc", "signal"};

struct fault {
	struct fault *next;
	char *point;
	long long rank, step; /* -2: any (-1 is the step before the first) */
	long long passages;   /* that match, until it fires; 0: it has fired */
	enum action action;
	char *argument; /* NULL: none given */
};
static const long long ANY = -2;

/* A number of at least `least`, all of the text. */
static int read_number(const char *text, long long least, long long *value)
{
	char *end;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return *text && !*end && !errno && *value >= least ? 0 : -1;
}

static int read_number_or_any(const char *text, long long *value)
{
	if (strcmp(text, "*"))
		return read_number(text, -1, value);
	*value = ANY;
	return 0;
}

static int read_action(struct fault *f, const char *name)
{
	for (int i = 0; i < ACTIONS; i++)
		if (!strcmp(name, ACTION_NAMES[i])) {
			f->action = (enum action)i;
			return 0;
		}
	return -1;
}

static int check_argument(const struct fault *f)
{
	long long n;
	char *end;
	switch (f->action) {
	case DO_ENOSPC: return f->argument && *f->argument ? 0 : -1;
	case DO_SIGNAL: return f->argument && !read_number(f->argument, 1, &n) && n < NSIG ? 0 : -1;
	case DO_EXIT:
	case DO_OOM: return !f->argument || !read_number(f->argument, 0, &n) ? 0 : -1;
	case DO_SLEEP: return !f->argument || (strtod(f->argument, &end) >= 0 && *f->argument && !*end) ? 0 : -1;
	default: return f->argument ? -1 : 0;
	}
}

/* text is cut into its fields, which the fault borrows. */
static int read_fault(struct fault *f, char *text)
{
	char *fields[5] = {text};
	int count = 1;
	for (char *colon; count < 5 && (colon = strchr(fields[count - 1], ':')); count++) {
		*colon = 0;
		fields[count] = colon + 1;
	}
	char *at = strrchr(fields[0], '@');
	*f = (struct fault){.point = fields[0], .passages = 1, .argument = fields[4]};
	if (at) {
		*at = 0;
		if (read_number(at + 1, 1, &f->passages))
			return -1;
	}
	return count < 4 || !*f->point || read_number_or_any(fields[1], &f->rank) ||
	               read_number_or_any(fields[2], &f->step) || read_action(f, fields[3]) || check_argument(f)
	           ? -1
	           : 0;
}

int fault_read(struct favor_error *e)
{
	const char *variable = getenv("FAVOR_FAULT");
	if (!variable || !*variable)
		return 0;
	/* lives as long as the process */
	char *all = favor_strdup(variable), *rest = all;
	struct fault *const before = favor_process()->faults;
	for (char *one; (one = strsep(&rest, ","));) {
		struct fault *f = favor_malloc(sizeof *f);
		if (read_fault(f, one)) {
			free(f);
			while ((f = favor_process()->faults) != before) {
				favor_process()->faults = f->next;
				free(f);
			}
			free(all);
			return favor_fail(
			    e,
			    "FAVOR_FAULT=%s: is not POINT[@N]:RANK:STEP:ACTION[:ARGUMENT][,...] with an action of "
			    "kill, stop, exit[:CODE], signal:N, abort, sleep[:SECONDS], oom[:MIB], enospc:FILE; it is for "
			    "tests, unset it to run without faults",
			    variable);
		}
		f->next = favor_process()->faults;
		favor_process()->faults = f;
	}
	return 0;
}

static void take_memory(long long mib)
{
	const size_t bytes = 1 << 20;
	void *volatile last = NULL; /* a chain, never freed: this process is to end, and what is held is no leak */
	for (long long i = 0; i < mib; i++) {
		void **block = favor_malloc(bytes);
		memset(block, 1, bytes);
		*block = last;
		last = block;
	}
	favor_die("FAVOR_FAULT: %lld MiB could be taken and nothing stopped it", mib);
}

static void fill_disk(const char *path)
{
	static const unsigned long long most = 256 << 20;
	static const char zeros[1 << 16];
	struct statvfs disk;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || fstatvfs(fd, &disk))
		favor_die("FAVOR_FAULT: %s: %s", path, strerror(errno));
	if ((unsigned long long)disk.f_bavail * disk.f_frsize > most)
		favor_die("FAVOR_FAULT: %s lies on a disk with more than 256 MiB left; enospc is for small ones", path);
	size_t n = sizeof zeros;
	while (n > 0) { /* down to the last byte */
		if (write(fd, zeros, n) < 0)
			n /= 2;
	}
	close(fd);
}

static void happen(const struct fault *f)
{
	const char *argument = f->argument;
	const double seconds = argument ? strtod(argument, NULL) : 1;
	struct timespec nap = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	switch (f->action) {
	case DO_KILL: raise(SIGKILL); break;
	case DO_STOP: raise(SIGSTOP); break;
	case DO_EXIT: _exit(argument ? atoi(argument) : 7);
	case DO_ABORT:
		signal(SIGABRT, SIG_DFL); /* MPI's handler prints pages */
		abort();
	case DO_SLEEP: nanosleep(&nap, NULL); break;
	case DO_SIGNAL: raise(atoi(argument)); break;
	case DO_OOM: take_memory(argument ? atoll(argument) : 1024); break;
	case DO_ENOSPC: fill_disk(argument); break;
	default: break;
	}
}

static void check_faults(const char *point, long long step)
{
	const struct favor_process *p = favor_process();
	for (struct fault *f = p->faults; f; f = f->next) {
		if (!f->passages || strcmp(f->point, point) || (f->rank != ANY && f->rank != p->rank) ||
		    (f->step != ANY && f->step != step) || --f->passages)
			continue;
		fprintf(stderr, "favor: FAVOR_FAULT: rank %d, %s, step %lld: %s\n", p->rank, point, step,
		        ACTION_NAMES[f->action]);
		fflush(stderr);
		happen(f);
	}
}

void fault_point(const char *point, long long step)
{
	if (favor_process()->faults)
		check_faults(point, step);
}
