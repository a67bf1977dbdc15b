/* The rewards of a group. answer.c says which answer counts, label.c what its normal form is; here they are compared.
 *
 * accuracy is an exact match of normal forms. Nothing is forgiven that would let a response hedge: an answer that lists
 * several labels, or a label and a word more, or a part of a label, is another text, hence 0. Case, '_' and white space
 * don't count. Full case folding makes some letters equal that Unicode calls equal ("ß" and "ss", the ligature "fi" and
 * "fi", long s and s); the Turkish dotless i and dotted I stay apart from i, in any locale. Letters that only look
 * alike (Cyrillic, full width, mathematical) don't match, nor does an answer with zero-width characters or punctuation
 * around it.
 *
 * format says nothing of content: it is for the shape alone, and empty tags have the shape. Empty answers get their 0
 * from accuracy. */
#include "reward/reward.h"

#include "data/label.h"
#include "reward/answer.h"

#include <stdlib.h>
#include <string.h>

char *reward_normalise(const char *text, size_t n)
{
	return label_normalise(text, n);
}

char *reward_answer(const char *text, size_t n)
{
	size_t start, length;
	if (!answer_find(text, n, &start, &length))
		return NULL;
	char *answer = reward_normalise(text + start, length);
	if (answer[0])
		return answer;
	free(answer);
	return NULL;
}

/* Whether a normalised answer is the normal form of `name`. */
static int answers(const char *answer, const char *name)
{
	char *wanted = reward_normalise(name, strlen(name));
	int equal = strcmp(answer, wanted) == 0;
	free(wanted);
	return equal;
}

static float accuracy_of(const char *answer, const struct reward_target *t)
{
	if (!answer)
		return 0;
	int right = answers(answer, t->label);
	for (int i = 0; i < t->alias_count && !right; i++)
		right = answers(answer, t->aliases[i]);
	return (float)right;
}

float reward_accuracy(const char *text, size_t n, const struct reward_target *t)
{
	char *answer = reward_answer(text, n);
	float value = accuracy_of(answer, t);
	free(answer);
	return value;
}

/* 1 if text[from, to) is white space alone. */
static int blank(const char *text, size_t from, size_t to)
{
	int32_t point;
	while (from < to) {
		from += utf8_char(text + from, to - from, &point);
		if (!utf8_is_space(point))
			return 0;
	}
	return 1;
}

float reward_format(const char *text, size_t n)
{
	static const enum tag shape[] = {TAG_THINK, TAG_THINK_END, TAG_ANSWER, TAG_ANSWER_END};
	size_t at = 0, after = 0;
	for (int i = 0; i < 4; i++) {
		if (tag_next(text, n, &at) != shape[i])
			return 0;
		/* before <think> and between </think> and <answer> */
		if (i % 2 == 0 && !blank(text, after, at))
			return 0;
		after = at += tag_length(shape[i]);
	}
	return (float)blank(text, after, n); /* so no fifth tag either */
}

int reward_names(const struct reward_options *o, const char *names[GROUP_MAX_REWARDS])
{
	int count = 0;
	if (o->accuracy != 0)
		names[count++] = "accuracy";
	if (o->format != 0)
		names[count++] = "format";
	return count;
}

void reward_group(struct group *g, const struct reward_options *o, const struct reward_target *t)
{
	const char *names[GROUP_MAX_REWARDS];
	int count = reward_names(o, names);
	group_set_rewards(g, count);
	for (int i = 0; i < g->responses; i++) {
		const char *text = g->text[i];
		size_t n = strlen(text);
		char *answer = reward_answer(text, n);
		int row = 0;
		if (o->accuracy != 0) {
			float value = o->accuracy_mode == ACCURACY_VISUAL_RFT ? reward_accuracy_visual_rft(text, n, t)
			                                                      : accuracy_of(answer, t);
			g->rewards[row++ * g->responses + i] = value;
			g->reward[i] += o->accuracy * value;
		}
		if (o->format != 0) {
			float value = reward_format(text, n);
			g->rewards[row * g->responses + i] = value;
			g->reward[i] += o->format * value;
		}
		g->answered[i] = answer != NULL;
		g->answer[i] = answer ? answer : favor_strdup("");
	}
}
