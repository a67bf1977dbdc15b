/* Many faults in one message: the first 20 in words, the rest as a count, so that a user mends a data set in one go. */
#ifndef FAVOR_DATA_FAULTS_H
#define FAVOR_DATA_FAULTS_H

#include "base/error.h"

#include <stdint.h>

enum { FAULTS_SHOWN = 20 };

/* Zero-initialise; owns its texts. */
struct faults {
	char *text[FAULTS_SHOWN];
	int64_t count;
};
/* Counts one fault; only the first FAULTS_SHOWN are written out, so a file of a million bad lines costs little. */
void faults_add(struct faults *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* 0 without faults. Else -1 and the message: a single fault as it is; several as "TITLE: N WHAT:" and one a line, then
 * "and N more". What does not fit into FAVOR_ERROR_MAX is counted among those "more". */
int faults_report(const struct faults *f, struct favor_error *e, const char *title, const char *what);
void faults_free(struct faults *f);

#endif
