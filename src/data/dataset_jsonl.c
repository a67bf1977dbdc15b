/* JSON lines: one object a line, each parsed alone, so that memory holds one line and a bad line spoils nothing else.
 * Keys that favor does not know are left alone: data sets carry ids, boxes and notes of their own. */
#include "base/file.h"
#include "data/dataset_loader.h"
#include "data/label.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *kind(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "an array";
	case JSON_STRING: return "a string";
	case JSON_NULL: return "null";
	case JSON_TRUE:
	case JSON_FALSE: return "a truth value";
	default: return "a number";
	}
}

/* " (found: image, lable)", into text. */
static const char *keys_found(json_t *line, char text[256])
{
	char name[UTF8_SHORT];
	const char *key;
	json_t *value;
	size_t used = 0;
	text[0] = '\0';
	json_object_foreach (line, key, value) {
		const char *shown = utf8_short(key, name);
		if (used + strlen(shown) + 12 > 256)
			break;
		used += (size_t)snprintf(text + used, 256 - used, "%s%s", used ? ", " : "", shown);
	}
	return used ? text : "no keys";
}

/* The value of a key, NULL if the key is absent or null. *bad is set (and a fault added) if it is there but no text, or
 * blank. Owned by the caller. */
static char *text_of(struct loader *l, json_t *line, const char *key, int32_t number, int *bad)
{
	json_t *value = json_object_get(line, key);
	if (!value || json_is_null(value))
		return NULL;
	if (!json_is_string(value)) {
		faults_add(&l->faults, "%s:%d: key \"%s\" must be a string, but is %s", l->path, number, key, kind(value));
		*bad = 1;
		return NULL;
	}
	if (label_is_blank(json_string_value(value))) {
		faults_add(&l->faults, "%s:%d: key \"%s\" is empty", l->path, number, key);
		*bad = 1;
		return NULL;
	}
	return favor_strdup(json_string_value(value));
}

/* The same without white space at its ends. */
static char *name_of(struct loader *l, json_t *line, const char *key, int32_t number, int *bad)
{
	char *text = text_of(l, line, key, number, bad), *name = text ? utf8_trim(text, strlen(text)) : NULL;
	free(text);
	return name;
}

static int add_image(struct loader *l, struct record *r, const json_t *value)
{
	const char *why;
	char name[UTF8_SHORT];
	if (!json_is_string(value)) {
		faults_add(&l->faults, "%s:%d: key \"image\" must be a path or an array of paths, but holds %s", l->path,
		           r->line, kind(value));
		return -1;
	}
	char *file = loader_image(l, json_string_value(value), &why);
	if (!file) {
		faults_add(&l->faults, "%s:%d: image \"%s\" %s", l->path, r->line, utf8_short(json_string_value(value), name),
		           why);
		return -1;
	}
	r->images[r->image_count++] = file;
	return 0;
}

static int read_images(struct loader *l, struct record *r, json_t *line)
{
	json_t *value = json_object_get(line, "image");
	size_t n = json_is_array(value) ? json_array_size(value) : 1;
	if (!value || json_is_null(value) || n == 0) {
		if (r->problem)
			return 0; /* text alone */
		char found[256];
		faults_add(&l->faults,
		           "%s:%d: key \"image\" is missing (found: %s); only a record with its own \"problem\" can do without",
		           l->path, r->line, keys_found(line, found));
		return -1;
	}
	r->images = favor_calloc(n, sizeof *r->images);
	if (!json_is_array(value))
		return add_image(l, r, value);
	for (size_t i = 0; i < n; i++)
		if (add_image(l, r, json_array_get(value, i)) != 0)
			return -1;
	return 0;
}

/* The label that a solution gives: what stands in its one <answer>...</answer>, or all of it where there are no such
 * tags. NULL if the tags are no pair or hold nothing. Owned by the caller. */
static char *solution_label(const char *solution)
{
	static const char open[] = "<answer>", close[] = "</answer>";
	const char *start = strstr(solution, open), *end = strstr(solution, close);
	if (!start && !end)
		return favor_strdup(solution);
	if (!start || !end || end < start)
		return NULL;
	start += strlen(open);
	if (strstr(start, open) || strstr(end + 1, close))
		return NULL;
	char *label = utf8_trim(start, (size_t)(end - start));
	if (!label_is_blank(label))
		return label;
	free(label);
	return NULL;
}

