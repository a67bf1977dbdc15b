#include "dataset.h"

#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>

void fuzz_dataset(const char *path, const char *split)
{
	struct favor_error e = {""};
	struct dataset d;
	struct class_list c;
	struct data_options o = {.aliases = "", .classes_file = ""};
	if (dataset_load(&d, path, "", 0, split, split[0] ? "" : "train", &e)) {
		fuzz_want_message(&e, path);
		return;
	}
	FUZZ_WANT(d.count > 0);
	size_t n = strlen(fuzz_folder());
	for (int32_t i = 0; i < d.count; i++) {
		const struct record *r = &d.records[i];
		FUZZ_WANT(r->label && r->line >= 0 && r->image_count >= 0);
		for (int32_t k = 0; k < r->image_count; k++) {
			/* in the folder, by every reading of the path */
			FUZZ_WANT(strncmp(r->images[k], fuzz_folder(), n) == 0 && r->images[k][n] == '/');
			FUZZ_WANT(!strstr(r->images[k], "/../") && !strstr(r->images[k], "/./"));
			size_t m = strlen(r->images[k]);
			FUZZ_WANT(m < 3 || strcmp(r->images[k] + m - 3, "/.."));
		}
	}
	if (classes_build(&c, &o, &d, NULL, &e) == 0) {
		for (int32_t i = 0; i < d.count; i++) {
			FUZZ_WANT(d.records[i].label_index >= -1 && d.records[i].label_index < c.count);
			char *text = prompt_text(i % 2 ? "think" : "answer", &c, &d.records[i], &e);
			if (!text)
				fuzz_want_message(&e, "data.prompt");
			free(text);
			free(target_text("think", &d.records[i]));
			dataset_order(&d, 1, (uint64_t)i);
		}
		if (dataset_take_shots(&d, &c, 1, 7, &e))
			fuzz_want_message(&e, "");
		classes_free(&c);
	} else {
		fuzz_want_message(&e, path);
	}
	dataset_free(&d);
}
