/* Reads what a run left behind, for the report. A run may be still going on, killed, or moved from another machine:
 * apart from metrics.jsonl everything may be missing, and what is broken is noted and left out. */
#include "base/file.h"
#include "report/report_parts.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

#define CONFIG_MAX_BYTES ((size_t)1 << 20)
#define EVAL_MAX_BYTES ((size_t)1 << 30)

char *read_whole(const char *path, size_t limit, size_t *n)
{
	struct text t = {0};
	struct stat st;
	char buffer[16384];
	size_t got;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* before opening: a pipe would wait for its writer */
		errno = EINVAL;
		return NULL;
	}
	FILE *f = fopen(path, "re");
	if (!f)
		return NULL;
	text_add(&t, "");
	while ((got = fread(buffer, 1, sizeof buffer, f)) > 0 && t.n <= limit)
		text_bytes(&t, buffer, got);
	int why = ferror(f) ? EIO : t.n > limit ? EFBIG : 0;
	fclose(f);
	if (why) {
		text_free(&t);
		errno = why;
		return NULL;
	}
	*n = t.n;
	return t.data;
}

void run_data_note(struct run_data *d, const char *format, ...)
{
	va_list args;
	char line[FAVOR_ERROR_MAX];
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	text_add(&d->notes, "<li>");
	text_html(&d->notes, line, strlen(line));
	text_add(&d->notes, "</li>");
}

/* ---- metrics.jsonl ---- */

static void table_grow(struct table *t)
{
	if (t->rows < t->capacity)
		return;
	int32_t capacity = t->capacity ? 2 * t->capacity : 256;
	t->step = favor_realloc(t->step, sizeof(double) * (size_t)capacity);
	for (int32_t c = 0; c < t->columns; c++)
		t->column[c].values = favor_realloc(t->column[c].values, sizeof(double) * (size_t)capacity);
	t->capacity = capacity;
}

/* The values of that name, all NaN if it is new; NULL if there are too many names. */
static double *table_column(struct table *t, const char *name)
{
	for (int32_t c = 0; c < t->columns; c++)
		if (strcmp(t->column[c].name, name) == 0)
			return t->column[c].values;
	if (t->columns == TABLE_MAX_COLUMNS)
		return NULL;
	t->column = favor_realloc(t->column, sizeof *t->column * (size_t)(t->columns + 1));
	double *values = favor_malloc(sizeof(double) * (size_t)t->capacity);
	for (int32_t i = 0; i < t->rows; i++)
		values[i] = NAN;
	t->column[t->columns++] = (struct column){favor_strdup(name), values};
	return values;
}

static int table_add(struct table *t, const char *line, size_t n)
{
	json_t *o = json_loadb(line, n, 0, NULL), *value;
	json_t *step = json_object_get(o, "step");
	const char *key;
	if (!json_is_number(step)) {
		json_decref(o);
		return -1;
	}
	table_grow(t);
	int32_t row = t->rows++;
	t->step[row] = json_number_value(step);
	for (int32_t c = 0; c < t->columns; c++)
		t->column[c].values[row] = NAN;
	json_object_foreach (o, key, value) {
		double *values = json_is_number(value) && value != step ? table_column(t, key) : NULL;
		if (values)
			values[row] = json_number_value(value);
	}
	json_decref(o);
	return 0;
}

static int load_metrics(struct run_data *d, struct favor_error *e)
{
	char *path = favor_format("%s/metrics.jsonl", d->dir);
	int64_t broken = 0, first_broken = 0;
	int result = -1, found;
	struct lines lines = {.file = file_open(path, e), .limit = LINE_MAX_BYTES};
	if (!lines.file) {
		const struct favor_error why = *e;
		favor_fail(e, "%s; give the folder of a run (its run.dir)", why.message);
		goto done;
	}
	while ((found = lines_next(&lines)) == LINES_ONE) {
		if (table_add(&d->metrics, lines.text, lines.n) == 0 || lines.text[lines.n - 1] != '\n')
			continue; /* without a line end: being written just now */
		if (broken++ == 0)
			first_broken = lines.number;
	}
	if (found < 0) {
		lines_fail(&lines, found, path, e);
		goto done;
	}
	if (broken > 0)
		run_data_note(d,
		              "metrics.jsonl: %lld lines are not a step's metrics and were left out, the first is line %lld.",
		              (long long)broken, (long long)first_broken);
	if (d->metrics.rows == 0)
		run_data_note(d, "metrics.jsonl has no step yet.");
	result = 0;
done:
	if (lines.file)
		fclose(lines.file);
	lines_free(&lines);
	free(path);
	return result;
}

/* ---- config.yaml ---- */

static void keep_fact(struct run_data *d, const char *path, const char *value)
{
	d->facts = favor_realloc(d->facts, sizeof *d->facts * (size_t)(d->fact_count + 1));
	d->facts[d->fact_count++] = (struct fact){favor_strdup(path), favor_strdup(value)};
}

