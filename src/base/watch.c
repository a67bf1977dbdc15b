#include "base/watch.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const double LOOK_SECONDS = 0.2;
static const double WORK_SHARE = 0.05; /* processor time of other threads that counts as movement; libraries' helper
                                          threads use less */
enum { ABORT_SECONDS = 5, TEXT_MAX = 512 };

static struct {
	pthread_t thread;
	int started;
	pid_t main_id;
	clockid_t main_clock;
	watch_missing *missing;
	/* the rest is shared with the thread, under the lock; turns alone are counted without it */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int stop;
	double seconds, quiet;
	const char *remedy;
	const char *call; /* NULL: in no watched call */
	int may_abort, calls;
	atomic_ulong turns;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double seconds_of(clockid_t clock)
{
	struct timespec t;
	return clock_gettime(clock, &t) ? 0 : (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- where the main thread sleeps */

enum { PLAIN, FILE_0, PATH_0, PATH_1, CHILD_0 }; /* what argument says more */
static const struct {
	long number;
	const char *name;
	int says;
} CALLS[] = {
	{SYS_read, "read", FILE_0},         {SYS_write, "write", FILE_0},       {SYS_pread64, "pread", FILE_0},
	{SYS_pwrite64, "pwrite", FILE_0},   {SYS_readv, "readv", FILE_0},       {SYS_writev, "writev", FILE_0},
	{SYS_fsync, "fsync", FILE_0},       {SYS_fdatasync, "fdatasync", FILE_0}, {SYS_close, "close", FILE_0},
	{SYS_flock, "flock", FILE_0},       {SYS_fcntl, "fcntl", FILE_0},       {SYS_ftruncate, "ftruncate", FILE_0},
	{SYS_getdents64, "readdir", FILE_0}, {SYS_fstat, "fstat", FILE_0},      {SYS_lseek, "lseek", FILE_0},
	{SYS_openat, "open", PATH_1},       {SYS_newfstatat, "stat", PATH_1},   {SYS_statx, "stat", PATH_1},
	{SYS_mkdirat, "mkdir", PATH_1},     {SYS_unlinkat, "unlink", PATH_1},   {SYS_faccessat, "access", PATH_1},
	{SYS_truncate, "truncate", PATH_0}, {SYS_wait4, "wait4", CHILD_0},
	{SYS_futex, "futex (waits for another thread)", PLAIN}, {SYS_nanosleep, "sleep", PLAIN},
	{SYS_clock_nanosleep, "sleep", PLAIN}, {SYS_ppoll, "poll", PLAIN},      {SYS_connect, "connect", FILE_0},
	{SYS_recvfrom, "recv", FILE_0},     {SYS_sendto, "send", FILE_0},
#ifdef SYS_open
	{SYS_open, "open", PATH_0},         {SYS_stat, "stat", PATH_0},         {SYS_lstat, "stat", PATH_0},
	{SYS_mkdir, "mkdir", PATH_0},       {SYS_unlink, "unlink", PATH_0},     {SYS_access, "access", PATH_0},
	{SYS_rename, "rename", PATH_0},     {SYS_rmdir, "rmdir", PATH_0},       {SYS_poll, "poll", PLAIN},
	{SYS_select, "select", PLAIN},      {SYS_pause, "pause", PLAIN},        {SYS_epoll_wait, "epoll_wait", PLAIN},
#endif
};

struct sleep_place {
	long number; /* of the system call; -1: not known, or running */
	unsigned long arguments[2];
};

static struct sleep_place main_place(void)
{
	char path[64], line[256] = "";
	struct sleep_place p = {.number = -1};
	snprintf(path, sizeof path, "/proc/self/task/%ld/syscall", (long)watch.main_id);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0 || sscanf(line, "%ld %lx %lx", &p.number, &p.arguments[0], &p.arguments[1]) != 3)
		p.number = -1;
	return p;
}

static int is_users_wish(const struct sleep_place *p)
{
	return ((p->number == SYS_write || p->number == SYS_writev) && (p->arguments[0] == 1 || p->arguments[0] == 2)) ||
	       (p->number == SYS_read && p->arguments[0] == 0);
}

/* A text in this process's memory that the main thread may change meanwhile. */
static void copy_text(unsigned long from, char *text, size_t size)
{
	struct iovec here = {text, size - 1}, there = {(void *)from, size - 1};
	ssize_t n;
	/* a path at the end of a page: what lies behind may not be there */
	while ((n = process_vm_readv(getpid(), &here, 1, &there, 1, 0)) < 0 && there.iov_len > 1)
		there.iov_len /= 2;
	text[n < 0 ? 0 : n] = 0;
}

static void place_text(const struct sleep_place *p, char *text, size_t size)
{
	char about[TEXT_MAX] = "", link[64];
	ssize_t n;
	for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
		if (CALLS[i].number != p->number)
			continue;
		switch (CALLS[i].says) {
		case FILE_0:
			snprintf(link, sizeof link, "/proc/self/fd/%lu", p->arguments[0]);
			n = readlink(link, about, sizeof about - 1);
			about[n < 0 ? 0 : n] = 0;
			break;
		case PATH_0:
		case PATH_1:
			copy_text(p->arguments[CALLS[i].says == PATH_1], about, sizeof about);
			break;
		case CHILD_0:
			snprintf(about, sizeof about, "child process %ld", (long)p->arguments[0]);
			break;
		default:
			break;
		}
		snprintf(text, size, "%s%s%s", CALLS[i].name, *about ? " of " : "", about);
		return;
	}
	if (p->number >= 0)
		snprintf(text, size, "system call %ld", p->number);
	else
		snprintf(text, size, "no system call that /proc shows (a page of a mapped file?)");
}

/* ---- the end */

/* Nothing here takes a lock that the main thread may hold (stdio's among them). */
static _Noreturn void end(int may_abort, const char *text)
{
	struct favor_process *process = favor_process();
	char host[128] = "?", sample[48] = "", line[FAVOR_ERROR_MAX];
	gethostname(host, sizeof host - 1);
	if (process->sample >= 0)
		snprintf(sample, sizeof sample, ", sample %lld", process->sample);
	int n = snprintf(line, sizeof line, "favor: rank %d (%s) on %s, phase %s, step %lld%s: %s\n", process->rank,
	                 process->role, host, process->phase, process->step, sample, text);
	if (n >= (int)sizeof line)
		n = (int)sizeof line - 1;
	signal(SIGALRM, SIG_DFL);
	alarm(ABORT_SECONDS); /* should the end itself hang */
	ssize_t written = write(2, line, (size_t)n);
	(void)written;
	process->stuck = 1;
	if (process->alone_if_stuck)
		raise(SIGKILL); /* of a mere exit the others would not hear */
	if (may_abort && process->abort_job)
		process->abort_job(1);
	else if (process->leaves)
		process->leaves();
	_exit(1);
}

static void speak_of_call(const char *call, int number, int may_abort, double waited, double seconds,
                          const char *remedy)
{
	char who[TEXT_MAX] = "", text[FAVOR_ERROR_MAX];
	double later = watch.missing ? watch.missing(number, who, sizeof who) : 0;
	if (waited < seconds + later)
		return;
	snprintf(text, sizeof text, "%s does not return, for %.0f s now%s%s; %s", call, waited, *who ? ": " : "", who,
	         remedy);
	end(may_abort, text);
}

static void speak_of_stillness(const struct sleep_place *place, double still, const char *remedy)
{
	char where[TEXT_MAX + 64], text[FAVOR_ERROR_MAX];
	place_text(place, where, sizeof where);
	snprintf(text, sizeof text, "nothing moves on this rank, for %.0f s now: it is in %s; if that is a file, does its "
	                            "file system answer? %s", still, where, remedy);
	end(1, text);
}

static void *look(void *unused)
{
	(void)unused;
	double last = clock_seconds(), main_last = 0, process_last = 0, own_last = 0, waited = 0, still = 0;
	unsigned long turns_last = 0;
	int calls_last = -1;
	pthread_mutex_lock(&watch.lock);
	while (!watch.stop) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += (long)(LOOK_SECONDS * 1e9);
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&watch.wake, &watch.lock, &until);
		if (watch.stop)
			break;
		const char *call = watch.call, *remedy = watch.remedy;
		const int may_abort = watch.may_abort, calls = watch.calls;
		const double seconds = watch.seconds, quiet = watch.quiet;
		pthread_mutex_unlock(&watch.lock);

