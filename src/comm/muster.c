/* Who of the job's ranks on this host has not come to a collective call that this rank hangs in, as far as /proc shows
 * it. Inside MPI_Init and MPI_Finalize nobody can be asked; but a process that has entered its n-th watched call bears
 * that number in the name of a thread (base/watch.h), and the launcher has left the job's name and the rank in each
 * process's environment. Runs on the watch's thread. */
#include "comm/internal.h"

#include "base/watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double LATER = 2.0, LATER_MOST = 30.0; /* seconds between those that speak, so that one does */

struct seen {
	int rank; /* -1: no rank of this job */
	long pid;
	int calls; /* watched calls entered; -1: none of its threads says */
	char state; /* of the main thread, as /proc has it */
};

/* The file's first size - 1 bytes; returns how many. */
static size_t slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	for (ssize_t got; fd >= 0 && n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0;)
		n += (size_t)got;
	if (fd >= 0)
		close(fd);
	text[n] = 0;
	return n;
}

static const char *value_in(const char *environment, size_t n, const char *name)
{
	size_t length = strlen(name);
	for (const char *at = environment; at < environment + n; at += strlen(at) + 1)
		if (strncmp(at, name, length) == 0 && at[length] == '=')
			return at + length + 1;
	return NULL;
}

static int calls_of(long pid)
{
	char path[300], name[32];
	int calls = -1;
	snprintf(path, sizeof path, "/proc/%ld/task", pid);
	DIR *d = opendir(path);
	for (struct dirent *t; d && (t = readdir(d));) {
		snprintf(path, sizeof path, "/proc/%ld/task/%.16s/comm", pid, t->d_name);
		if (t->d_name[0] != '.' && slurp(path, name, sizeof name) &&
		    strncmp(name, WATCH_THREAD_NAME " ", sizeof WATCH_THREAD_NAME) == 0)
			calls = atoi(name + sizeof WATCH_THREAD_NAME);
	}
	if (d)
		closedir(d);
	return calls;
}

static char state_of(long pid)
{
	char path[64], text[512];
	snprintf(path, sizeof path, "/proc/%ld/stat", pid);
	const char *end = slurp(path, text, sizeof text) ? strrchr(text, ')') : NULL;
	return end && end[1] == ' ' ? end[2] : '?';
}

static struct seen look_at(long pid, const char *job)
{
	enum { ENVIRONMENT_MAX = 1 << 18 };
	struct seen s = {.rank = -1, .pid = pid, .calls = -1};
	char path[64], *environment = malloc(ENVIRONMENT_MAX);
	if (!environment)
		return s;
	snprintf(path, sizeof path, "/proc/%ld/environ", pid);
	size_t n = slurp(path, environment, ENVIRONMENT_MAX);
	const char *theirs = value_in(environment, n, "PMIX_NAMESPACE"), *rank = value_in(environment, n, "PMIX_RANK");
	if (theirs && rank && strcmp(theirs, job) == 0) {
		s.rank = atoi(rank);
		s.calls = calls_of(pid);
		s.state = state_of(pid);
	}
	free(environment);
	return s;
}

static int is_stopped(char state)
{
	return state == 'T' || state == 't';
}

/* A rank may be several processes (a shell around favor): the one that has come farthest speaks for it. */
static int is_farther(const struct seen *a, const struct seen *b)
{
	return a->calls != b->calls ? a->calls > b->calls : is_stopped(a->state) > is_stopped(b->state);
}

/* This rank's place among those of its host: 0, 1, ... What /proc shows would not do: the one that has spoken is gone a
 * moment later, and nobody must step forward in its place. */
static int place_on_host(int own)
{
	const char *place = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
	if (!place)
		place = getenv("SLURM_LOCALID");
	return place ? atoi(place) : own;
}

void world_kill_ranks(int number)
{
	const char *job = getenv("PMIX_NAMESPACE"), *own = getenv("PMIX_RANK");
	DIR *d = job && own ? opendir("/proc") : NULL;
	for (struct dirent *t; d && (t = readdir(d));) {
		const long pid = strtol(t->d_name, NULL, 10);
		if (pid <= 0 || pid == (long)getpid())
			continue;
		const struct seen s = look_at(pid, job);
		if (s.rank >= 0 && s.rank != atoi(own) && (number < 0 || s.rank == number))
			kill((pid_t)pid, SIGKILL);
	}
	if (d)
		closedir(d);
}

double world_missing(int call, char *text, size_t size)
{
	const char *job = getenv("PMIX_NAMESPACE"), *own_text = getenv("PMIX_RANK");
	text[0] = 0;
	if (!job || !own_text)
		return 0;
	int own = atoi(own_text), count = 0;
	struct seen *ranks = NULL, late = {.rank = -1};
	DIR *d = opendir("/proc");
	for (struct dirent *t; d && (t = readdir(d));) {
		long pid = strtol(t->d_name, NULL, 10);
		if (pid <= 0)
			continue;
		struct seen s = look_at(pid, job);
		int at = 0;
		if (s.rank < 0 || s.state == 'Z')
			continue;
		while (at < count && ranks[at].rank != s.rank)
			at++;
		if (at == count) {
			struct seen *more = realloc(ranks, (size_t)(count + 1) * sizeof *more);
			if (!more)
				break;
			ranks = more;
			ranks[count++] = s;
		} else if (is_farther(&s, &ranks[at])) {
			ranks[at] = s;
		}
	}
	if (d)
		closedir(d);
	for (int i = 0; i < count; i++) {
		const struct seen *s = &ranks[i];
		int behind = s->rank != own && (s->calls < call || is_stopped(s->state));
		if (behind && (late.rank < 0 || is_stopped(s->state) > is_stopped(late.state) ||
		               (is_stopped(s->state) == is_stopped(late.state) && s->rank < late.rank)))
			late = *s;
	}
	free(ranks);
	/* those who see the late one first; without it in sight, by rank */
	double later = LATER * (late.rank >= 0 ? place_on_host(own) - (late.rank < own) : own + 1);
	if (late.rank >= 0)
		snprintf(text, size, "rank %d (process %ld on this host) %s", late.rank, late.pid,
		         is_stopped(late.state)  ? "is stopped (SIGSTOP)"
		         : late.state == 'D'     ? "sleeps in the kernel (state D: a disk or file server that does not answer?)"
		         : late.calls < call     ? "has not come so far"
		                                 : "does not move");
	else
		snprintf(text, size, "the %d rank%s of this host are there: a rank on another host, or the network to it", count,
		         count == 1 ? "" : "s");
	return later < LATER_MOST ? later : LATER_MOST;
}
