/* The class list: names in their order, aliases, and every record's place in it. Labels are compared in their normal
 * form (label.h), so that "air_hockey" of a folder and "Air hockey" of a list are one class. */
#include "base/file.h"
#include "data/dataset_loader.h"
#include "data/label.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_LINE_MAX = 1 << 16, ALIASES_MAX = 16 << 20 }; /* bytes of a line of classes_file; of the aliases' file */

static int given(const char *s)
{
	return s && s[0];
}

void classes_free(struct class_list *c)
{
	for (int32_t i = 0; i < c->count; i++)
		free(c->names[i]);
	for (int32_t i = 0; c->alias_start && i < c->alias_start[c->count]; i++)
		free(c->aliases[i]);
	free(c->names);
	free(c->alias_start);
	free(c->aliases);
	*c = (struct class_list){0};
}

/* Appends a name; `map` is from normal forms to class indices. place says where the name stands: "data.classes",
 * "classes.txt:3". */
static int add_name(struct class_list *c, struct label_map *map, const char *text, const char *place,
                    struct favor_error *e)
{
	char shown[UTF8_SHORT], other[UTF8_SHORT];
	if (label_is_blank(text))
		return favor_fail(e, "%s: a class name is empty", place);
	if (!utf8_valid(text, strlen(text)))
		return favor_fail(e, "%s: class name \"%s\" is not UTF-8", place, utf8_short(text, shown));
	char *normal = label_normalise(text, strlen(text));
	int32_t same = label_map_get(map, normal);
	if (same < 0) {
		label_map_put(map, normal, c->count);
		c->names = favor_realloc(c->names, ((size_t)c->count + 1) * sizeof *c->names);
		c->names[c->count++] = utf8_trim(text, strlen(text));
	}
	free(normal);
	if (same >= 0)
		return favor_fail(e, "%s: class \"%s\" is there twice (the other is \"%s\")", place, utf8_short(text, shown),
		                  utf8_short(c->names[same], other));
	return 0;
}

static int names_from_list(struct class_list *c, struct label_map *map, const struct string_list *list,
                           struct favor_error *e)
{
	for (int i = 0; i < list->count; i++)
		if (add_name(c, map, list->items[i], "data.classes", e) != 0)
			return -1;
	return 0;
}

static int names_from_file(struct class_list *c, struct label_map *map, const char *path, struct favor_error *e)
{
	struct lines lines = {.file = file_open(path, e), .limit = CLASS_LINE_MAX};
	if (!lines.file)
		return favor_fail_prefix(e, "data.classes_file");
	int rc = 0, found = LINES_END;
	while (rc == 0 && (found = lines_next(&lines)) == LINES_ONE) {
		const char *name = lines.text + (lines.number == 1 ? utf8_mark(lines.text, lines.n) : 0);
		char *place = favor_format("%s:%lld", path, (long long)lines.number);
		if (strlen(lines.text) != lines.n)
			rc = favor_fail(e, "%s: holds a NUL byte; a list of classes is a text file", place);
		else if (name[strspn(name, " \t\r\n")])
			rc = add_name(c, map, name, place, e);
		free(place);
	}
	if (rc == 0 && found < 0)
		rc = lines_fail(&lines, found, path, e);
	if (rc == 0 && c->count == 0)
		rc = favor_fail(e, "%s: no class in it; one name a line is expected", path);
	fclose(lines.file);
	lines_free(&lines);
	return rc;
}

struct spelling {
	const char *label; /* borrowed from a record; the smallest by bytes of one class's spellings */
	char *normal;      /* owned */
};

static int by_label(const void *a, const void *b)
{
	return strcmp(((const struct spelling *)a)->label, ((const struct spelling *)b)->label);
}

