/* A folder per class: DIR/class/file. Sorted by bytes, so that the order is the same on every machine. Hidden entries
 * and files that are no images by their name are skipped; a class without an image is a fault, since it would never be
 * learnt. */
#include "data/dataset_loader.h"
#include "data/label.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static void free_entries(struct dirent **entries, int n)
{
	for (int i = 0; i < n; i++)
		free(entries[i]);
	free(entries);
}

static int is_image_name(const char *name)
{
	static const char *const endings[] = {".jpg", ".jpeg", ".png", ".webp"};
	const char *dot = strrchr(name, '.');
	for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
		if (strcasecmp(dot, endings[i]) == 0)
			return 1;
	return 0;
}

static int is_folder(const char *path)
{
	struct stat info;
	return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static void read_class(struct loader *l, const char *folder, const char *name)
{
	struct dirent **files = NULL;
	char shown[UTF8_SHORT];
	int taken = 0, n = scandir(folder, &files, visible, by_bytes);
	if (n < 0) {
		faults_add(&l->faults, "%s: %m", folder);
		return;
	}
	for (int i = 0; i < n; i++) {
		const char *file = files[i]->d_name;
		if (!is_image_name(file))
			continue;
		if (!utf8_valid(file, strlen(file))) {
			faults_add(&l->faults, "%s: the name of file \"%s\" is not UTF-8; rename it", folder,
			           utf8_short(file, shown));
			taken = 1;
			continue;
		}
		char *path = favor_format("%s/%s", folder, file);
		if (is_folder(path)) {
			free(path);
			continue;
		}
		struct record *r = loader_record(l, 0);
		r->images = favor_malloc(sizeof *r->images);
		r->images[r->image_count++] = path;
		r->label = utf8_trim(name, strlen(name));
		r->label_index = LABEL_CLASS;
		taken = 1;
	}
	if (!taken)
		faults_add(&l->faults, "%s: the class has no image (.jpg, .jpeg, .png, .webp)", folder);
	free_entries(files, n);
}

int dataset_read_folder(struct loader *l, struct favor_error *e)
{
	if (l->split[0])
		return favor_fail(
			e, "%s: a folder has no splits, and split \"%s\" was asked for; name the folder of that split instead",
			l->path, l->split);
	struct dirent **classes = NULL;
	int found = 0, n = scandir(l->path, &classes, visible, by_bytes);
	if (n < 0)
		return favor_fail(e, "%s: %m", l->path);
	size_t length = strlen(l->path);
	while (length > 1 && l->path[length - 1] == '/')
		length--;
	for (int i = 0; i < n; i++) {
		const char *name = classes[i]->d_name;
		char *folder = favor_format("%.*s%s%s", (int)length, l->path, l->path[length - 1] == '/' ? "" : "/", name);
		if (is_folder(folder)) {
			found = 1;
			if (label_is_blank(name) || !utf8_valid(name, strlen(name)))
				faults_add(&l->faults, "%s: the folder's name is no label; rename it", folder);
			else
				read_class(l, folder, name);
		}
		free(folder);
	}
	free_entries(classes, n);
	if (!found)
		return favor_fail(e, "%s: no folders in it; a data set folder has one folder per class", l->path);
	return 0;
}
