/* What a model wrote, FUZZ_CUT, the label, FUZZ_CUT, an alias: rewards of every rule. The input is unpacked as it would
 * come to a reward rank, so it holds no NUL; the functions that take a length get the bytes as they are. */
#include "fuzz.h"

#include "reward/reward.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_part parts[FUZZ_PARTS];
	fuzz_parts(data, size, parts);
	char *text = fuzz_text(parts[0]), *label = fuzz_text(parts[1]), *alias = fuzz_text(parts[2]);
	const char *aliases[] = {alias};
	struct reward_target t = {label, aliases, alias[0] != 0};
	float accuracy = reward_accuracy(text, parts[0].n, &t), format = reward_format(text, parts[0].n);
	float loose = reward_accuracy_visual_rft(text, parts[0].n, &t);
	FUZZ_WANT((accuracy == 0 || accuracy == 1) && (format == 0 || format == 1) && (loose == 0 || loose == 1));
	char *answer = reward_answer(text, parts[0].n);
	FUZZ_WANT(accuracy == 0 || answer);
	if (answer) {
		FUZZ_WANT(answer[0]);
		char *twice = reward_normalise(answer, strlen(answer)); /* the normal form is one */
		FUZZ_WANT(strcmp(answer, twice) == 0);
		free(twice);
	}
	free(answer);

	struct reward_options o = {.accuracy = 1,
	                           .format = 0.5f,
	                           .accuracy_mode = size % 2 ? ACCURACY_STRICT : ACCURACY_VISUAL_RFT};
	struct group *g = group_new(2, 0);
	g->text[0] = favor_strdup(text);
	g->text[1] = favor_strdup("");
	reward_group(g, &o, &t);
	FUZZ_WANT(g->reward_count == 2 && g->reward[0] == g->rewards[0] + 0.5f * g->rewards[2]);
	FUZZ_WANT(g->answer[0] && g->answer[1]);
	group_destroy(g);
	free(text);
	free(label);
	free(alias);
	return 0;
}
