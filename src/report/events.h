/* TensorBoard's event files: a step's metrics as the bytes of a record, and what of a file a resumed run keeps. Bytes
 * alone: run_log.c has the file.
 *
 * Source of the format: tensorflow/core/lib/io/record_writer.h (TFRecord), tensorflow/core/util/event.proto and
 * tensorflow/core/framework/summary.proto. A record is
 *   uint64 n | uint32 masked CRC-32C of these 8 bytes | n bytes: an Event | uint32 masked CRC-32C of the Event
 * all little-endian, with masked(c) = (c rotated right by 15) + 0xa282ead8. An Event is in protocol buffers' encoding. */
#ifndef FAVOR_REPORT_EVENTS_H
#define FAVOR_REPORT_EVENTS_H

#include "report/metrics.h"
#include "report/text.h"

/* What a file begins with: the format's version, and that a session starts at step 0, upon which a TensorBoard that has
 * read an earlier file of the folder forgets it. time: seconds since 1970. */
void events_begin(struct text *t, double time);
/* One record with all metrics of a step that are finite numbers. Tags are those of transformers' and TRL's callback:
 * "train/NAME", but "eval/..." as it is. Adds nothing where there is no such metric. */
void events_metrics(struct text *t, double time, int64_t step, const struct metrics *m);
/* Adds the records of steps 1 to last_step from a file's n bytes, as they are, up to the first record that is not whole
 * or has a wrong checksum (the end of a run that was killed). */
void events_keep(struct text *t, const char *data, size_t n, int64_t last_step);

#endif
