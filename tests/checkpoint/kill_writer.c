/* Kills a process that writes checkpoints: kill_writer MIB TIMES [SEED]. TIMES times a child goes on from the newest
 * checkpoint and writes one after the other, of MIB MiB each, until kill -9 hits it at a random moment. After each kill
 * there must be a checkpoint to go on from: whole to the last byte (its digest is made again), and not older than the
 * last one that checkpoint_write has returned from. Prints one line, "ok: ..." or "FAIL: ...". */
#include "base/clock.h"
#include "checkpoint/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TENSORS = 8, KEEP = 2 };

struct job {
	char folder[64];
	int64_t rows;  /* of a tensor, of 1024 floats each */
	float *values; /* [rows, 1024], for all tensors and moments */
	uint64_t random;
};

static _Noreturn void fail(const struct job *j, const char *what, const char *message)
{
	printf("FAIL: kill_writer: %s: %s (files are left in %s)\n", what, message, j->folder);
	exit(1);
}

/* Eight large tensors with moments, and a small one that holds the step. */
static void describe(const struct job *j, struct checkpoint_tensor t[TENSORS + 1], float *step)
{
	static const char *const names[TENSORS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	t[0] = (struct checkpoint_tensor){.name = "step", .ndim = 1, .shape = {1}, .values = step};
	for (int i = 0; i < TENSORS; i++)
		t[i + 1] = (struct checkpoint_tensor){.name = (char *)(uintptr_t)names[i],
		                                      .ndim = 2,
		                                      .shape = {j->rows, 1024},
		                                      .values = j->values,
		                                      .exp_avg = j->values,
		                                      .exp_avg_sq = j->values};
}

/* The child: from step on, until it is killed. Each checkpoint that is written goes into the pipe. */
static _Noreturn void write_on(const struct job *j, int64_t step, int pipe_end)
{
	struct favor_error e = {""};
	for (;; step++) {
		struct checkpoint_tensor tensors[TENSORS + 1];
		float value = (float)step;
		describe(j, tensors, &value);
		for (int64_t r = 0; r < j->rows; r++) /* other bytes each time */
			j->values[r * 1024] = value + (float)r;
		struct checkpoint c = {.step = step, .tensor_count = TENSORS + 1, .tensors = tensors};
		char *path = checkpoint_path(j->folder, step);
		if (checkpoint_write(path, &c, &e) || write(pipe_end, &step, sizeof step) != sizeof step ||
		    checkpoint_prune(j->folder, KEEP, &e)) {
			fprintf(stderr, "%s\n", e.message);
			_exit(1);
		}
		free(path);
	}
}

static double draw(struct job *j)
{
	uint64_t z = j->random += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* Runs a child for that time (0: until it has written one); the last step that it is known to have written, or `before`.
 */
static int64_t run_child(struct job *j, int64_t before, double seconds)
{
	int ends[2], status;
	int64_t done = before, step;
	if (pipe(ends))
		fail(j, "pipe", strerror(errno));
	fflush(NULL);
	pid_t child = fork();
	if (child < 0)
		fail(j, "fork", strerror(errno));
	if (child == 0)
		write_on(j, before + 1, ends[1]);
	close(ends[1]);
	if (seconds > 0) {
		struct timespec nap = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
		nanosleep(&nap, NULL);
	} else if (read(ends[0], &step, sizeof step) == sizeof step) {
		done = step;
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (WIFEXITED(status))
		fail(j, "the writer", "ended by itself");
	while (read(ends[0], &step, sizeof step) == sizeof step)
		done = step;
	close(ends[0]);
	return done;
}

/* Whether a file is left that was being written; it is removed, so that it counts once. */
static int interrupted(const struct job *j)
{
	char path[96];
	int found = 0;
	snprintf(path, sizeof path, "%s/checkpoints", j->folder);
	DIR *d = opendir(path);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (strstr(entry->d_name, ".tmp-"))
			found = unlinkat(dirfd(d), entry->d_name, 0) == 0;
	if (d)
		closedir(d);
	return found;
}

/* The step of the checkpoint to go on from. */
static int64_t check(struct job *j, int64_t done)
{
	struct favor_error e = {""};
	struct checkpoint c;
	char digest[17];
	float step = -1;
	struct checkpoint_tensor t = {.name = (char *)(uintptr_t)"step", .ndim = 1, .shape = {1}, .values = &step};
	char *latest = checkpoint_latest(j->folder);
	if (!latest)
		fail(j, "no checkpoint", "none is whole");
	if (checkpoint_verify(latest, digest, &e) || checkpoint_open(latest, &c, &e) ||
	    checkpoint_read_tensors(latest, &t, 1, &e))
		fail(j, latest, e.message);
	if (c.step < done || step != (float)c.step || strcmp(c.digest, digest))
		fail(j, latest, "is older than one that was written, or another one's content");
	int64_t found = c.step;
	checkpoint_free(&c);
	free(latest);
	return found;
}

int main(int argc, char **argv)
{
	struct job j = {.folder = "kill-writer-XXXXXX"};
	int mib = argc > 2 ? atoi(argv[1]) : 0, times = argc > 2 ? atoi(argv[2]) : 0, halfway = 0;
	const char *place = getenv("TMPDIR");
	j.random = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	if (mib < 1 || times < 1) {
		fprintf(stderr, "usage: kill_writer MIB TIMES [SEED]\n");
		return 2;
	}
	snprintf(j.folder, sizeof j.folder, "%.40s/kill-writer-XXXXXX", place ? place : "/tmp");
	if (!mkdtemp(j.folder))
		fail(&j, j.folder, strerror(errno));
	j.rows = ((int64_t)mib << 20) / (TENSORS * 3 * 1024 * (int64_t)sizeof(float)) + 1;
	j.values = favor_malloc((size_t)j.rows * 1024 * sizeof(float));
	for (int64_t i = 0; i < j.rows * 1024; i++)
		j.values[i] = (float)draw(&j);
	double begin = clock_seconds(), one;
	int64_t step = check(&j, run_child(&j, 0, 0));
	one = clock_seconds() - begin;
	for (int i = 0; i < times; i++) {
		step = check(&j, run_child(&j, step, 1e-3 + draw(&j) * 2 * one));
		halfway += interrupted(&j);
	}
	if (halfway == 0)
		fail(&j, "no kill", "came while a checkpoint was being written");
	char *clean = favor_format("rm -rf %s", j.folder);
	if (system(clean))
		fail(&j, clean, "failed");
	printf("ok: %d MiB checkpoints, writer killed %d times (%d in the middle of writing): always a whole one, never an "
	       "older one; %lld written\n", mib, times, halfway, (long long)step);
	free(clean);
	free(j.values);
	return 0;
}
