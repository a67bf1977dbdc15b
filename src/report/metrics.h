/* metrics.jsonl, samples.jsonl, TensorBoard's event file and the progress line: what is seen while a run goes on. The
 * leader alone writes. */
#ifndef FAVOR_REPORT_METRICS_H
#define FAVOR_REPORT_METRICS_H

#include "base/error.h"
#include "base/group.h"

#include <stdint.h>

enum { METRICS_MAX = 64, METRICS_NAME_MAX = 48 };

/* One step's metrics in a fixed order of names (first use decides); docs/METRICS.md lists them. Zeroed is empty. */
struct metrics {
	int32_t count;
	char names[METRICS_MAX][METRICS_NAME_MAX];
	double values[METRICS_MAX];
	char text_name[METRICS_NAME_MAX]; /* the one metric that metrics.jsonl has as text; "": none */
	char text[64];
};
void metrics_set(struct metrics *m, const char *name, double value);
/* For samples_digest, whose 64 bits no double holds: metrics.jsonl gets the text, the history the number that
 * metrics_set gave (NaN if none). One metric at most may be text. */
void metrics_set_text(struct metrics *m, const char *name, const char *text);
double metrics_get(const struct metrics *m, const char *name, double fallback);

/* The whole history in memory (goes into checkpoints as /history): rows of steps, columns of names. NaN where a step
 * had no such metric. */
struct history {
	int32_t rows, capacity, columns;
	char names[METRICS_MAX][METRICS_NAME_MAX];
	double *values; /* [rows, METRICS_MAX], owned */
};
void history_add(struct history *h, const struct metrics *m);
/* More metrics of the newest row. */
void history_amend(struct history *h, const struct metrics *m);
/* A value of the newest row; NaN if there is none. */
double history_last(const struct history *h, const char *name);
void history_free(struct history *h);

/* RUN_DIR files, appended line by line (the event file: record by record) and flushed. On resume at `step`, lines of
 * later steps are cut off (atomically), so that the file reads as if the run had never stopped; a half line at the end
 * is dropped. Times (step_time, ...) differ of course. resume_step <= 0: a new run, the files start empty. Makes run_dir
 * if need be. NULL with a message if a file can't be opened or holds a line that is none of ours. A write that fails
 * later (a full disk) ends the job. */
struct run_log;
struct run_log *run_log_open(const char *run_dir, int64_t resume_step, int64_t total_steps, struct favor_error *e);
void run_log_metrics(struct run_log *l, int64_t step, const struct metrics *m);
/* Adds metrics to the last line, which is of that step: an evaluation that a stopped run had no time for. Where the line has
 * them all, they stay as they are. */
int run_log_amend(struct run_log *l, int64_t step, const struct metrics *m, struct favor_error *e);
/* A group as JSON lines, one a response: step, group, record, image, label, prompt, response, answer, each reward by
 * name, reward, advantage, tokens, finish. Owned by the caller. */
char *run_log_group_json(int64_t step, const struct group *g, const char *image, const char *label, const char *prompt,
                         const char *const *reward_names, const float *advantage);
/* Adds such lines to samples.jsonl. */
void run_log_samples(struct run_log *l, const char *lines);
/* Brings what was written to the disk, before a checkpoint that must not outlive it: a host may lose its power. */
int run_log_sync(struct run_log *l, struct favor_error *e);
/* Progress: one line that is rewritten on a terminal, a plain line per step elsewhere: step, reward, accuracy, KL (sft:
 * loss), length, tokens/s, ETA. */
void run_log_progress(struct run_log *l, int64_t step, const struct metrics *m);
/* On a terminal, makes room before other output to stderr. */
void run_log_note(struct run_log *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
void run_log_close(struct run_log *l);

#endif
