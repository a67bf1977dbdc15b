/* What favor eval says: accuracy with its 95% interval, per class, confusion matrix, format rate, predictions with
 * traces. */
#ifndef FAVOR_REPORT_EVALUATION_H
#define FAVOR_REPORT_EVALUATION_H

#include "base/error.h"

#include <stdint.h>

struct prediction {
	char *image;                  /* path or "" ; owned */
	int32_t label;                /* class index, -1 unknown */
	int32_t answer;               /* class index of the extracted answer, -1: none or no class */
	char *answer_text, *response; /* owned */
	int correct, format;
	int32_t tokens;
	int truncated;
};
struct evaluation {
	int32_t count, capacity;
	struct prediction *predictions;
	int32_t class_count;
	const char *const *classes; /* borrowed */
};
/* Wilson score interval at 95%. */
void wilson_interval(int64_t correct, int64_t n, double *low, double *high);
/* Takes ownership of the strings. */
void evaluation_add(struct evaluation *v, const struct prediction *p);
double evaluation_accuracy(const struct evaluation *v);
void evaluation_print(const struct evaluation *v, void *out); /* FILE *: table for people */
/* {"accuracy","interval":[l,h],"format","mean_length","classes":[{"name","n","correct","accuracy"}],"confusion":[[...]],"predictions":[...]},
 * atomically. A row of the confusion matrix is a label; its columns are the answers by class and, last, "no class". A
 * class without records has accuracy null. Also "n", "correct", "truncated". A prediction: image, label and answer
 * (class names or null), answer_text, response, correct, format, tokens, truncated. */
int evaluation_write(const struct evaluation *v, const char *path, struct favor_error *e);
void evaluation_free(struct evaluation *v);

#endif
