/* A model folder's chat template, which is only compared and never run: chat_template.jinja, FUZZ_CUT,
 * chat_template.json, FUZZ_CUT, tokenizer_config.json, FUZZ_CUT, a user's text. */
#include "fuzz.h"

#include "data/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
	struct fuzz_part parts[FUZZ_PARTS];
	int count = fuzz_parts(data, size, parts);
	for (int i = 0; i < 3; i++) {
		if (i < count && parts[i].n)
			fuzz_write(names[i], parts[i]);
		else
			fuzz_remove(names[i]);
	}
	char *difference = template_difference(fuzz_folder());
	FUZZ_WANT(!difference || strstr(difference, fuzz_folder()));
	free(difference);
	char *user = fuzz_text(parts[3]);
	for (int images = 0; images < 3; images++) {
		char *text = template_render(images ? user : NULL, images, user);
		FUZZ_WANT(strstr(text, user)); /* as it is: nothing in it is a command */
		free(text);
	}
	free(user);
	return 0;
}
