/* favor eval: greedy answers to data.eval; under mpirun the ranks share the records. */
#include "app/commands.h"
#include "app/options.h"
#include "app/phase.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Without a run folder the table is all: eval must not need to write. */
static int has_folder(const struct setup *s)
{
	struct stat st;
	return stat(s->config.run.dir, &st) == 0;
}

static int report(const struct setup *s, const struct evaluation *v, const char *name, struct favor_error *e)
{
	char *path = favor_format("%s/eval-%s.json", s->config.run.dir, name);
	evaluation_print(v, stdout);
	int result = 0;
	if (has_folder(s)) {
		result = evaluation_write(v, path, e);
		if (!result)
			fprintf(stderr, "favor: predictions with their traces in %s\n", path);
	}
	free(path);
	return result;
}

int cmd_eval(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] = "eval CONFIG.yaml [key.path=value ...] [--name NAME] [--device D]";
	const char *name = "latest", *device = NULL, *words[256];
	int count, code;
	const struct option options[] = {
	    {"--name", OPTION_TEXT, &name, 0, 0, "predictions go to run.dir/eval-NAME.json (default: latest)"},
	    {"--device", OPTION_TEXT, &device, 0, 0, "cuda, cpu or auto: instead of the configuration's device"}};
	struct world *w = world_open(&argc, &argv);
	code = options_parse(argc, argv, options, 2, words, 255, &count, usage, e);
	if (code == 0 && count < 1)
		code = favor_fail(e, "usage: favor %s", usage);
	if (code == 0 && (strchr(name, '/') || !*name))
		code = favor_fail(e, "--name is part of a file's name: \"%s\" %s", name, *name ? "has a /" : "is empty");
	enum device named;
	if (code == 0 && device)
		code = device_named("--device", device, &named, e);
	if (code)
		return setup_end(w, code < 0 ? 2 : 0, e);
	char *override = device ? favor_format("device=%s", device) : NULL;
	if (override)
		words[count++] = override;
	struct setup s;
	struct rollout r = {0};
	struct evaluation v = {0};
	int64_t round_number = 0;
	int input = setup_open(&s, w, words[0], words + 1, count - 1, NEED_EVAL, e);
	if (!input)
		input = world_agree(w, !world_plays(w, ROLE_ROLLOUT) || !setup_rollout(&s, &r, e), e);
	int bad = 0;
	if (!input) {
		setup_say_device(&s);
		if (world_is_leader(w) && !has_folder(&s)) /* before the work, not after it */
			fprintf(stderr, "favor: %s is not there: predictions will not be written\n", s.config.run.dir);
		phase_evaluate(&s, r.model ? &r : NULL, &round_number, 0, &v);
		bad = world_agree(w, !world_is_leader(w) || !report(&s, &v, name, e), e);
	}
	evaluation_free(&v);
	if (r.model)
		rollout_free(&r);
	setup_close(&s);
	free(override);
	return setup_end(w, input ? 2 : bad ? 1 : 0, e);
}
