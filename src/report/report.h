/* favor report: one HTML file with no network access, from what a run left: curves, confusion matrix, gallery of
 * groups. Everything the model or a data set wrote is escaped. */
#ifndef FAVOR_REPORT_REPORT_H
#define FAVOR_REPORT_REPORT_H

#include "base/error.h"

/* Reads RUN_DIR/config.yaml, metrics.jsonl, samples.jsonl, eval-*.json (all but metrics may be absent); writes
 * RUN_DIR/report.html (atomically). Images are embedded as JPEG thumbnails. */
int report_write(const char *run_dir, struct favor_error *e);

#endif