/* Sorted labels of the records that are no open questions; spellings with one normal form are one class. */
static void names_from_records(struct class_list *c, struct label_map *map, struct dataset *const sets[2])
{
	struct label_map seen = {0}, found = {0}; /* labels as written; normal forms to spellings */
	struct spelling *spellings = NULL;
	int32_t count = 0, capacity = 0;
	for (int s = 0; s < 2; s++) {
		for (int32_t i = 0; sets[s] && i < sets[s]->count; i++) {
			const struct record *r = &sets[s]->records[i];
			if (r->label_index == LABEL_OPEN || label_map_get(&seen, r->label) >= 0)
				continue;
			label_map_put(&seen, r->label, 0);
			char *normal = label_normalise(r->label, strlen(r->label));
			int32_t at = label_map_get(&found, normal);
			if (at >= 0) {
				if (strcmp(r->label, spellings[at].label) < 0)
					spellings[at].label = r->label;
				free(normal);
				continue;
			}
			if (count == capacity) {
				capacity = capacity ? 2 * capacity : 64;
				spellings = favor_realloc(spellings, (size_t)capacity * sizeof *spellings);
			}
			label_map_put(&found, normal, count);
			spellings[count++] = (struct spelling){r->label, normal};
		}
	}
	if (count > 0)
		qsort(spellings, (size_t)count, sizeof *spellings, by_label);
	c->names = favor_malloc((size_t)count * sizeof *c->names);
	for (int32_t i = 0; i < count; i++) {
		label_map_put(map, spellings[i].normal, i);
		c->names[i] = favor_strdup(spellings[i].label);
		free(spellings[i].normal);
	}
	c->count = count;
	free(spellings);
	label_map_free(&seen);
	label_map_free(&found);
}

static void place_records(const struct class_list *c, const struct label_map *map, struct dataset *d, int listed,
                          const char *list, struct faults *faults)
{
	struct label_map seen = {0}; /* labels as written, to spare most of the normalising */
	for (int32_t i = 0; i < d->count; i++) {
		struct record *r = &d->records[i];
		if (r->label_index == LABEL_OPEN && !listed)
			continue;
		int32_t index = label_map_get(&seen, r->label);
		if (index < 0) {
			char *normal = label_normalise(r->label, strlen(r->label));
			index = label_map_get(map, normal);
			free(normal);
			if (index >= 0)
				label_map_put(&seen, r->label, index);
		}
		if (index >= 0) {
			r->label_index = index;
			continue;
		}
		if (faults->count >= FAULTS_SHOWN) {
			faults->count++; /* the search for the nearest is for what is shown */
			continue;
		}
		char shown[UTF8_SHORT], near[UTF8_SHORT];
		utf8_short(r->label, shown);
		utf8_short(c->names[label_nearest(r->label, c->names, c->count)], near);
		if (r->line > 0)
			faults_add(faults, "%s:%d: label \"%s\" is not in %s (nearest: \"%s\")", d->path, r->line, shown, list,
			           near);
		else
			faults_add(faults, "%s: label \"%s\" is not in %s (nearest: \"%s\")", r->images[0], shown, list, near);
	}
	label_map_free(&seen);
}

/* One alias of class `index` at the end of c->aliases, if it says anything new. `aliases` is from normal forms to
 * classes. */
static int add_alias(struct class_list *c, const struct label_map *map, struct label_map *aliases, int32_t index,
                     const json_t *value, int32_t *count, const char *path, struct favor_error *e)
{
	const char *text = json_string_value(value);
	char shown[UTF8_SHORT], other[UTF8_SHORT];
	utf8_short(c->names[index], other);
	if (!text || label_is_blank(text))
		return favor_fail(e, "%s: an alias of \"%s\" is %s", path, other, text ? "empty" : "not a string");
	char *normal = label_normalise(text, strlen(text));
	int32_t name = label_map_get(map, normal), before = label_map_get(aliases, normal);
	int rc = 0;
	utf8_short(text, shown);
	if (name >= 0 && name != index) {
		rc = favor_fail(e, "%s: alias \"%s\" of \"%s\" is itself a class", path, shown, other);
	} else if (before >= 0 && before != index) {
		char first[UTF8_SHORT];
		rc = favor_fail(e, "%s: alias \"%s\" is given to both \"%s\" and \"%s\"", path, shown,
		                utf8_short(c->names[before], first), other);
	} else if (name < 0 && before < 0) {
		label_map_put(aliases, normal, index);
		c->aliases = favor_realloc(c->aliases, ((size_t)*count + 1) * sizeof *c->aliases);
		c->aliases[(*count)++] = utf8_trim(text, strlen(text));
	}
	free(normal);
	return rc;
}

