/* The folder RUN_DIR/checkpoints: names, the newest complete one, and removing old ones. */
#include "checkpoint/checkpoint.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void checkpoint_library(char *text, size_t size)
{
	unsigned major = 0, minor = 0, release = 0;
	H5get_libversion(&major, &minor, &release);
	snprintf(text, size, "HDF5 %u.%u.%u", major, minor, release);
}

char *checkpoint_path(const char *run_dir, int64_t step)
{
	return favor_format("%s/checkpoints/step-%06lld.h5", run_dir, (long long)step);
}

/* The step of "step-000100.h5" and what follows that name, or -1. */
static int64_t parse_name(const char *name, const char **rest)
{
	if (strncmp(name, "step-", 5) != 0)
		return -1;
	size_t digits = strspn(name + 5, "0123456789");
	if (digits < 6 || digits > 18 || strncmp(name + 5 + digits, ".h5", 3) != 0)
		return -1;
	*rest = name + 5 + digits + 3;
	return strtoll(name + 5, NULL, 10);
}

static int newest_first(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x < y) - (x > y);
}

/* Steps in the folder, newest first; the caller frees them. Temporary files left by writers that died are removed if
 * asked. No folder: none, and no error. */
static int64_t *list_steps(const char *run_dir, int remove_temporary, int *count)
{
	int64_t *steps = favor_malloc(0);
	*count = 0;
	char *folder = favor_format("%s/checkpoints", run_dir);
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));) {
		const char *rest;
		int64_t step = parse_name(entry->d_name, &rest);
		if (step >= 0 && !*rest) {
			steps = favor_realloc(steps, ((size_t)*count + 1) * sizeof *steps);
			steps[(*count)++] = step;
		} else if (step >= 0 && remove_temporary && strncmp(rest, ".tmp-", 5) == 0 && isdigit((unsigned char)rest[5])) {
			char *path = favor_format("%s/%s", folder, entry->d_name);
			unlink(path);
			free(path);
		}
	}
	if (d)
		closedir(d);
	free(folder);
	qsort(steps, (size_t)*count, sizeof *steps, newest_first);
	return steps;
}

static int is_complete(const char *path, struct favor_error *e)
{
	struct checkpoint c;
	if (checkpoint_open(path, &c, e) != 0)
		return 0;
	checkpoint_free(&c);
	return 1;
}

char *checkpoint_latest(const char *run_dir)
{
	int count;
	int64_t *steps = list_steps(run_dir, 0, &count);
	char *found = NULL;
	for (int i = 0; i < count && !found; i++) {
		struct favor_error e = {""};
		char *path = checkpoint_path(run_dir, steps[i]);
		if (is_complete(path, &e)) {
			found = path;
		} else {
			fprintf(stderr, "favor: warning: skipping a checkpoint that is not complete: %s\n", e.message);
			free(path);
		}
	}
	free(steps);
	return found;
}

/* Only complete ones count as kept, so that the newest complete one is never removed; what is newer but broken stays to
 * be looked at. */
int checkpoint_prune(const char *run_dir, int keep, struct favor_error *e)
{
	int count, kept = 0, rc = 0;
	int64_t *steps = list_steps(run_dir, 1, &count);
	for (int i = 0; keep > 0 && i < count; i++) {
		char *path = checkpoint_path(run_dir, steps[i]);
		if (kept >= keep) {
			if (unlink(path) != 0 && errno != ENOENT && rc == 0)
				rc = favor_fail(e, "%s: an old checkpoint can't be removed: %s; the folder must be writable", path,
				                strerror(errno));
		} else {
			kept += is_complete(path, NULL);
		}
		free(path);
	}
	free(steps);
	return rc;
}
