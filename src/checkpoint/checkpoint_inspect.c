/* What `favor inspect` shows of a checkpoint: for people without reading the values, as JSON with each tensor's
 * statistics. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* JSON has no NaN and no infinity: null stands for them. */
static json_t *json_number(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

/* jansson's integers are signed; the few seeds above that are given as text. */
static json_t *json_unsigned(uint64_t x)
{
	char text[24];
	snprintf(text, sizeof text, "%" PRIu64, x);
	return x <= INT64_MAX ? json_integer((json_int_t)x) : json_string(text);
}

/* Bytes that are no UTF-8 would make the whole output fail. */
static json_t *json_text(const char *s)
{
	json_t *text = json_string(s);
	return text ? text : json_string("(not valid UTF-8)");
}

struct statistics {
	double mean, std, min, max, norm; /* of the finite values */
	int64_t nonfinite;
};

static struct statistics statistics_of(const float *x, int64_t n)
{
	struct statistics s = {.min = INFINITY, .max = -INFINITY};
	double sum = 0, squares = 0, spread = 0;
	for (int64_t i = 0; i < n; i++) {
		if (!isfinite(x[i])) {
			s.nonfinite++;
			continue;
		}
		double v = (double)x[i];
		sum += v;
		squares += v * v;
		s.min = fmin(s.min, v);
		s.max = fmax(s.max, v);
	}
	double finite = (double)(n - s.nonfinite);
	s.mean = sum / finite; /* NaN if there are none */
	for (int64_t i = 0; i < n; i++)
		if (isfinite(x[i]))
			spread += ((double)x[i] - s.mean) * ((double)x[i] - s.mean);
	s.std = sqrt(spread / finite);
	s.norm = sqrt(squares);
	return s;
}

static int add_tensor(struct checkpoint_reader *r, int i, json_t *list)
{
	struct checkpoint_tensor t = r->head.tensors[i];
	int64_t n = checkpoint_elements(&t);
	t.values = favor_malloc((size_t)n * sizeof(float));
	int rc = reader_read(r, &t);
	if (rc == 0) {
		struct statistics s = statistics_of(t.values, n);
		json_t *shape = json_array(), *o = json_object();
		for (int k = 0; k < t.ndim; k++)
			json_array_append_new(shape, json_integer(t.shape[k]));
		json_object_set_new(o, "name", json_text(t.name));
		json_object_set_new(o, "shape", shape);
		json_object_set_new(o, "dtype", json_string("float32"));
		json_object_set_new(o, "optimizer", json_boolean(reader_has_moments(r, t.name)));
		json_object_set_new(o, "mean", json_number(s.mean));
		json_object_set_new(o, "std", json_number(s.std));
		json_object_set_new(o, "min", json_number(s.min));
		json_object_set_new(o, "max", json_number(s.max));
		json_object_set_new(o, "norm", json_number(s.norm));
		json_object_set_new(o, "nonfinite", json_integer(s.nonfinite));
		json_array_append_new(list, o);
	}
	free(t.values);
	return rc;
}

static int print_json(struct checkpoint_reader *r, FILE *out)
{
	const struct checkpoint *c = &r->head;
	json_t *root = json_object(), *tensors = json_array(), *history = json_object(), *files = json_array();
	int rc = 0;
	json_object_set_new(root, "format", json_integer(CHECKPOINT_FORMAT));
	json_object_set_new(root, "favor_version", json_text(r->favor_version));
	json_object_set_new(root, "step", json_integer(c->step));
	json_object_set_new(root, "digest", json_string(c->digest));
	json_object_set_new(root, "policy_version", json_unsigned(c->policy_version));
	json_object_set_new(root, "seed", json_unsigned(c->seed));
	json_object_set_new(root, "cursor", json_unsigned(c->cursor));
	json_object_set_new(root, "ranks", json_text(c->ranks));
	for (int i = 0; i < c->tensor_count && rc == 0; i++)
		rc = add_tensor(r, i, tensors);
	json_object_set_new(root, "tensors", tensors);
	json_object_set_new(root, "config", json_text(c->config));
	for (int k = 0; k < c->history_columns; k++) {
		json_t *column = json_array();
		for (int i = 0; i < c->history_rows; i++)
			json_array_append_new(column, json_number(c->history[k].values[i]));
		json_object_set_new(history, c->history[k].name, column);
	}
	json_object_set_new(root, "history", history);
	for (int i = 0; i < c->file_count; i++) {
		json_t *o = json_object();
		json_object_set_new(o, "name", json_text(c->files[i].name));
		json_object_set_new(o, "size", json_integer((json_int_t)c->files[i].size));
		json_array_append_new(files, o);
	}
	json_object_set_new(root, "files", files);
	json_object_set_new(root, "samples", json_integer(c->sample_count));
	if (rc == 0 && (json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) != 0 || fputc('\n', out) == EOF))
		rc = favor_fail(r->source.e, "%s: the output can't be written", r->source.path);
	json_decref(root);
	return rc;
}