/* {"label": ["alias", ...], ...} into c->aliases and alias_start. */
static int read_aliases(struct class_list *c, const struct label_map *map, const char *path, struct favor_error *e)
{
	json_error_t fault;
	char shown[UTF8_SHORT], near[UTF8_SHORT];
	size_t n = 0;
	char *text = file_read(path, ALIASES_MAX, &n, e);
	const size_t mark = text ? utf8_mark(text, n) : 0;
	json_t *file = text ? json_loadb(text + mark, n - mark, JSON_REJECT_DUPLICATES, &fault) : NULL;
	struct label_map aliases = {0};
	json_t **lists = favor_calloc((size_t)c->count, sizeof *lists); /* borrowed, by class */
	const char *key;
	json_t *value;
	int rc = -1;
	int32_t count = 0;
	if (!file) {
		if (!text)
			favor_fail_prefix(e, "data.aliases");
		else
			favor_fail(e, "%s:%d:%d: not JSON: %s", path, fault.line, fault.column, utf8_short(fault.text, shown));
		goto done;
	}
	if (!json_is_object(file)) {
		favor_fail(e, "%s: must be an object like {\"label\": [\"alias\", ...]}", path);
		goto done;
	}
	json_object_foreach (file, key, value) {
		char *normal = label_normalise(key, strlen(key));
		int32_t index = label_map_get(map, normal);
		free(normal);
		utf8_short(key, shown);
		if (index < 0) {
			int32_t nearest = label_nearest(key, c->names, c->count);
			favor_fail(e, "%s: \"%s\" is no class (nearest: \"%s\")", path, shown,
			           nearest < 0 ? "there are none" : utf8_short(c->names[nearest], near));
			goto done;
		}
		if (lists[index] || !json_is_array(value)) {
			favor_fail(e, "%s: \"%s\" %s", path, shown,
			           lists[index] ? "is there twice" : "must have an array of aliases");
			goto done;
		}
		lists[index] = value;
	}
	for (int32_t i = 0; i < c->count; i++) {
		for (size_t k = 0; k < json_array_size(lists[i]); k++) {
			if (add_alias(c, map, &aliases, i, json_array_get(lists[i], k), &count, path, e) != 0) {
				c->alias_start[c->count] = count; /* classes_free counts by it */
				goto done;
			}
		}
		c->alias_start[i + 1] = count;
	}
	rc = 0;
done:
	json_decref(file);
	free(text);
	label_map_free(&aliases);
	free(lists);
	return rc;
}

int classes_build(struct class_list *c, const struct data_options *o, struct dataset *train, struct dataset *eval,
                  struct favor_error *e)
{
	struct dataset *const sets[2] = {train, eval};
	struct label_map map = {0};
	struct faults faults = {0};
	int listed = o->classes.count > 0 || given(o->classes_file), rc = -1;
	const char *list = o->classes.count > 0 ? "data.classes" : o->classes_file;
	const char *title = train ? train->path : eval ? eval->path : ""; /* of the message; without sets there is none */
	*c = (struct class_list){0};
	if (o->classes.count > 0 && given(o->classes_file)) {
		favor_fail(e, "data.classes and data.classes_file are both given; leave one out");
		goto done;
	}
	if (o->classes.count > 0) {
		if (names_from_list(c, &map, &o->classes, e) != 0)
			goto done;
	} else if (listed) {
		if (names_from_file(c, &map, o->classes_file, e) != 0)
			goto done;
	} else {
		names_from_records(c, &map, sets);
	}
	c->alias_start = favor_calloc((size_t)c->count + 1, sizeof *c->alias_start);
	for (int s = 0; s < 2; s++)
		if (sets[s])
			place_records(c, &map, sets[s], listed, list, &faults);
	if (faults_report(&faults, e, title, "labels outside of the class list") != 0)
		goto done;
	if (given(o->aliases) && read_aliases(c, &map, o->aliases, e) != 0)
		goto done;
	rc = 0;
done:
	label_map_free(&map);
	faults_free(&faults);
	if (rc != 0)
		classes_free(c);
	return rc;
}
