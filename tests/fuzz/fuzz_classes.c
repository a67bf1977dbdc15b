/* A list of classes, FUZZ_CUT, aliases (JSON), FUZZ_CUT, a prompt of one's own, FUZZ_CUT, a label. */
#include "fuzz.h"

#include "data/dataset.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	struct class_list c;
	fuzz_parts(data, size, parts);
	char *label = fuzz_text(parts[3]);
	char *images[] = {label};
	struct record r = {
	    .images = images, .image_count = 1, .label = label, .problem = label[0] ? label : NULL, .line = 1};
	char path[] = "set.jsonl";
	struct dataset d = {.path = path, .records = &r, .count = 1};
	struct data_options o = {.classes_file = (char *)(uintptr_t)fuzz_write("classes.txt", parts[0]),
	                         .aliases = (char *)(uintptr_t)fuzz_write("aliases.json", parts[1])};
	const char *prompt = fuzz_write("prompt.txt", parts[2]);
	if (classes_build(&c, &o, label[0] ? &d : NULL, NULL, &e)) {
		fuzz_want_message(&e, "");
	} else {
		FUZZ_WANT(c.count > 0 && c.alias_start[0] == 0);
		for (int32_t i = 0; i < c.count; i++)
			FUZZ_WANT(c.alias_start[i] <= c.alias_start[i + 1] && c.names[i][0]);
		for (int i = 0; i < 2; i++) {
			char *text = prompt_text(prompt, &c, &r, &e);
			if (!text)
				fuzz_want_message(&e, "data.prompt");
			free(text);
			r.problem = NULL;
		}
		free(target_text(prompt, &r));
		classes_free(&c);
	}
	free(label);
	return 0;
}
