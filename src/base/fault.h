/* A test facility: makes this process fail on purpose, at a place that a test names. Compiled in always, so that what
 * is tested is what is shipped; without the variable FAVOR_FAULT a point is one comparison.
 *
 *   FAVOR_FAULT=POINT[@N]:RANK:STEP:ACTION[:ARGUMENT][,...]      rank and step: a number, or * for any
 *
 * POINT is a phase's name, as messages give it ("forward and backward", "wait for work"), or one of the places in
 * checkpoint_write (checkpoint.h). @N: at the N-th passage that matches; the first is the phase's beginning, each
 * world_tick inside of it is another. A fault fires once.
 *
 *   kill           SIGKILL: what a node's death and the kernel's out-of-memory killer do
 *   stop           SIGSTOP: a rank that freezes
 *   exit[:CODE]    _exit without a word (7)
 *   signal:N       the signal with that number, as a scheduler or a user sends it
 *   abort          SIGABRT: a crash
 *   sleep[:S]      S seconds without a sign of life (1)
 *   oom[:MIB]      takes memory until there is none; ends the job if MIB (1024) were there for the taking
 *   enospc:FILE    fills FILE until its disk is full; refuses a disk with more than 256 MiB left
 */
#ifndef FAVOR_BASE_FAULT_H
#define FAVOR_BASE_FAULT_H

#include "base/error.h"

/* Reads FAVOR_FAULT into favor_process()->faults; -1 with a message if it can't be understood. */
int fault_read(struct favor_error *e);
/* A fault of this point, process and step happens here, if there is one. */
void fault_point(const char *point, long long step);

#endif
