/* favor report RUN_DIR: writes RUN_DIR/report.html and prints its path. */
#include "app/commands.h"
#include "report/report.h"

#include <stdio.h>
#include <string.h>

static const char usage[] = "usage: favor report RUN_DIR\n"
                            "\n"
                            "Writes RUN_DIR/report.html: one HTML file that needs no network, with the curves, the\n"
                            "evaluations and a gallery of groups of a run (finished or still going on), from its\n"
                            "metrics.jsonl, samples.jsonl, eval-*.json and config.yaml.\n";

int cmd_report(int argc, char **argv, struct favor_error *e)
{
	const char *run_dir = NULL;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
		if (argv[i][0] == '-' && argv[i][1]) {
			favor_fail(e, "favor report has no option %s; see favor report --help", argv[i]);
			return 2;
		}
		if (run_dir) {
			favor_fail(e, "favor report takes one RUN_DIR, not also %s", argv[i]);
			return 2;
		}
		run_dir = argv[i];
	}
	if (!run_dir) {
		favor_fail(e, "favor report needs the folder of a run: favor report RUN_DIR");
		return 2;
	}
	if (report_write(run_dir, e) != 0)
		return 2;
	printf("%s/report.html\n", run_dir);
	return 0;
}