		const double now = clock_seconds(), passed = now - last < 1.25 * LOOK_SECONDS ? now - last : 1.25 * LOOK_SECONDS;
		const double main_now = seconds_of(watch.main_clock), process_now = seconds_of(CLOCK_PROCESS_CPUTIME_ID),
			own_now = seconds_of(CLOCK_THREAD_CPUTIME_ID);
		const unsigned long turns = atomic_load(&watch.turns);
		const double others = process_now - process_last - (own_now - own_last) - (main_now - main_last);
		const int moves = main_now > main_last || others >= WORK_SHARE * (now - last) || turns != turns_last;
		last = now;
		main_last = main_now;
		process_last = process_now;
		own_last = own_now;
		turns_last = turns;

		waited = call && calls == calls_last ? waited + passed : 0;
		still = call || moves ? 0 : still + passed;
		calls_last = calls;
		if (call && waited > seconds)
			speak_of_call(call, calls, may_abort, waited, seconds, remedy);
		if (!call && still > quiet) {
			const struct sleep_place place = main_place();
			if (is_users_wish(&place))
				still = 0;
			else
				speak_of_stillness(&place, still, remedy);
		}
		pthread_mutex_lock(&watch.lock);
	}
	pthread_mutex_unlock(&watch.lock);
	return NULL;
}