static int read_label(struct loader *l, struct record *r, json_t *line)
{
	int bad = 0, rc = -1;
	char *label = name_of(l, line, "label", r->line, &bad), *given = NULL;
	char *solution = name_of(l, line, "solution", r->line, &bad);
	if (bad)
		goto done;
	if (!label && !solution) {
		char found[256];
		faults_add(&l->faults, "%s:%d: key \"label\" is missing (found: %s)", l->path, r->line,
		           keys_found(line, found));
		goto done;
	}
	if (solution && !(given = solution_label(solution))) {
		char text[UTF8_SHORT];
		faults_add(&l->faults, "%s:%d: solution \"%s\" must hold one <answer>...</answer> with the label in it",
		           l->path, r->line, utf8_short(solution, text));
		goto done;
	}
	if (label && given) {
		char *a = label_normalise(label, strlen(label)), *b = label_normalise(given, strlen(given));
		int same = strcmp(a, b) == 0;
		char one[UTF8_SHORT], two[UTF8_SHORT];
		free(a);
		free(b);
		if (!same) {
			faults_add(&l->faults, "%s:%d: label \"%s\" and solution \"%s\" differ", l->path, r->line,
			           utf8_short(label, one), utf8_short(given, two));
			goto done;
		}
	}
	/* its own question with a solution: not one of a class list, unless the user gives one */
	r->label_index = !label && r->problem ? LABEL_OPEN : LABEL_CLASS;
	if (label) {
		r->label = label;
		label = NULL;
	} else {
		r->label = given;
		given = NULL;
	}
	rc = 0;
done:
	free(label);
	free(solution);
	free(given);
	return rc;
}

/* The trace goes between <think> and </think> of the SFT target, so it can't bring tags of its own. */
static int read_think(struct loader *l, struct record *r, json_t *line)
{
	static const char *const tags[] = {"<think>", "</think>", "<answer>", "</answer>"};
	int bad = 0;
	r->think = text_of(l, line, "think", r->line, &bad);
	for (int i = 0; r->think && i < 4 && !bad; i++) {
		if (strstr(r->think, tags[i])) {
			faults_add(&l->faults, "%s:%d: key \"think\" holds the tag %s; give the reasoning alone", l->path, r->line,
			           tags[i]);
			bad = 1;
		}
	}
	return bad ? -1 : 0;
}

/* A record, or a fault, or nothing if the line is of another split. */
static void read_object(struct loader *l, json_t *line, int32_t number)
{
	int bad = 0;
	char *split = name_of(l, line, "split", number, &bad);
	if (!split && !bad && l->split[0]) {
		faults_add(&l->faults, "%s:%d: key \"split\" is missing, and split \"%s\" was asked for", l->path, number,
		           l->split);
		bad = 1;
	}
	int taken = !bad && loader_takes(l, split);
	free(split);
	if (!taken)
		return;
	struct record *r = loader_record(l, number);
	r->problem = text_of(l, line, "problem", number, &bad);
	/* other trainers put the image where this stands; here it would be text */
	if (r->problem && strstr(r->problem, "<image>")) {
		faults_add(&l->faults, "%s:%d: key \"problem\" holds <image>; images are placed before the text by themselves: take it out",
		           l->path, number);
		bad = 1;
	}
	r->target = text_of(l, line, "target", number, &bad);
	if (bad || read_think(l, r, line) != 0 || read_images(l, r, line) != 0 || read_label(l, r, line) != 0)
		loader_drop(l);
}

int dataset_read_jsonl(struct loader *l, struct favor_error *e)
{
	struct lines lines = {.file = file_open(l->path, e), .limit = DATASET_LINE_MAX};
	if (!lines.file)
		return -1;
	int found = LINES_END, rc = 0;
	while (lines.number < INT32_MAX && (found = lines_next(&lines)) == LINES_ONE) {
		const char *text = lines.text;
		const int32_t number = (int32_t)lines.number;
		size_t start = number == 1 ? utf8_mark(text, lines.n) : 0;
		size_t length = lines.n - start;
		if (number == 1 && (rc = loader_is_text(l, text, lines.n, e)) != 0)
			goto done;
		if (number % 1024 == 0)
			favor_alive();
		if (strspn(text + start, " \t\r\n") == length)
			continue;
		json_error_t fault;
		json_t *line = json_loadb(text + start, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &fault);
		char shown[UTF8_SHORT];
		if (!line)
			faults_add(&l->faults, "%s:%d:%d: not JSON: %s", l->path, number, fault.column,
			           utf8_short(fault.text, shown));
		else if (!json_is_object(line))
			faults_add(&l->faults, "%s:%d: must be an object like {\"image\": ..., \"label\": ...}, but is %s", l->path,
			           number, kind(line));
		else
			read_object(l, line, number);
		json_decref(line);
	}
	if (found < 0)
		rc = lines_fail(&lines, found, l->path, e);
	else if (found == LINES_ONE)
		rc = favor_fail(e, "%s: more than %d lines", l->path, INT32_MAX);
done:
	fclose(lines.file);
	lines_free(&lines);
	return rc;
}