/* Scalars of two levels, "section.key"; deeper ones and lists are in the text that the page shows anyway. */
static int parse_facts(struct run_data *d)
{
	yaml_parser_t parser;
	yaml_event_t event;
	char section[128] = "", key[128] = "";
	int depth = 0, lists = 0, ok = 1, over = 0;
	if (!yaml_parser_initialize(&parser))
		favor_die("libyaml can't make a parser");
	yaml_parser_set_input_string(&parser, (const unsigned char *)d->config, strlen(d->config));
	while (!over) {
		if (!yaml_parser_parse(&parser, &event)) {
			ok = 0;
			break;
		}
		switch (event.type) {
		case YAML_SCALAR_EVENT: {
			const char *s = (const char *)event.data.scalar.value;
			if (lists > 0 || depth > 2 || depth == 0) {
				break;
			} else if (!key[0]) {
				snprintf(key, sizeof key, "%s", s);
			} else {
				char path[300];
				snprintf(path, sizeof path, "%s%s%s", depth == 2 ? section : "", depth == 2 ? "." : "", key);
				keep_fact(d, path, s);
				key[0] = 0;
			}
			break;
		}
		case YAML_MAPPING_START_EVENT:
			if (lists == 0 && ++depth == 2)
				snprintf(section, sizeof section, "%s", key);
			key[0] = 0;
			break;
		case YAML_MAPPING_END_EVENT:
			if (lists == 0)
				depth--;
			key[0] = 0;
			break;
		case YAML_SEQUENCE_START_EVENT:
			lists++;
			break;
		case YAML_SEQUENCE_END_EVENT:
			lists--;
			key[0] = 0;
			break;
		case YAML_ALIAS_EVENT:
			key[0] = 0;
			break;
		case YAML_STREAM_END_EVENT:
			over = 1;
			break;
		default:
			break;
		}
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	return ok ? 0 : -1;
}

static void load_config(struct run_data *d)
{
	char *path = favor_format("%s/config.yaml", d->dir);
	size_t n;
	d->config = read_whole(path, CONFIG_MAX_BYTES, &n);
	if (!d->config)
		run_data_note(d, "config.yaml: %s; the run's facts are missing.", strerror(errno));
	else if (parse_facts(d) != 0)
		run_data_note(d, "config.yaml is not valid YAML; the run's facts may be incomplete.");
	free(path);
}

/* ---- eval-*.json ---- */

static int64_t eval_rank(const char *name)
{
	char *end;
	if (strcmp(name, "before") == 0)
		return -1;
	if (strncmp(name, "step-", 5) == 0) {
		long long step = strtoll(name + 5, &end, 10);
		if (end != name + 5 && *end == 0 && step >= 0)
			return step;
	}
	return strcmp(name, "after") == 0 ? INT64_MAX - 1 : INT64_MAX;
}

static int by_rank(const void *a, const void *b)
{
	const struct eval_file *x = a, *y = b;
	return x->rank != y->rank ? (x->rank < y->rank ? -1 : 1) : strcmp(x->name, y->name);
}

static void load_eval(struct run_data *d, const char *file)
{
	char *path = favor_format("%s/%s", d->dir, file);
	size_t n = 0;
	json_error_t why;
	char *data = read_whole(path, EVAL_MAX_BYTES, &n);
	json_t *root = data ? json_loadb(data, n, 0, &why) : NULL;
	if (!data)
		run_data_note(d, "%s: %s; it was left out.", file, strerror(errno));
	else if (!root)
		run_data_note(d, "%s, line %d: %s; it was left out.", file, why.line, why.text);
	else if (!json_is_number(json_object_get(root, "accuracy"))) {
		run_data_note(d, "%s is no evaluation (it has no \"accuracy\"); it was left out.", file);
		json_decref(root);
		root = NULL;
	}
	if (root) {
		d->evals = favor_realloc(d->evals, sizeof *d->evals * (size_t)(d->eval_count + 1));
		char *name = favor_format("%.*s", (int)(strlen(file) - strlen("eval-.json")), file + strlen("eval-"));
		d->evals[d->eval_count++] = (struct eval_file){name, eval_rank(name), root};
	}
	free(data);
	free(path);
}

static void load_evals(struct run_data *d)
{
	DIR *dir = opendir(d->dir);
	if (!dir)
		return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		size_t n = strlen(entry->d_name);
		if (n > strlen("eval-.json") && strncmp(entry->d_name, "eval-", 5) == 0 &&
		    strcmp(entry->d_name + n - 5, ".json") == 0)
			load_eval(d, entry->d_name);
	}
	closedir(dir);
	if (d->eval_count == 0)
		run_data_note(d, "There is no evaluation yet (eval-*.json).");
	else
		qsort(d->evals, (size_t)d->eval_count, sizeof *d->evals, by_rank);
}

int run_data_load(struct run_data *d, const char *dir, struct favor_error *e)
{
	*d = (struct run_data){.dir = dir};
	if (load_metrics(d, e) != 0)
		return -1;
	load_config(d);
	load_evals(d);
	return 0;
}

void run_data_free(struct run_data *d)
{
	for (int32_t c = 0; c < d->metrics.columns; c++) {
		free(d->metrics.column[c].name);
		free(d->metrics.column[c].values);
	}
	free(d->metrics.column);
	free(d->metrics.step);
	for (int32_t i = 0; i < d->eval_count; i++) {
		free(d->evals[i].name);
		json_decref(d->evals[i].root);
	}
	free(d->evals);
	for (int32_t i = 0; i < d->fact_count; i++) {
		free(d->facts[i].key);
		free(d->facts[i].value);
	}
	free(d->facts);
	free(d->config);
	text_free(&d->notes);
	*d = (struct run_data){0};
}

const double *run_data_column(const struct run_data *d, const char *name)
{
	for (int32_t c = 0; c < d->metrics.columns; c++)
		if (strcmp(d->metrics.column[c].name, name) == 0)
			return d->metrics.column[c].values;
	return NULL;
}

double get_number(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);
	return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *run_data_fact(const struct run_data *d, const char *key)
{
	for (int32_t i = 0; i < d->fact_count; i++)
		if (strcmp(d->facts[i].key, key) == 0)
			return d->facts[i].value;
	return "";
}
