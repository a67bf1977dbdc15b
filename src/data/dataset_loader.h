/* What the three readers (dataset_jsonl.c, dataset_csv.c, dataset_folder.c) share: private to the data room. A reader
 * adds a record for each good line and a fault for each bad one; dataset.c reports. */
#ifndef FAVOR_DATA_DATASET_LOADER_H
#define FAVOR_DATA_DATASET_LOADER_H

#include "data/dataset.h"
#include "data/faults.h"

/* record.label_index until classes_build sets it: an open question (its own problem, and a solution instead of a label)
 * stays out of a class list that is made from labels. */
enum { LABEL_OPEN = -1, LABEL_CLASS = 0 };
enum { SPLITS_SHOWN = 8 };
/* Bytes of the longest line (CSV: row): a file without line ends must not become one record of all memory. */
enum { DATASET_LINE_MAX = 16 << 20 };

struct loader {
	struct dataset *d;
	int32_t capacity; /* of d->records */
	const char *path; /* borrowed; as the user gave it, for messages */
	char *base;       /* owned; folder that relative images start at, "" = the working directory */
	char *fence; /* owned; absolute root without "..", as text and without the slash at its start. NULL: images may lie
	                anywhere */
	int rooted;  /* the user gave data.root */
	const char *split;          /* borrowed; rows to take, "" = default_split where rows name a split */
	const char *default_split;  /* borrowed */
	char *splits[SPLITS_SHOWN]; /* owned; names met, for the message when nothing was taken */
	int split_count;
	struct faults faults;
};

/* New record at the end, zeroed; stays the loader's. */
struct record *loader_record(struct loader *l, int32_t line);
/* Takes the last record away again: its line turned out bad. */
void loader_drop(struct loader *l);
/* The file that `image` names, or NULL and why (static text, or `why` filled). Owned by the caller. */
char *loader_image(const struct loader *l, const char *image, const char **why);
/* 1 if a row of that split is to be taken; NULL = the row names none. Remembers the name. */
int loader_takes(struct loader *l, const char *split);

/* -1 with a message if these are the first bytes of UTF-16: Windows programs write it where they say "Unicode". */
int loader_is_text(const struct loader *l, const char *start, size_t n, struct favor_error *e);

int dataset_read_jsonl(struct loader *l, struct favor_error *e);
int dataset_read_csv(struct loader *l, struct favor_error *e);
int dataset_read_folder(struct loader *l, struct favor_error *e);

void record_free(struct record *r);

#endif
