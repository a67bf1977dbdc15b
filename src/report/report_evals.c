/* What evaluations say: the first against the newest, by class, and where one class is taken for another. */
#include "report/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MATRIX_MAX_CLASSES = 60, CLASSES_MAX = 1000 };

static void add_name(struct text *page, const json_t *class)
{
	const char *name = json_string_value(json_object_get(class, "name"));
	add_escaped(page, name ? name : "?");
}

static void add_interval(struct text *page, const json_t *root)
{
	json_t *interval = json_object_get(root, "interval");
	json_t *low = json_array_get(interval, 0), *high = json_array_get(interval, 1);
	if (!json_is_number(low) || !json_is_number(high))
		return;
	add_percent(page, json_number_value(low));
	text_add(page, " – ");
	add_percent(page, json_number_value(high));
}

/* All evaluations in a row, oldest first. */
static void add_overview(struct text *page, const struct run_data *d)
{
	text_add(page, "<div class=\"card scroll\"><h3>All evaluations</h3><table><tr><th>Evaluation<th>Accuracy<th>95% "
	               "interval<th>Format"
	               "<th>Mean length<th>Images</tr>");
	for (int32_t i = 0; i < d->eval_count; i++) {
		const json_t *root = d->evals[i].root;
		double n = (double)json_array_size(json_object_get(root, "predictions"));
		text_add(page, "<tr><td>");
		add_escaped(page, d->evals[i].name);
		text_add(page, "<td><b>");
		add_percent(page, get_number(root, "accuracy"));
		text_add(page, "</b><td>");
		add_interval(page, root);
		text_add(page, "<td>");
		add_percent(page, get_number(root, "format"));
		text_add(page, "<td>");
		add_number(page, get_number(root, "mean_length"));
		text_add(page, "<td>");
		add_number(page, n);
		text_add(page, "</tr>");
	}
	text_add(page, "</table></div>");
}

static void add_bar(struct text *page, double share, const char *kind)
{
	text_format(page, "<span class=\"bar %s\"><i style=\"width:%.1f%%\"></i></span>", kind,
	            isfinite(share) ? fmin(fmax(share, 0), 1) * 100 : 0);
	add_percent(page, share);
}

/* The class of that name in another evaluation: their lists may differ. */
static const json_t *same_class(const json_t *classes, const json_t *class, size_t hint)
{
	json_t *name = json_object_get(class, "name"), *other;
	size_t k;
	if (json_equal(json_object_get(json_array_get(classes, hint), "name"), name))
		return json_array_get(classes, hint);
	json_array_foreach (classes, k, other) {
		if (json_equal(json_object_get(other, "name"), name))
			return other;
	}
	return NULL;
}

static void add_classes(struct text *page, const struct eval_file *old, const struct eval_file *new)
{
	const json_t *classes = json_object_get(new->root, "classes"), *class;
	const json_t *old_classes = old ? json_object_get(old->root, "classes") : NULL;
	size_t k;
	if (json_array_size(classes) == 0)
		return;
	text_add(page, "<div class=\"card scroll\"><h3>By class</h3><table><tr><th>Class<th>Images");
	if (old) {
		text_add(page, "<th>");
		add_escaped(page, old->name);
	}
	text_add(page, "<th>");
	add_escaped(page, new->name);
	text_add(page, "</tr>");
	json_array_foreach (classes, k, class) {
		if (k == CLASSES_MAX)
			break;
		text_add(page, "<tr><td>");
		add_name(page, class);
		text_add(page, "<td>");
		add_number(page, get_number(class, "n"));
		if (old) {
			text_add(page, "<td>");
			add_bar(page, get_number(same_class(old_classes, class, k), "accuracy"), "old");
		}
		text_add(page, "<td>");
		add_bar(page, get_number(class, "accuracy"), "");
		text_add(page, "</tr>");
	}
	text_add(page, "</table></div>");
}

/* Rows: true class; columns: answered class, and a last one for no or another answer if the file has it. */
static void add_matrix(struct text *page, const struct eval_file *v)
{
	const json_t *rows = json_object_get(v->root, "confusion"), *row, *cell;
	const json_t *classes = json_object_get(v->root, "classes");
	size_t n = json_array_size(rows), names = json_array_size(classes), columns = 0, r, c;
	json_array_foreach (rows, r, row) {
		if (json_array_size(row) > columns)
			columns = json_array_size(row);
	}
	if (n == 0 || columns == 0)
		return;
	text_add(page, "<div class=\"card scroll\"><h3>Confusion, ");
	add_escaped(page, v->name);
	text_add(page, "</h3>");
	if (n > MATRIX_MAX_CLASSES || columns > MATRIX_MAX_CLASSES + 1) {
		text_format(page, "<p class=dim>%zu classes are too many to draw; the numbers are in eval-", n);
		add_escaped(page, v->name);
		text_add(page, ".json.</p></div>");
		return;
	}
	text_add(page, "<table class=matrix><tr><th class=dim>true ↓ &nbsp; answered →</th>");
	for (c = 0; c < columns; c++) {
		text_add(page, "<th><div class=name>");
		if (c < names)
			add_name(page, json_array_get(classes, c));
		else
			text_add(page, "no class");
		text_add(page, "</div></th>");
	}
	text_add(page, "</tr>");
	json_array_foreach (rows, r, row) {
		double sum = 0;
		json_array_foreach (row, c, cell) {
			sum += fmax(json_number_value(cell), 0);
		}
		text_add(page, "<tr><th>");
		add_name(page, json_array_get(classes, r));
		text_add(page, "</th>");
		for (c = 0; c < columns; c++) {
			double count = json_number_value(json_array_get(row, c)), share = sum > 0 ? fmax(count, 0) / sum : 0;
			text_format(page, "<td%s style=\"background:rgba(%s,%.2f)\">", count == 0 ? " class=zero" : "",
			            r == c ? "5,150,105" : "219,39,90", share == 0 ? 0.03 : 0.12 + 0.6 * share);
			add_number(page, count);
			text_add(page, "</td>");
		}
		text_add(page, "</tr>");
	}
	text_add(page, "</table></div>");
}

void add_evaluations(struct text *page, const struct run_data *d)
{
	if (d->eval_count == 0)
		return;
	const struct eval_file *old = d->eval_count > 1 ? &d->evals[0] : NULL, *new = &d->evals[d->eval_count - 1];
	text_add(page, "<section><h2>Evaluation on held-out images</h2>");
	text_add(page, "<div class=evals>");
	add_overview(page, d);
	add_classes(page, old, new);
	if (old)
		add_matrix(page, old);
	add_matrix(page, new);
	text_add(page, "</div></section>");
}
