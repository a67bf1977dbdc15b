/* Data sets: which reader, where images lie, what is reported.
 *
 * Paths of images are untrusted: a data set is often somebody else's file. Nothing outside of data.root (or of the
 * data file's folder, where no root is given; or of the data set's folder) is read, unless data.allow_outside says so.
 * Paths are resolved as text, "." and ".." taken out, so that what is opened can be said beforehand:
 *  - a relative path starts at the root and may not climb out of it;
 *  - an absolute path has to lie inside the root.
 * Links are seen when an image is opened: what the kernel has opened then must lie below the root's real path
 * (record.folder). */
#include "data/dataset.h"

#include "data/dataset_loader.h"
#include "data/label.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

void record_free(struct record *r)
{
	for (int32_t i = 0; i < r->image_count; i++)
		free(r->images[i]);
	free(r->images);
	free(r->label);
	free(r->problem);
	free(r->target);
	free(r->think);
	*r = (struct record){0};
}

void dataset_free(struct dataset *d)
{
	for (int32_t i = 0; i < d->count; i++)
		if (d->packed)
			free(d->records[i].images);
		else
			record_free(&d->records[i]);
	free(d->records);
	free(d->path);
	free(d->folder);
	*d = (struct dataset){0};
}

struct record *loader_record(struct loader *l, int32_t line)
{
	if (l->d->count == l->capacity) {
		if (l->capacity > INT32_MAX / 2)
			favor_die("%s: more than %d records", l->path, INT32_MAX / 2);
		l->capacity = l->capacity ? 2 * l->capacity : 256;
		l->d->records = favor_realloc(l->d->records, (size_t)l->capacity * sizeof *l->d->records);
	}
	struct record *r = &l->d->records[l->d->count++];
	*r = (struct record){.line = line, .folder = l->d->folder};
	return r;
}

void loader_drop(struct loader *l)
{
	record_free(&l->d->records[--l->d->count]);
}

/* Appends the path's components to out ("" or a clean path), "." and ".." resolved as text. -1 if it climbs above
 * `floor`, the length of out that must stay. out has room for strlen(out) + strlen(path) + 2 bytes. */
static int append_clean(char *out, size_t floor, const char *path)
{
	size_t length = strlen(out);
	while (*path) {
		size_t n = strcspn(path, "/");
		if (n == 2 && path[0] == '.' && path[1] == '.') {
			if (length <= floor)
				return -1;
			while (length > floor && out[length - 1] != '/')
				length--;
			if (length > floor)
				length--;
			out[length] = '\0';
		} else if (n > 0 && !(n == 1 && path[0] == '.')) {
			if (length > 0)
				out[length++] = '/';
			memcpy(out + length, path, n);
			length += n;
			out[length] = '\0';
		}
		path += n + (path[n] == '/');
	}
	return 0;
}

/* An absolute path without "." and "..", and without the slash at its start ("" is the root of the file system). */
static char *clean_absolute(const char *path)
{
	char *out = favor_calloc(strlen(path) + 2, 1);
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");
		char *part = favor_format("%.*s", (int)n, p);
		append_clean(out, 0, part); /* the parent of / is / */
		free(part);
		p += n + (p[n] == '/');
	}
	return out;
}

/* path lies below folder; both clean. */
static int lies_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);
	return n == 0 || (strncmp(path, folder, n) == 0 && path[n] == '/');
}

/* Inside the root as the user wrote it, or as it is without links. */
static char *absolute_image(const struct loader *l, const char *image, const char **why)
{
	char *clean = clean_absolute(image), *out = NULL;
	if (!l->fence || lies_below(clean, l->fence) || (l->d->folder && lies_below(clean, l->d->folder + 1)))
		out = favor_format("/%s", clean);
	else
		*why = l->rooted ? "lies outside of data.root; data.allow_outside: true allows it"
		                 : "lies outside of the data file's folder; give data.root, or data.allow_outside: true";
	free(clean);
	return out;
}

/* One text; a million records are too many for printf. */
static char *joined(const char *a, const char *b, const char *c)
{
	const size_t at_b = strlen(a), at_c = at_b + strlen(b), end = at_c + strlen(c);
	char *out = favor_malloc(end + 1);
	memcpy(out, a, at_b);
	memcpy(out + at_b, b, at_c - at_b);
	memcpy(out + at_c, c, end - at_c + 1);
	return out;
}

char *loader_image(const struct loader *l, const char *image, const char **why)
{
	*why = NULL;
	if (label_is_blank(image)) {
		*why = "is empty";
		return NULL;
	}
	if (strlen(image) >= PATH_MAX) {
		*why = "is too long for a path";
		return NULL;
	}
	if (strstr(image, "://")) {
		*why = "is a web address; only files can be read";
		return NULL;
	}
	if (image[0] == '/')
		return absolute_image(l, image, why);
	size_t base = strlen(l->base);
	int slash = base > 0 && l->base[base - 1] == '/'; /* only for the file system's root */
	const char *between = base > 0 && !slash ? "/" : "";
	if (!l->fence)
		return joined(l->base, between, image);
	char *inside = favor_calloc(strlen(image) + 2, 1), *out = NULL;
	if (append_clean(inside, 0, image) != 0)
		*why = "leaves its folder by \"..\"; data.allow_outside: true allows it";
	else if (!inside[0])
		*why = "names a folder";
	else
		out = joined(l->base, between, inside);
	free(inside);
	return out;
}

