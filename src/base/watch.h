/* Watches the main thread, so that a process that is stuck where it can't notice by itself (a file on a server that is
 * gone, a lock, a pipe, a call into MPI that blocks) ends with a message instead of hanging. One watch a process: a
 * thread of its own, which looks five times a second and holds no lock that the main thread might hold.
 *
 * Two rules:
 *  - Outside of watched calls the main thread moves if it uses processor time, if the process does (other threads that
 *    it waits for), or if it says so (watch_turn: a wait that has a deadline of its own). If nothing has moved for the
 *    deadline the process ends, and the message names the system call and the file in which the thread sleeps.
 *    Time in which the whole process did not run (^Z, a frozen container) doesn't count. A terminal or pipe that takes
 *    no output and an input that brings nothing are somebody's wish and are let be.
 *  - In a watched call (watch_enter ... watch_leave) the clock alone counts: a library may spin while it waits. All
 *    processes of a job enter the same calls in the same order; the thread's name carries the call's number, so that
 *    others on the host can see how far this process has come (comm/muster.c).
 *
 * Called from the main thread only. */
#ifndef FAVOR_BASE_WATCH_H
#define FAVOR_BASE_WATCH_H

#include <stddef.h>

#define WATCH_THREAD_NAME "favor-call" /* "favor-call 3": has entered the third watched call */

/* Who keeps this process waiting in its watched call `call`, as text; "" if that can't be seen from here. Returns how
 * many seconds later than the deadline this process should speak, so that one process of the job speaks first. Runs on
 * the watch's thread. */
typedef double watch_missing(int call, char *text, size_t size);

/* seconds: the deadline of calls and of standing still. remedy: static, what to do if that was too short. missing may
 * be NULL. */
void watch_start(double seconds, const char *remedy, watch_missing *missing);
/* Another deadline from now on. quiet: for standing still; shorter, where others wait for this process with the same
 * deadline: it knows best what it is stuck in and should speak before them. */
void watch_deadline(double seconds, double quiet, const char *remedy);
/* Ends the thread. Does nothing where none was started. */
void watch_stop(void);

void watch_turn(void);

/* call: static, "MPI_Finalize". may_abort: the job can be ended through favor_process()->abort_job while in it. */
void watch_enter(const char *call, int may_abort);
void watch_leave(void);

#endif
