/* favor synth DIR: writes the synthetic activity data set. */
#include "app/commands.h"
#include "data/synth.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static void help(void)
{
	struct synth_options o;
	synth_defaults(&o);
	printf(
		"usage: favor synth DIR [options]\n"
		"Draws a synthetic data set of %d activities: DIR/train.jsonl, DIR/test.jsonl, DIR/classes.txt, DIR/images/.\n"
		"The same options give the same images on every machine.\n"
		"  --train N   training images (default %d)\n"
		"  --test N    test images (default %d)\n"
		"  --size S    side in pixels; images vary in aspect ratio around it (default %d)\n"
		"  --seed N    (default %llu)\n"
		"  --context P chance that an activity is seen in its usual place (default %g)\n",
		synth_activity_count(), o.train, o.test, o.size, (unsigned long long)o.seed, o.context);
}

static int number(const char *option, const char *text, unsigned long long most, unsigned long long *out,
                  struct favor_error *e)
{
	char *end;
	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || *out > most)
		return favor_fail(e, "synth: --%s %s: a whole number from 0 to %llu is needed", option, text, most);
	return 0;
}

static int share(const char *option, const char *text, double *out, struct favor_error *e)
{
	char *end;
	*out = strtod(text, &end);
	if (end == text || *end || !(*out >= 0 && *out <= 1))
		return favor_fail(e, "synth: --%s %s: a number from 0 to 1 is needed", option, text);
	return 0;
}

int cmd_synth(int argc, char **argv, struct favor_error *e)
{
	static const struct option options[] = {
		{"train", required_argument, NULL, 't'}, {"test", required_argument, NULL, 'e'},
		{"size", required_argument, NULL, 's'},  {"seed", required_argument, NULL, 'r'},
		{"help", no_argument, NULL, 'h'},        {"context", required_argument, NULL, 'x'},
		{NULL, 0, NULL, 0}};
	struct synth_options o;
	synth_defaults(&o);
	optind = 0;
	for (int c, which = 0; (c = getopt_long(argc, argv, ":h", options, &which)) != -1;) {
		unsigned long long n = 0;
		if (c == 'h') {
			help();
			return 0;
		}
		if (c == ':' || c == '?') {
			favor_fail(
				e, c == ':' ? "synth: %s needs a value" : "synth: unknown option %s (favor synth --help lists them)",
				argv[optind - 1]);
			return 2;
		}
		if (c == 'x') {
			if (share(options[which].name, optarg, &o.context, e))
				return 2;
			continue;
		}
		if (number(options[which].name, optarg, c == 'r' ? UINT64_MAX : 999999, &n, e))
			return 2;
		*(c == 't' ? &o.train : c == 'e' ? &o.test : &o.size) = c == 'r' ? o.size : (int32_t)n;
		if (c == 'r')
			o.seed = n;
	}
	if (optind != argc - 1) {
		favor_fail(e, "synth: %s (usage: favor synth DIR [--train N --test N --size S --seed N --context P])",
		           optind == argc ? "which folder?" : "only one folder can be given");
		return 2;
	}
	return synth_write(argv[optind], &o, e) ? 2 : 0;
}
