/* Visual-RFT's accuracy rule for classification (its public training script), for comparison with that project alone:
 *
 *  - the answer is what stands in the FIRST <answer>...</answer> that opens and closes on one line (its pattern's dot
 * does not match a line feed), stripped of white space; where there is none, the whole response is the answer;
 *  - spaces and underscores are taken out of answer and label, both are put into lower case as Python's str.lower()
 * does;
 *  - 1 if either contains the other.
 *
 * So an empty answer, a part of a label, a single letter of it, and a list of all labels are right: the holes that the
 * strict rule closes. Two things differ from that script: it first asks a mathematics checker, which has no say on
 * names of activities and is left out here; and aliases, which it does not know, count like labels. str.lower()'s final
 * sigma is not followed: sigma is one letter here. */
#include "reward/reward.h"

#include "base/error.h"
#include "data/label.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* What Python's str.strip() takes away. */
static int python_space(int32_t p)
{
	return utf8_is_space(p) || (p >= 0x1C && p <= 0x1F);
}

/* Stripped, without ' ' and '_', in lower case; bytes that are no UTF-8 stay. *length = its bytes. Owned by the caller.
 */
static char *squeeze(const char *s, size_t n, size_t *length)
{
	size_t first = n, end = n, used;
	int32_t point;
	for (size_t i = 0; i < n; i += used) {
		used = utf8_char(s + i, n - i, &point);
		if (python_space(point))
			continue;
		if (first == n)
			first = i;
		end = i + used;
	}
	/* a lower case letter takes at most half as many bytes again as its capital (two to three); dotted I becomes i and
	 * a dot (three) */
	char *out = favor_malloc(2 * (end - first) + 1);
	*length = 0;
	for (size_t i = first; i < end; i += used) {
		used = utf8_char(s + i, end - i, &point);
		if (point == ' ' || point == '_')
			continue;
		if (point < 0) {
			out[(*length)++] = s[i];
		} else if (point == 0x130) {
			memcpy(out + *length, "i\xCC\x87", 3);
			*length += 3;
		} else {
			if (point == 0x03C2)
				point = 0x03C3; /* final sigma */
			*length += (size_t)utf8proc_encode_char(utf8proc_tolower(point), (utf8proc_uint8_t *)out + *length);
		}
	}
	return out;
}

/* The first pair of tags on one line; the whole text if there is none. */
static void find(const char *text, size_t n, size_t *start, size_t *length)
{
	for (size_t at = 0; at < n;) {
		const char *feed = memchr(text + at, '\n', n - at);
		size_t end = feed ? (size_t)(feed - text) : n;
		const char *open = memmem(text + at, end - at, "<answer>", 8);
		if (open) {
			size_t inside = (size_t)(open - text) + 8;
			const char *close = memmem(text + inside, end - inside, "</answer>", 9);
			if (close) {
				*start = inside;
				*length = (size_t)(close - text) - inside;
				return;
			}
		}
		at = end + 1;
	}
	*start = 0;
	*length = n;
}

static int contains(const char *a, size_t n, const char *b, size_t m)
{
	return m == 0 || memmem(a, n, b, m) != NULL;
}

float reward_accuracy_visual_rft(const char *text, size_t n, const struct reward_target *t)
{
	size_t start, length, answer_length;
	find(text, n, &start, &length);
	char *answer = squeeze(text + start, length, &answer_length);
	int right = 0;
	for (int i = -1; i < t->alias_count && !right; i++) {
		const char *name = i < 0 ? t->label : t->aliases[i];
		size_t wanted_length;
		char *wanted = squeeze(name, strlen(name), &wanted_length);
		right = contains(answer, answer_length, wanted, wanted_length) ||
		        contains(wanted, wanted_length, answer, answer_length);
		free(wanted);
	}
	free(answer);
	return (float)right;
}