int loader_takes(struct loader *l, const char *split)
{
	if (split) {
		int known = 0;
		for (int i = 0; i < l->split_count; i++)
			known |= strcmp(l->splits[i], split) == 0;
		if (!known && l->split_count < SPLITS_SHOWN)
			l->splits[l->split_count++] = favor_strdup(split);
	}
	const char *wanted = l->split[0] ? l->split : l->default_split;
	if (!split)
		return !l->split[0];
	return !wanted[0] || strcmp(split, wanted) == 0;
}

int loader_is_text(const struct loader *l, const char *start, size_t n, struct favor_error *e)
{
	if (n >= 2 && (memcmp(start, "\xFF\xFE", 2) == 0 || memcmp(start, "\xFE\xFF", 2) == 0))
		return favor_fail(e, "%s: is UTF-16; save it as UTF-8", l->path);
	return 0;
}

/* Where images start and what they can't leave: data.root, a data set's folder, or the folder of the data file; without
 * slashes at the end. */
static void find_base(struct loader *l, const char *root, int is_folder, int allow_outside)
{
	const char *slash = strrchr(l->path, '/'), *from = is_folder ? l->path : root;
	size_t n = strlen(from);
	while (n > 1 && from[n - 1] == '/')
		n--;
	if (from[0])
		l->base = favor_format("%.*s", (int)n, from);
	else
		l->base = slash == l->path ? favor_strdup("/") : favor_format("%.*s", slash ? (int)(slash - l->path) : 0, l->path);
	l->rooted = from == root && root[0];
	if (allow_outside)
		return;
	char here[PATH_MAX], real[PATH_MAX];
	if (l->base[0] != '/' && !getcwd(here, sizeof here))
		here[0] = '\0';
	char *absolute = l->base[0] == '/' ? favor_strdup(l->base) : favor_format("%s/%s", here, l->base);
	l->fence = clean_absolute(absolute);
	l->d->folder = favor_strdup(realpath(absolute, real) ? real : absolute);
	free(absolute);
}

static int nothing_taken(const struct loader *l, struct favor_error *e)
{
	if (l->split_count == 0)
		return favor_fail(e, "%s: no records in it", l->path);
	char found[512] = "", name[UTF8_SHORT];
	size_t used = 0;
	for (int i = 0; i < l->split_count && used + UTF8_SHORT + 2 < sizeof found; i++) {
		const char *text = utf8_short(l->splits[i], name);
		memcpy(found + used, ", ", 2);
		strcpy(found + used + 2, text);
		used += strlen(text) + 2;
	}
	return favor_fail(e, "%s: no row has split \"%s\" (found: %s); set data.train_split or data.eval_split", l->path,
	                  utf8_short(l->split[0] ? l->split : l->default_split, name), found + 2);
}

static int ends_with(const char *s, const char *ending)
{
	size_t n = strlen(s), m = strlen(ending);
	return n >= m && strcasecmp(s + n - m, ending) == 0;
}

int dataset_load(struct dataset *d, const char *path, const char *root, int allow_outside, const char *split,
                 const char *default_split, struct favor_error *e)
{
	*d = (struct dataset){.path = favor_strdup(path)};
	struct loader l = {
		.d = d, .path = path, .split = split ? split : "", .default_split = default_split ? default_split : ""};
	int rc = -1;
	struct stat info;
	const int there = stat(path, &info) == 0;
	const int why = errno;
	find_base(&l, root ? root : "", there && S_ISDIR(info.st_mode), allow_outside);
	if (!there) {
		favor_fail(e, "%s: can't be opened: %s; data.train and data.eval are paths as seen from where favor is started", path,
		           strerror(why));
	} else if (S_ISDIR(info.st_mode)) {
		rc = dataset_read_folder(&l, e);
	} else if (!S_ISREG(info.st_mode)) {
		favor_fail(e, "%s: neither a file nor a folder", path);
	} else if (ends_with(path, ".jsonl")) {
		rc = dataset_read_jsonl(&l, e);
	} else if (ends_with(path, ".csv")) {
		rc = dataset_read_csv(&l, e);
	} else {
		favor_fail(e, "%s: a data set is a .jsonl file, a .csv file or a folder with one folder per class", path);
	}
	if (rc == 0)
		rc = faults_report(&l.faults, e, path, "faults");
	if (rc == 0 && d->count == 0)
		rc = nothing_taken(&l, e);
	if (rc != 0)
		dataset_free(d);
	free(l.base);
	free(l.fence);
	for (int i = 0; i < l.split_count; i++)
		free(l.splits[i]);
	faults_free(&l.faults);
	return rc;
}
