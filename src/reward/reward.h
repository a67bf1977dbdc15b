/* Rewards of a group: accuracy and format, weighted. Rules are strict on purpose: what a reward lets through is what
 * training will find. Pure functions of text; no state. */
#ifndef FAVOR_REWARD_REWARD_H
#define FAVOR_REWARD_REWARD_H

#include "base/config.h"
#include "base/group.h"

#include <stddef.h>

/* What counts as right for one record. */
struct reward_target {
	const char *label;          /* borrowed */
	const char *const *aliases; /* borrowed; may be NULL */
	int alias_count;
};

/* Names in the order of group.rewards rows for these options: "accuracy", "format" (only those with weight != 0).
 * Static text. */
int reward_names(const struct reward_options *o, const char *names[GROUP_MAX_REWARDS]);

/* The last <answer>...</answer> (across line ends; tags lower case exactly), normalised: trimmed, '_' and runs of
 * Unicode white space as one space, Unicode case folded (utf8proc), NFC. New string, owned by the caller; NULL if there
 * is none or it is empty. */
char *reward_answer(const char *text, size_t n);
char *reward_normalise(const char *text, size_t n);
/* 1 if the answer equals the label or an alias after normalisation, else 0. */
float reward_accuracy(const char *text, size_t n, const struct reward_target *t);
/* Visual-RFT's looser rule for classification, for comparison only (reward.c says what it does). */
float reward_accuracy_visual_rft(const char *text, size_t n, const struct reward_target *t);
/* 1 if the whole text is one <think>...</think> then one <answer>...</answer>, white space between and around allowed;
 * no further tag of these four inside. Linear time on any input. */
float reward_format(const char *text, size_t n);

/* Fills rewards, reward, answered, answer of the group from its texts. */
void reward_group(struct group *g, const struct reward_options *o, const struct reward_target *t);

#endif