static void name_thread(int calls)
{
	char name[16]; /* what the kernel keeps */
	snprintf(name, sizeof name, WATCH_THREAD_NAME " %d", calls % 1000);
	pthread_setname_np(watch.thread, name);
}

void watch_start(double seconds, const char *remedy, watch_missing *missing)
{
	if (watch.started)
		return;
	pthread_condattr_t monotonic;
	sigset_t all, before;
	watch.main_id = (pid_t)syscall(SYS_gettid);
	watch.missing = missing;
	watch.stop = 0;
	watch.calls = 0;
	watch_deadline(seconds, seconds, remedy);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&watch.wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	/* signals are for the main thread */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (pthread_getcpuclockid(pthread_self(), &watch.main_clock))
		watch.main_clock = CLOCK_PROCESS_CPUTIME_ID;
	int code = pthread_create(&watch.thread, NULL, look, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code)
		favor_die("the thread that watches over deadlines can't be started: %s", strerror(code));
	watch.started = 1;
	name_thread(0);
}

void watch_deadline(double seconds, double quiet, const char *remedy)
{
	pthread_mutex_lock(&watch.lock);
	watch.seconds = seconds;
	watch.quiet = quiet;
	watch.remedy = remedy;
	pthread_mutex_unlock(&watch.lock);
}

void watch_stop(void)
{
	if (!watch.started)
		return;
	pthread_mutex_lock(&watch.lock);
	watch.stop = 1;
	pthread_cond_signal(&watch.wake);
	pthread_mutex_unlock(&watch.lock);
	pthread_join(watch.thread, NULL);
	pthread_cond_destroy(&watch.wake);
	watch.started = 0;
}

void watch_turn(void)
{
	atomic_fetch_add_explicit(&watch.turns, 1, memory_order_relaxed);
}

void watch_enter(const char *call, int may_abort)
{
	if (!watch.started)
		return;
	pthread_mutex_lock(&watch.lock);
	watch.call = call;
	watch.may_abort = may_abort;
	watch.calls++;
	pthread_mutex_unlock(&watch.lock);
	name_thread(watch.calls);
}

void watch_leave(void)
{
	pthread_mutex_lock(&watch.lock);
	watch.call = NULL;
	pthread_mutex_unlock(&watch.lock);
}