static void print_size(FILE *out, double bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	int unit = 0;
	for (; bytes >= 1024 && unit < 4; unit++)
		bytes /= 1024;
	fprintf(out, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

static void print_text(struct checkpoint_reader *r, FILE *out)
{
	const struct checkpoint *c = &r->head;
	int64_t parameters = 0, with_moments = 0;
	int trained = 0;
	for (int i = 0; i < c->tensor_count; i++) {
		int64_t n = checkpoint_elements(&c->tensors[i]);
		parameters += n;
		if (reader_has_moments(r, c->tensors[i].name)) {
			with_moments += n;
			trained++;
		}
	}
	fprintf(out, "%s: ", r->source.path);
	print_size(out, (double)r->source.size);
	fprintf(out, ", checkpoint format %d, written by favor %s\n", CHECKPOINT_FORMAT, r->favor_version);
	fprintf(out, "step       %" PRId64 " (policy version %" PRIu64 ", next sample %" PRIu64 ", seed %" PRIu64 ")\n",
	        c->step, c->policy_version, c->cursor, c->seed);
	fprintf(out, "ranks      %s\n", *c->ranks ? c->ranks : "not known");
	fprintf(out, "digest     %s\n", c->digest);
	fprintf(out, "model      %d tensors, %" PRId64 " parameters, ", c->tensor_count, parameters);
	print_size(out, (double)parameters * 4);
	fprintf(out, "\noptimizer  two moments of %d tensors, %" PRId64 " parameters, ", trained, with_moments);
	print_size(out, (double)with_moments * 8);
	fprintf(out, "\nfiles      ");
	for (int i = 0; i < c->file_count; i++) {
		fprintf(out, "%s%s (", i ? ", " : "", c->files[i].name);
		print_size(out, (double)c->files[i].size);
		fprintf(out, ")");
	}
	fprintf(out, "%s\nsamples    %d\nhistory    %d steps of %d metrics", c->file_count ? "" : "none", c->sample_count,
	        c->history_rows, c->history_columns);
	fprintf(out, c->history_rows ? "; the last step:\n" : "\n");
	for (int k = 0; k < c->history_columns && c->history_rows; k++)
		fprintf(out, "  %-48s %.6g\n", c->history[k].name, c->history[k].values[c->history_rows - 1]);
	fprintf(out, "\ntensors (* with moments)\n");
	for (int i = 0; i < c->tensor_count; i++) {
		const struct checkpoint_tensor *t = &c->tensors[i];
		fprintf(out, "%c %-64s [", reader_has_moments(r, t->name) ? '*' : ' ', t->name);
		for (int k = 0; k < t->ndim; k++)
			fprintf(out, "%s%" PRId64, k ? ", " : "", t->shape[k]);
		fprintf(out, "]\n");
	}
	fprintf(out, "\nconfiguration\n");
	for (const char *line = c->config; *line;) {
		size_t n = strcspn(line, "\n");
		fprintf(out, "  %.*s\n", (int)n, line);
		line += n + (line[n] == '\n');
	}
}

int checkpoint_inspect(const char *path, int json, void *out, struct favor_error *e)
{
	struct checkpoint_reader r;
	int rc = reader_open(&r, path, e);
	if (rc == 0 && json)
		rc = print_json(&r, out);
	else if (rc == 0)
		print_text(&r, out);
	if (rc == 0 && (fflush(out) != 0 || ferror((FILE *)out)))
		rc = favor_fail(e, "%s: the output can't be written", path);
	reader_close(&r);
	return rc;
}
