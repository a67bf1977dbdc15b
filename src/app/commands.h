/* The program's subcommands, one file each (cmd_*.c). argv[0] is the subcommand's name. Each returns the exit code: 0
 * good, 1 the work failed, 2 bad usage or input; on 1 and 2 the message is in *e and main prints it. `--help` prints to
 * stdout and returns 0. */
#ifndef FAVOR_APP_COMMANDS_H
#define FAVOR_APP_COMMANDS_H

#include "base/error.h"

int cmd_train(int argc, char **argv, struct favor_error *e);
int cmd_eval(int argc, char **argv, struct favor_error *e);
int cmd_generate(int argc, char **argv, struct favor_error *e);
int cmd_score(int argc, char **argv, struct favor_error *e);
int cmd_tokenize(int argc, char **argv, struct favor_error *e);
int cmd_preprocess(int argc, char **argv, struct favor_error *e);
int cmd_synth(int argc, char **argv, struct favor_error *e);
int cmd_inspect(int argc, char **argv, struct favor_error *e);
int cmd_export(int argc, char **argv, struct favor_error *e);
int cmd_doctor(int argc, char **argv, struct favor_error *e);
int cmd_report(int argc, char **argv, struct favor_error *e);

#endif
