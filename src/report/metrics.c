/* The metrics of a step by name, and the history of all steps. Filled by the training loop on the leader, written by
 * the run log and the checkpoint. Names and their count are the program's own, so too many or too long is a bug, not
 * bad input. */
#include "report/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int find(char names[][METRICS_NAME_MAX], int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

/* The name's place, appended if it is new. */
static int place(char names[][METRICS_NAME_MAX], int32_t *count, const char *name)
{
	int i = find(names, *count, name);
	if (i >= 0)
		return i;
	size_t n = strlen(name);
	if (*count >= METRICS_MAX || n >= METRICS_NAME_MAX)
		favor_die("metric \"%s\": more than %d metrics, or a name of more than %d characters", name, METRICS_MAX,
		          METRICS_NAME_MAX - 1);
	memcpy(names[*count], name, n + 1);
	return (*count)++;
}

void metrics_set(struct metrics *m, const char *name, double value)
{
	int i = place(m->names, &m->count, name);
	m->values[i] = value;
}

void metrics_set_text(struct metrics *m, const char *name, const char *text)
{
	if (m->text_name[0] && strcmp(m->text_name, name) != 0)
		favor_die("metric \"%s\" can't be text: \"%s\" is already", name, m->text_name);
	if (find(m->names, m->count, name) < 0)
		metrics_set(m, name, NAN);
	snprintf(m->text_name, sizeof m->text_name, "%s", name);
	snprintf(m->text, sizeof m->text, "%s", text);
}

double metrics_get(const struct metrics *m, const char *name, double fallback)
{
	for (int i = 0; i < m->count; i++)
		if (strcmp(m->names[i], name) == 0)
			return m->values[i];
	return fallback;
}

void history_add(struct history *h, const struct metrics *m)
{
	if (h->rows == h->capacity) {
		h->capacity = h->capacity ? 2 * h->capacity : 64;
		h->values = favor_realloc(h->values, sizeof(double) * METRICS_MAX * (size_t)h->capacity);
	}
	double *row = h->values + (size_t)h->rows++ * METRICS_MAX;
	/* all places, so that a column that turns up later is NaN in the rows before it */
	for (int i = 0; i < METRICS_MAX; i++)
		row[i] = NAN;
	history_amend(h, m);
}

void history_amend(struct history *h, const struct metrics *m)
{
	double *row = h->values + (size_t)(h->rows - 1) * METRICS_MAX;
	for (int i = 0; i < m->count; i++)
		row[place(h->names, &h->columns, m->names[i])] = m->values[i];
}

double history_last(const struct history *h, const char *name)
{
	const int i = find((char(*)[METRICS_NAME_MAX])(uintptr_t)h->names, h->columns, name);
	return i < 0 || !h->rows ? NAN : h->values[(size_t)(h->rows - 1) * METRICS_MAX + (size_t)i];
}

void history_free(struct history *h)
{
	free(h->values);
	*h = (struct history){0};
}
