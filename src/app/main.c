/* favor: the command line. Each subcommand is a file of its own (cmd_*.c). */
#include "app/commands.h"
#include "base/config.h"
#include "base/fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command {
	const char *name, *arguments, *what;
	int (*run)(int argc, char **argv, struct favor_error *e);
} COMMANDS[] = {
    {"train", "CONFIG.yaml [key.path=value ...] [--resume auto|CKPT.h5]",
     "train by GRPO or SFT (under mpirun: many ranks)", cmd_train},
    {"eval", "CONFIG.yaml [key.path=value ...] [--name NAME] [--device D]", "greedy accuracy on data.eval, with its 95% interval",
     cmd_eval},
    {"generate", "--model M [--image F ...] --prompt T [...]", "sample responses", cmd_generate},
    {"score", "--model M [--image F ...] --prompt T --response T", "log-probabilities of a response", cmd_score},
    {"tokenize", "--model M [--decode]", "lines of text to ids and back", cmd_tokenize},
    {"preprocess", "--model M --image F [...] --out X.safetensors", "an image as the vision tower takes it",
     cmd_preprocess},
    {"inspect", "CKPT.h5 [--json] [--verify]", "what a checkpoint holds", cmd_inspect},
    {"export", "CKPT.h5 DIR [--dtype float32|bfloat16]", "a checkpoint as a Hugging Face folder", cmd_export},
    {"report", "RUN_DIR", "one HTML file about a run", cmd_report},
    {"doctor", "[CONFIG.yaml [key.path=value ...]] [--dir DIR] [--seconds X] [--json]",
     "is this machine (under mpirun: are all ranks) fit for a run, and what to change", cmd_doctor},
    {"synth", "DIR [--train N --test N --size S --seed N --context P]", "draw the synthetic activity data set", cmd_synth},
};

static void usage(FILE *f)
{
	fprintf(f, "favor " FAVOR_VERSION
	           ": reinforcement fine-tuning (GRPO) of Qwen2-VL models for activity recognition\n\n");
	for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
		fprintf(f, "  favor %-10s %s\n%19s%s\n", COMMANDS[i].name, COMMANDS[i].arguments, "", COMMANDS[i].what);
	fprintf(f, "\nM is a Hugging Face folder or a checkpoint. `favor COMMAND --help` says more; `favor help config` "
	           "lists every option.\n"
	           "On several ranks: mpirun -n N favor train CONFIG.yaml; with Open MPI 5 and mpirun --with-ft ulfm ranks "
	           "that roll out or score may be lost without the job.\n"
	           "Exit codes: 0 good, 1 the work failed, 2 bad usage or bad input; train: 75 stopped by a signal, saved, "
	           "go on with --resume auto.\n");
}

/* OpenMP's threads spin for milliseconds while they wait, by default: with several ranks on a node they take the cores
 * from those that work (measured: ten times slower under load). Asleep at once, they wake too late for the next small
 * operation (measured: a tenth of a step). So they spin for the length of one, some 20 us, and then sleep. The library
 * reads its settings when it is loaded: they are set by starting again once. */
static void wait_briefly(char **argv)
{
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("OMP_WAIT_POLICY", "passive", 1) ||
	    setenv("GOMP_SPINCOUNT", "1000", 1))
		return;
	execv("/proc/self/exe", argv); /* where this fails, the run is slower, not wrong */
}

int main(int argc, char **argv)
{
	struct favor_error e = {""};
	wait_briefly(argv);
	signal(SIGXFSZ, SIG_IGN); /* a file that grows beyond ulimit -f: an error with a message, as a full disk is */
	if (fault_read(&e)) {
		fprintf(stderr, "favor: %s\n", e.message);
		return 2;
	}
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("favor " FAVOR_VERSION);
		return 0;
	}
	if (!strcmp(argv[1], "help") && argc > 2 && !strcmp(argv[2], "config")) {
		char *help = config_help();
		fputs(help, stdout);
		free(help);
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
		if (strcmp(argv[1], COMMANDS[i].name))
			continue;
		int code = COMMANDS[i].run(argc - 1, argv + 1, &e);
		if (code && e.message[0])
			fprintf(stderr, "favor: %s\n", e.message);
		return code;
	}
	fprintf(stderr, "favor: there is no command \"%s\"; `favor --help` lists them\n", argv[1]);
	return 2;
}
