/* What favor eval found: the numbers, the table for people and the JSON file. Called by the eval command and by
 * evaluations during training, on the leader alone. */
#include "report/evaluation.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

void wilson_interval(int64_t correct, int64_t n, double *low, double *high)
{
	if (n <= 0) {
		*low = 0;
		*high = 1;
		return;
	}
	/* Wilson (1927): centre = (p + z^2/2n) / (1 + z^2/n), half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n) */
	const double z = 1.959963984540054;
	double p = (double)correct / (double)n, z2n = z * z / (double)n;
	double centre = (p + z2n / 2) / (1 + z2n);
	double half = z * sqrt(p * (1 - p) / (double)n + z2n / (4 * (double)n)) / (1 + z2n);
	*low = correct <= 0 ? 0 : centre - half; /* exactly 0 and 1 at the ends, where rounding would leave a little */
	*high = correct >= n ? 1 : centre + half;
}

void evaluation_add(struct evaluation *v, const struct prediction *p)
{
	if (v->count == v->capacity) {
		v->capacity = v->capacity ? 2 * v->capacity : 64;
		v->predictions = favor_realloc(v->predictions, (size_t)v->capacity * sizeof *v->predictions);
	}
	v->predictions[v->count++] = *p;
}

void evaluation_free(struct evaluation *v)
{
	for (int32_t i = 0; i < v->count; i++) {
		free(v->predictions[i].image);
		free(v->predictions[i].answer_text);
		free(v->predictions[i].response);
	}
	free(v->predictions);
	*v = (struct evaluation){0};
}

struct tally {
	int64_t n, correct;
};

struct summary {
	struct tally all;
	int64_t format, truncated, tokens;
	struct tally *classes; /* [class_count], owned */
	int64_t *confusion;    /* [class_count, class_count + 1]: label by answer; the last column is "no class"; owned */
};

static struct summary summarise(const struct evaluation *v)
{
	size_t classes = (size_t)v->class_count;
	struct summary s = {.classes = favor_calloc(classes, sizeof *s.classes),
	                    .confusion = favor_calloc(classes * (classes + 1), sizeof *s.confusion)};
	for (int32_t i = 0; i < v->count; i++) {
		const struct prediction *p = &v->predictions[i];
		s.all.n++;
		s.all.correct += p->correct != 0;
		s.format += p->format != 0;
		s.truncated += p->truncated != 0;
		s.tokens += p->tokens;
		if (p->label < 0 || p->label >= v->class_count)
			continue;
		int32_t answer = p->answer < 0 || p->answer >= v->class_count ? v->class_count : p->answer;
		s.classes[p->label].n++;
		s.classes[p->label].correct += p->correct != 0;
		s.confusion[(size_t)p->label * (classes + 1) + (size_t)answer]++;
	}
	return s;
}

static void summary_free(struct summary *s)
{
	free(s->classes);
	free(s->confusion);
}

static double share(int64_t part, int64_t whole)
{
	return whole > 0 ? (double)part / (double)whole : 0;
}

double evaluation_accuracy(const struct evaluation *v)
{
	int64_t correct = 0;
	for (int32_t i = 0; i < v->count; i++)
		correct += v->predictions[i].correct != 0;
	return share(correct, v->count);
}

/* Columns of a terminal that a text takes: wide East Asian characters two, combining marks none. */
static int columns(const char *s)
{
	int width = 0;
	size_t n = strlen(s);
	for (size_t i = 0; i < n;) {
		utf8proc_int32_t point;
		utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &point);
		width += used > 0 ? utf8proc_charwidth(point) : 1;
		i += used > 0 ? (size_t)used : 1;
	}
	return width;
}

/* The answer that was most often given for a class instead of it; class_count = no class. -1 if none was. */
static int32_t most_confused(const struct evaluation *v, const struct summary *s, int32_t label)
{
	const int64_t *row = s->confusion + (size_t)label * ((size_t)v->class_count + 1);
	int32_t most = -1;
	for (int32_t i = 0; i <= v->class_count; i++)
		if (i != label && row[i] > 0 && (most < 0 || row[i] > row[most]))
			most = i;
	return most;
}

void evaluation_print(const struct evaluation *v, void *out)
{
	struct summary s = summarise(v);
	double low, high;
	wilson_interval(s.all.correct, s.all.n, &low, &high);
	fprintf(out, "accuracy  %5.1f%%  (%lld of %lld; 95%% interval %.1f%% to %.1f%%)\n",
	        100 * share(s.all.correct, s.all.n), (long long)s.all.correct, (long long)s.all.n, 100 * low, 100 * high);
	fprintf(out, "format    %5.1f%%\n", 100 * share(s.format, s.all.n));
	fprintf(out, "length    %5.1f tokens on average; %lld truncated\n", share(s.tokens, s.all.n),
	        (long long)s.truncated);
	int width = 5;
	for (int32_t i = 0; i < v->class_count; i++)
		if (s.classes[i].n > 0 && columns(v->classes[i]) > width)
			width = columns(v->classes[i]);
	if (v->class_count > 0)
		fprintf(out, "\n%-*s      n  correct  accuracy  most often taken for\n", width, "class");
	for (int32_t i = 0; i < v->class_count; i++) {
		if (s.classes[i].n == 0)
			continue;
		const int64_t *row = s.confusion + (size_t)i * ((size_t)v->class_count + 1);
		int32_t wrong = most_confused(v, &s, i);
		fprintf(out, "%s%*s %6lld  %7lld  %7.1f%%", v->classes[i], width - columns(v->classes[i]), "",
		        (long long)s.classes[i].n, (long long)s.classes[i].correct,
		        100 * share(s.classes[i].correct, s.classes[i].n));
		if (wrong >= 0)
			fprintf(out, "  %s (%lld)", wrong == v->class_count ? "no class" : v->classes[wrong],
			        (long long)row[wrong]);
		fprintf(out, "\n");
	}
	summary_free(&s);
}

