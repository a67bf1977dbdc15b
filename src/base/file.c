/* Files as bytes and as lines. See file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINES_FIRST = 1 << 16 };

/* Whether the open file lies below the folder: by the kernel's word on what was opened, so that nobody can exchange it
 * in between. */
static int is_below(int fd, const char *path, const char *folder)
{
	char name[64], where[PATH_MAX];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(name, where, sizeof where - 1);
	if (n >= 0)
		where[n] = 0;
	else if (!realpath(path, where)) /* a system without /proc */
		return 0;
	size_t length = strlen(folder);
	return strncmp(where, folder, length) == 0 && (where[length] == '/' || folder[length - 1] == '/');
}

FILE *file_open_below(const char *path, const char *folder, const char *remedy, struct favor_error *e)
{
	struct stat st;
	FILE *f = NULL;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* (does not wait for a pipe's other end) */
	if (fd < 0) {
		favor_fail(e, "%s: can't be opened: %s", path, strerror(errno));
		return NULL;
	}
	if (fstat(fd, &st) != 0)
		favor_fail(e, "%s: can't be read: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		favor_fail(e, "%s: this is no file", path);
	else if (folder && !is_below(fd, path, folder))
		favor_fail(e, "%s: is a link to a place outside of %s%s", path, folder, remedy);
	else if (!(f = fdopen(fd, "rb")))
		favor_fail(e, "%s: can't be read: %s", path, strerror(errno));
	if (!f)
		close(fd);
	return f;
}

FILE *file_open(const char *path, struct favor_error *e)
{
	return file_open_below(path, NULL, "", e);
}

int file_make_folders(const char *path, const char *remedy, struct favor_error *e)
{
	char *part = favor_strdup(path);
	int result = 0;
	for (char *p = part + 1; p[-1] && !result; p++) {
		const char kept = *p;
		if (kept && kept != '/')
			continue;
		*p = 0;
		if (mkdir(part, 0777) != 0 && errno != EEXIST)
			result = favor_fail(e, "%s: the folder can't be made: %s%s", part, strerror(errno), remedy);
		*p = kept;
	}
	free(part);
	return result;
}

char *file_read(const char *path, size_t limit, size_t *n, struct favor_error *e)
{
	struct stat st;
	char *data = NULL;
	FILE *f = file_open(path, e);
	if (!f)
		return NULL;
	if (fstat(fileno(f), &st) != 0) {
		favor_fail(e, "%s: can't be read: %s", path, strerror(errno));
	} else if ((uint64_t)st.st_size > limit) {
		favor_fail(e, "%s: %lld bytes are too many: at most %zu are read", path, (long long)st.st_size, limit);
	} else {
		data = favor_malloc((size_t)st.st_size + 1);
		*n = fread(data, 1, (size_t)st.st_size, f);
		data[*n] = 0;
		if (*n != (size_t)st.st_size) {
			favor_fail(e, "%s: can't be read: %s", path, ferror(f) ? strerror(errno) : "the file became shorter");
			free(data);
			data = NULL;
		}
	}
	fclose(f);
	return data;
}

/* Makes room behind what is held: moves it to the front, or takes more memory, up to a line of the limit and one byte.
 */
static int make_room(struct lines *l)
{
	if (l->at > 0) {
		memmove(l->buffer, l->buffer + l->at, l->end - l->at);
		l->end -= l->at;
		l->at = 0;
	}
	if (l->end > l->limit)
		return -1;
	if (l->end + 1 >= l->capacity) {
		size_t most = l->limit + 2;
		l->capacity = l->capacity ? 2 * l->capacity : LINES_FIRST;
		l->capacity = l->capacity > most ? most : l->capacity;
		l->buffer = favor_realloc(l->buffer, l->capacity);
	}
	return 0;
}

int lines_next(struct lines *l)
{
	if (l->text) { /* step over the line before */
		l->at += l->n;
		l->start += (int64_t)l->n;
		l->buffer[l->at] = l->held;
	}
	l->text = NULL;
	l->number++;
	for (size_t looked = 0;;) {
		char *feed = looked < l->end - l->at ? memchr(l->buffer + l->at + looked, '\n', l->end - l->at - looked) : NULL;
		looked = l->end - l->at;
		size_t n = feed ? (size_t)(feed - (l->buffer + l->at)) + 1 : looked;
		if (n > l->limit)
			return LINES_LONG;
		if (!feed) {
			if (make_room(l) != 0)
				return LINES_LONG;
			size_t got = fread(l->buffer + l->end, 1, l->capacity - 1 - l->end, l->file);
			l->end += got;
			if (got > 0)
				continue;
			if (ferror(l->file))
				return LINES_FAILED;
			if (n == 0)
				return LINES_END;
		}
		l->text = l->buffer + l->at;
		l->n = n;
		l->held = l->text[n];
		l->text[n] = 0;
		return LINES_ONE;
	}
}

int lines_fail(const struct lines *l, int result, const char *path, struct favor_error *e)
{
	if (result == LINES_LONG)
		return favor_fail(e, "%s:%lld: the line is longer than %zu bytes; is this the right file?", path,
		                  (long long)l->number, l->limit);
	return favor_fail(e, "%s:%lld: reading failed: %s", path, (long long)l->number, strerror(errno));
}

void lines_free(struct lines *l)
{
	free(l->buffer);
	*l = (struct lines){0};
}
