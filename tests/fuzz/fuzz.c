#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES_MAX = 16 };

static char *the_folder;
static struct {
	const char *name;
	char *path;
} the_paths[NAMES_MAX];

_Noreturn void fuzz_broken(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
	abort();
}

void fuzz_want_message(const struct favor_error *e, const char *names)
{
	size_t n = strlen(e->message);
	if (n == 0 || e->message[n - 1] == '\n' || !strstr(e->message, names)) {
		fprintf(stderr, "the message is \"%s\", and should name \"%s\"\n", e->message, names);
		abort();
	}
}

int fuzz_parts(const uint8_t *data, size_t size, struct fuzz_part parts[FUZZ_PARTS])
{
	const char *at = (const char *)data;
	int count = 0;
	memset(parts, 0, FUZZ_PARTS * sizeof *parts);
	while (count < FUZZ_PARTS) {
		const char *cut = size && count + 1 < FUZZ_PARTS ? memmem(at, size, FUZZ_CUT, strlen(FUZZ_CUT)) : NULL;
		size_t n = cut ? (size_t)(cut - at) : size;
		parts[count++] = (struct fuzz_part){at, n};
		if (!cut)
			break;
		at += n + strlen(FUZZ_CUT);
		size -= n + strlen(FUZZ_CUT);
	}
	return count;
}

char *fuzz_text(struct fuzz_part part)
{
	char *s = favor_malloc(part.n + 1);
	if (part.n)
		memcpy(s, part.data, part.n);
	s[part.n] = 0;
	return s;
}

static void remove_all(const char *folder)
{
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		char *path = favor_format("%s/%s", folder, entry->d_name);
		struct stat st;
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			remove_all(path);
		else
			unlink(path);
		free(path);
	}
	if (d)
		closedir(d);
	rmdir(folder);
}

static void clean_up(void)
{
	if (the_folder)
		remove_all(the_folder);
	free(the_folder);
	the_folder = NULL;
	for (int i = 0; i < NAMES_MAX; i++) {
		free(the_paths[i].path);
		the_paths[i].path = NULL;
	}
}

const char *fuzz_folder(void)
{
	if (the_folder)
		return the_folder;
	const char *base = getenv("TMPDIR");
	if (!base || !*base)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	the_folder = favor_format("%s/favor-fuzz-XXXXXX", base);
	if (!mkdtemp(the_folder))
		fuzz_broken(__FILE__, __LINE__, "a folder can be made");
	atexit(clean_up);
	return the_folder;
}

const char *fuzz_path(const char *name)
{
	int i = 0;
	while (the_paths[i].path && strcmp(the_paths[i].name, name))
		FUZZ_WANT(++i < NAMES_MAX);
	if (!the_paths[i].path) {
		the_paths[i].name = name;
		the_paths[i].path = favor_format("%s/%s", fuzz_folder(), name);
	}
	return the_paths[i].path;
}

const char *fuzz_write(const char *name, struct fuzz_part content)
{
	const char *path = fuzz_path(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_WANT(fd >= 0);
	FUZZ_WANT(content.n == 0 || write(fd, content.data, content.n) == (ssize_t)content.n);
	close(fd);
	return path;
}

void fuzz_remove(const char *name)
{
	unlink(fuzz_path(name));
}
