/* The pieces that report.c puts together; the report room alone includes this.
 *
 *   run_data   what the run left, read and checked: a table of metrics, evaluations, the configuration's facts
 *   add_...    writers of one section each into the page; they take the data read-only
 *
 * Files are untrusted: sizes are bounded, what can't be used becomes a note on the page, and all text is escaped. */
#ifndef FAVOR_REPORT_REPORT_PARTS_H
#define FAVOR_REPORT_REPORT_PARTS_H

#include "base/error.h"
#include "report/text.h"

#include <jansson.h>
#include <stdint.h>

enum { TABLE_MAX_COLUMNS = 256, GALLERY_MAX_GROUPS = 60, LINE_MAX_BYTES = 64 << 20 };

struct column {
	char *name;     /* owned */
	double *values; /* [rows], NaN where a line had no number; owned */
};
struct table { /* metrics.jsonl */
	int32_t rows, capacity, columns;
	double *step; /* [rows], owned */
	struct column *column;
};
struct eval_file {
	char *name;   /* "before" of eval-before.json; owned */
	int64_t rank; /* place in time: before, step-N by N, after, others */
	json_t *root; /* an object; owned */
};
struct fact {          /* a scalar of config.yaml: "learner.steps", "100" */
	char *key, *value; /* owned */
};
struct run_data {
	const char *dir; /* borrowed */
	struct table metrics;
	int32_t eval_count;
	struct eval_file *evals; /* oldest first, owned */
	char *config;            /* text of config.yaml, owned; NULL if there is none */
	int32_t fact_count;
	struct fact *facts; /* owned */
	struct text notes;  /* "<li>...</li>" of what is missing or broken */
};

/* -1 only if metrics.jsonl can't be read. run_data_free in any case. */
int run_data_load(struct run_data *d, const char *dir, struct favor_error *e);
void run_data_free(struct run_data *d);
/* Values of a metric over the rows, NULL if the run has none. */
const double *run_data_column(const struct run_data *d, const char *name);
/* A configuration value by its path, "" if it isn't there. */
const char *run_data_fact(const struct run_data *d, const char *key);
/* NaN if the object has no number of that name. */
double get_number(const json_t *o, const char *key);
void run_data_note(struct run_data *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The whole file, NUL-terminated, owned by the caller; NULL with errno. More than `limit` bytes: errno EFBIG. */
char *read_whole(const char *path, size_t limit, size_t *n);

void add_escaped(struct text *page, const char *s);
/* A number for people: 4 significant digits, 12.3k. */
void add_number(struct text *page, double x);
void add_percent(struct text *page, double share);

void add_charts(struct text *page, const struct run_data *d);
/* Comparison of the first and the newest evaluation: per class, and their confusion matrices. */
void add_evaluations(struct text *page, const struct run_data *d);
/* Groups of samples.jsonl, with thumbnails. */
void add_gallery(struct text *page, struct run_data *d);

/* Static text: the page's CSS and its script. */
const char *report_style(void);
const char *report_script(void);

#endif
