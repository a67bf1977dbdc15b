/* A data set: records of (image, label), from JSON lines, CSV or a folder per class. Checked whole before the first
 * step; every bad line or file is named. */
#ifndef FAVOR_DATA_DATASET_H
#define FAVOR_DATA_DATASET_H

#include "base/config.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct record {
	char **images; /* [image_count] paths as opened (root joined); owned. Usually one; may be none: text alone */
	int32_t image_count;
	char *label;         /* "" where solution gives none */
	int32_t label_index; /* in the class list; -1: open set (problem/solution without a class list) */
	char *problem;       /* the user text if the record has its own, else NULL: the prompt template is used */
	char *target;        /* SFT: the response to learn if the record gives one ("target"), else NULL */
	char *think;         /* SFT: the reasoning trace if the record gives one ("think"), else NULL */
	const char *folder;  /* where the images must lie when they are opened, links followed; borrowed from the set;
	                        NULL: anywhere */
	int32_t line;        /* in the file, for messages; 0 in folders */
};

struct dataset {
	char *path;
	char *folder; /* real path of root; NULL if images may lie anywhere; owned */
	struct record *records;
	int32_t count;
	int packed; /* the records' texts are not theirs: they lie in the block that dataset_unpack was given */
};

struct class_list {
	int32_t count;
	char **names;         /* as written; owned */
	int32_t *alias_start; /* [count + 1] into aliases */
	char **aliases;       /* owned */
};

/* JSON lines: {"image": path or [paths], "label"} or {"image", "problem", "solution"}; solution's <answer>...</answer>
 * (or all of it) is the label; optional "target", "think". CSV: header with path|filename|image, label, optional split.
 * A folder: DIR/class/files. Paths are relative to root ("" = the file's
 * folder; of a folder it is the folder itself). They can't leave root, neither by ".." nor as absolute paths nor (seen
 * when an image is opened) through links, unless allow_outside. split "" takes all rows, or `default_split` if rows name a split
 * (CSV column, JSON key "split"); a folder has no splits. Reports up to 20 bad lines in one message. No images are
 * opened here. */
int dataset_load(struct dataset *d, const char *path, const char *root, int allow_outside, const char *split,
                 const char *default_split, struct favor_error *e);
void dataset_free(struct dataset *d);

/* From data.classes, data.classes_file, or else the sorted labels of both sets (either may be NULL); aliases from
 * data.aliases. Sets label_index of every record. A label outside a given list is an error that names the line and the
 * nearest class. */
int classes_build(struct class_list *c, const struct data_options *o, struct dataset *train, struct dataset *eval,
                  struct favor_error *e);
void classes_free(struct class_list *c);

/* Keeps `shots` records per class, drawn by (seed, class) without regard to file order changes elsewhere; an error if a
 * class has fewer. 0 = keep all. */
int dataset_take_shots(struct dataset *d, const struct class_list *c, int32_t shots, uint64_t seed,
                       struct favor_error *e);

/* Sets and classes as bytes for another rank of the same program: *data is the caller's (free). unpack fills them again;
 * sets point into data, which must outlive them. All lengths are checked; -1 with a message, and then what was filled
 * is to be freed all the same. */
void dataset_pack(const struct dataset *const *sets, int count, const struct class_list *c, void **data, size_t *n);
int dataset_unpack(struct dataset *const *sets, int count, struct class_list *c, void *data, size_t n,
                   struct favor_error *e);

/* Record of the i-th prompt of the endless order: epochs of permutations by (seed, epoch). */
uint32_t dataset_order(const struct dataset *d, uint64_t seed, uint64_t index);

/* The user text: think | answer | a file's text; {classes} becomes the class names joined by ", ". New string, owned.
 */
char *prompt_text(const char *prompt_option, const struct class_list *c, const struct record *r, struct favor_error *e);
/* Whether the option names a text that prompts can be made of, whatever the record. 0, or -1 with a message. */
int prompt_check(const char *prompt_option, struct favor_error *e);
/* The SFT target: record.target, else "<think>TRACE</think>\n<answer>LABEL</answer>" if the prompt asks for thinking
 * and a trace is there, else "<answer>LABEL</answer>". New string, owned. */
char *target_text(const char *prompt_option, const struct record *r);

#endif
