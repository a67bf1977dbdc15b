/* The configuration: YAML, and up to three overrides. What is taken prints as YAML that is taken again and prints
 * alike. */
#include "fuzz.h"

#include "base/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	struct config c = {0}, again = {0};
	int count = fuzz_parts(data, size, parts);
	char *text[FUZZ_PARTS];
	for (int i = 0; i < count; i++)
		text[i] = fuzz_text(parts[i]);
	/* from a file: the text may hold NULs */
	const char *path = fuzz_write("run.yaml", parts[0]);
	if (config_load(&c, path, (const char *const *)text + 1, count - 1, &e)) {
		fuzz_want_message(&e, "");
	} else {
		char *yaml = config_to_yaml(&c);
		if (config_parse(&again, yaml, "printed", NULL, 0, &e)) {
			fuzz_broken(__FILE__, __LINE__, e.message);
		}
		char *twice = config_to_yaml(&again);
		FUZZ_WANT(strcmp(yaml, twice) == 0);
		free(yaml);
		free(twice);
		config_free(&c);
		config_free(&again);
	}
	for (int i = 0; i < count; i++)
		free(text[i]);
	return 0;
}
