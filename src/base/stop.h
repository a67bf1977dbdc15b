/* Signals that ask a run to stop: a scheduler's warning, a time limit, Ctrl-C. The handler only notes the first one;
 * who works looks at stop_signal between two pieces of work and decides what to do (comm/world.h passes it on to all
 * ranks). State of the process, as signals are. */
#ifndef FAVOR_BASE_STOP_H
#define FAVOR_BASE_STOP_H

/* From now on SIGTERM, SIGUSR1, SIGUSR2 and SIGINT are noted instead of ending the process. A second SIGINT ends it at
 * once (Ctrl-C twice); further ones of the others change nothing, since schedulers send several in a row: a warning,
 * then SIGTERM while the checkpoint is being written. Call it after MPI_Init, which may set handlers of its own. */
void stop_watch(void);
/* The signals do again what they do by default. */
void stop_unwatch(void);
/* The first signal that came since stop_watch; 0: none. */
int stop_signal(void);
/* "SIGTERM"; static. */
const char *stop_name(int signal);

/* Exit code of a run that was stopped and has saved what it had done: start it again with --resume auto. It is
 * EX_TEMPFAIL of sysexits.h, so that scripts can tell it from a failure (1) and from bad input (2). */
enum { STOP_EXIT_CODE = 75 };

#endif