/* A JSON string; bytes that are no UTF-8 (a path may hold some) become U+FFFD. NULL is "". */
static json_t *text(const char *s)
{
	if (!s)
		s = "";
	json_t *plain = json_string(s);
	if (plain)
		return plain;
	size_t n = strlen(s), length = 0;
	char *good = favor_malloc(3 * n + 1);
	for (size_t i = 0; i < n;) {
		utf8proc_int32_t point;
		utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &point);
		memcpy(good + length, used > 0 ? s + i : "\xEF\xBF\xBD", used > 0 ? (size_t)used : 3);
		length += used > 0 ? (size_t)used : 3;
		i += used > 0 ? (size_t)used : 1;
	}
	json_t *mended = json_stringn(good, length);
	free(good);
	return mended;
}

static json_t *class_name(const struct evaluation *v, int32_t i)
{
	return i >= 0 && i < v->class_count ? text(v->classes[i]) : json_null();
}

static json_t *predictions(const struct evaluation *v)
{
	json_t *list = json_array();
	for (int32_t i = 0; i < v->count; i++) {
		const struct prediction *p = &v->predictions[i];
		json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:i, s:b}", "image", text(p->image),
		                                      "label", class_name(v, p->label), "answer", class_name(v, p->answer),
		                                      "answer_text", text(p->answer_text), "response", text(p->response),
		                                      "correct", p->correct, "format", p->format, "tokens", (int)p->tokens,
		                                      "truncated", p->truncated));
	}
	return list;
}

static json_t *document(const struct evaluation *v)
{
	struct summary s = summarise(v);
	json_t *classes = json_array(), *confusion = json_array();
	double low, high;
	wilson_interval(s.all.correct, s.all.n, &low, &high);
	for (int32_t i = 0; i < v->class_count; i++) {
		const struct tally *t = &s.classes[i];
		json_array_append_new(classes, json_pack("{s:o, s:I, s:I, s:o}", "name", text(v->classes[i]), "n",
		                                         (json_int_t)t->n, "correct", (json_int_t)t->correct, "accuracy",
		                                         t->n > 0 ? json_real(share(t->correct, t->n)) : json_null()));
		json_t *row = json_array();
		for (int32_t k = 0; k <= v->class_count; k++)
			json_array_append_new(row, json_integer(s.confusion[(size_t)i * ((size_t)v->class_count + 1) + (size_t)k]));
		json_array_append_new(confusion, row);
	}
	json_t *file = json_pack("{s:f, s:[f, f], s:f, s:f, s:I, s:I, s:I, s:o, s:o, s:o}", "accuracy",
	                         share(s.all.correct, s.all.n), "interval", low, high, "format", share(s.format, s.all.n),
	                         "mean_length", share(s.tokens, s.all.n), "n", (json_int_t)s.all.n, "correct",
	                         (json_int_t)s.all.correct, "truncated", (json_int_t)s.truncated, "classes", classes,
	                         "confusion", confusion, "predictions", predictions(v));
	summary_free(&s);
	return file;
}

/* The new name is on the disk too once its folder is. */
static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? favor_format("%.*s", slash == path ? 1 : (int)(slash - path), path) : favor_strdup(".");
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	free(folder);
	return rc;
}

int evaluation_write(const struct evaluation *v, const char *path, struct favor_error *e)
{
	int rc = -1, made = 0;
	char *temporary = favor_format("%s.tmp", path);
	json_t *file = document(v);
	FILE *out = NULL;
	if (!file)
		favor_die("%s: jansson could not build the evaluation", path);
	if (!(out = fopen(temporary, "we"))) {
		favor_fail(e, "%s: %m", temporary);
		goto done;
	}
	made = 1;
	if (json_dumpf(file, out, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) != 0 || fputc('\n', out) == EOF ||
	    fflush(out) != 0 || fsync(fileno(out)) != 0) {
		favor_fail(e, "%s: writing failed: %m", temporary);
		goto done;
	}
	int closed = fclose(out);
	out = NULL;
	if (closed != 0 || rename(temporary, path) != 0 || sync_folder(path) != 0) {
		favor_fail(e, "%s: %m", path);
		goto done;
	}
	made = 0;
	rc = 0;
done:
	if (out)
		fclose(out);
	if (made)
		unlink(temporary);
	json_decref(file);
	free(temporary);
	return rc;
}
