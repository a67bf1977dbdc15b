/* Which answer of a response counts. A response has at most one final answer, and it can't be hedged:
 *
 *  1. Tags are <think>, </think>, <answer>, </answer>, byte for byte; anything else ("<Answer>", "< answer>") is text.
 *  2. What stands in <think>...</think> is reasoning. A think block that is never closed reaches to the end of the
 * text. A
 *     </think> without a <think> (prompts may open the block themselves) makes all before it reasoning.
 *  3. The final answer is the last pair of answer tags. It counts only if it stands outside of the reasoning and holds
 * no tag. Answer tags after it that are no such pair (one never closed, a stray </answer>, a pair inside of reasoning)
 * leave the response without a final answer: what it means is no longer clear, and nothing is gained by making it
 * unclear.
 *  4. An <answer> inside an open answer spoils the pair, whichever of the two was meant.
 *
 * So "<answer>a</answer> <answer>b</answer>" answers b, "<answer>a<answer>b</answer>" and "<answer>a</answer>
 * <answer>b" answer nothing. tests/golden/reward/adversarial.jsonl holds the verdicts. */
#include "reward/answer.h"

#include <string.h>

static const struct {
	const char *text;
	size_t length;
} tags[] = {[TAG_NONE] = {"", 0},
            [TAG_THINK] = {"<think>", 7},
            [TAG_THINK_END] = {"</think>", 8},
            [TAG_ANSWER] = {"<answer>", 8},
            [TAG_ANSWER_END] = {"</answer>", 9}};

size_t tag_length(enum tag t)
{
	return tags[t].length;
}

enum tag tag_next(const char *text, size_t n, size_t *at)
{
	for (size_t i = *at; i < n; i++) {
		const char *found = memchr(text + i, '<', n - i);
		if (!found)
			break;
		i = (size_t)(found - text);
		for (enum tag t = TAG_THINK; t <= TAG_ANSWER_END; t++) {
			if (n - i >= tags[t].length && memcmp(found, tags[t].text, tags[t].length) == 0) {
				*at = i;
				return t;
			}
		}
	}
	*at = n;
	return TAG_NONE;
}

int answer_find(const char *text, size_t n, size_t *start, size_t *length)
{
	int thinking = 0; /* inside <think> */
	int open = 0;     /* inside <answer> */
	int clean = 0;    /* no tag since that <answer> */
	int found = 0;
	size_t begin = 0;
	enum tag t;
	for (size_t at = 0; (t = tag_next(text, n, &at)) != TAG_NONE; at += tag_length(t)) {
		if (t == TAG_THINK) {
			thinking = 1;
			clean = 0;
		} else if (t == TAG_THINK_END) {
			if (!thinking)
				open = found = 0; /* rule 2: all before was reasoning */
			thinking = 0;
		} else if (thinking) {
			found = 0; /* rule 3 */
		} else if (t == TAG_ANSWER) {
			clean = !open; /* rule 4 */
			open = 1;
			found = 0;
			begin = at + tag_length(t);
		} else {
			found = open && clean;
			open = 0;
			*start = begin;
			*length = at - begin;
		}
	}
	return found;
}
