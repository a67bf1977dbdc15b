/* Waiting, and how a job ends that would otherwise hang.
 *
 * A rank that computes calls world_tick, one that waits is in world_wait; both send the leader a heartbeat a second,
 * marked as work or as waiting. The leader tells all ranks once a second whether anybody works. So
 *  - a wait in a job where somebody works is patient: what it waits for may take hours;
 *  - when everybody waits, the leader speaks after `deadline` seconds. It knows who was silent longest: ranks that
 *    wait are heard every second, so that is the one that hangs, even if the leader waits for another one that waits
 *    for that one;
 *  - if the leader itself hangs nobody hears that somebody works, and the others speak OTHERS_LATER seconds later,
 *    lower ranks first, far enough from one another that the job is over before the second would speak. */
#include "comm/internal.h"

#include "base/fault.h"
#include "base/stop.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const double OTHERS_LATER = 2.0; /* seconds */
static const double STAGGER = 2.0, STAGGER_MOST = 30.0;
static const double BEAT_SECONDS = 1.0, PHASE_BEAT_SECONDS = 0.1;
static const double PAUSE = 0.25; /* a turn that took longer: this process did not run */
static const long NAP_FIRST = 20000, NAP_LAST = 2000000; /* nanoseconds */

void world_peer_text(const struct world *w, int peer, char *text, size_t size)
{
	snprintf(text, size, "rank %d (%s on %s)", peer, world_role_name(w, peer), w->peers[peer].host);
}

double world_beat_seconds(const struct world *w)
{
	return w->deadline / 4 < BEAT_SECONDS ? w->deadline / 4 : BEAT_SECONDS;
}

void world_seen(struct world *w, int peer)
{
	w->peers[peer].seen = clock_seconds();
}

static void sign_of_work(struct world *w)
{
	w->signs++;
	w->work_heard = 1;
}

void world_take_beat(struct world *w, int peer, const struct beat *b)
{
	struct peer *p = &w->peers[peer];
	p->last = *b;
	p->last.phase[PHASE_MAX - 1] = 0;
	p->heard = 1;
	if (b->works)
		sign_of_work(w);
}

static void send_beat(struct world *w, int peer, const char *phase, int works)
{
	struct peer *p = &w->peers[peer];
	if (!world_test(w, &p->beat_request, peer))
		return; /* the last one is not taken yet: the next one will do */
	p->beat = (struct beat){.step = w->step, .sample = w->sample, .works = works};
	snprintf(p->beat.phase, sizeof p->beat.phase, "%s", phase);
	world_isend(w, &p->beat, (int)sizeof p->beat, MPI_BYTE, peer, TAG_BEAT, w->mail, &p->beat_request);
}

static void beat_now(struct world *w, const char *phase, int works, double now)
{
	w->beat_time = now;
	if (w->rank != LEADER) {
		send_beat(w, LEADER, phase, works);
		return;
	}
	int somebody = works || w->work_heard;
	for (int r = 1; r < w->size; r++)
		if (!w->peers[r].bye && !w->peers[r].lost)
			send_beat(w, r, phase, somebody);
	w->work_heard = 0;
}

void world_beat(struct world *w, const char *phase, int works)
{
	double now = clock_seconds();
	if (!w->alone && !w->bye_said && now - w->beat_time >= world_beat_seconds(w))
		beat_now(w, phase, works, now);
}

void world_phase(struct world *w, const char *phase, int64_t step, int64_t sample)
{
	struct favor_process *process = favor_process();
	process->phase = w->phase = phase;
	process->step = w->step = step;
	process->sample = w->sample = sample;
	double now = clock_seconds();
	/* told at once, so that a rank that hangs right after it is known to be in this phase */
	if (!w->alone && w->rank != LEADER && now - w->beat_time >= PHASE_BEAT_SECONDS)
		beat_now(w, phase, 1, now);
	fault_point(phase, step);
}

/* The leader's word alone counts, so that whoever knows of the stop knows that the leader does. */
static void begin_stop(struct world *w, int signal)
{
	struct stop_notice n = {signal};
	if (w->stop)
		return;
	w->stop = signal;
	for (int r = 1; r < w->size; r++)
		if (!w->peers[r].bye && !w->peers[r].lost)
			world_send(w, r, TAG_STOP, &n, NULL, sizeof n);
}

void world_watch_signals(struct world *w)
{
	int signal = stop_signal();
	if (!signal || w->stop_told || w->bye_said)
		return;
	w->stop_told = 1;
	if (w->rank == LEADER) {
		begin_stop(w, signal);
	} else if (!w->stop) {
		struct stop_notice n = {signal};
		world_send(w, LEADER, TAG_STOP, &n, NULL, sizeof n);
	}
}

void world_take_stop(struct world *w, int peer, const struct stop_notice *n)
{
	if (w->rank == LEADER)
		begin_stop(w, (int)n->signal);
	else if (peer == LEADER)
		w->stop = (int)n->signal;
}

int world_stopping(const struct world *w)
{
	return w->stop;
}

int world_tick(struct world *w)
{
	fault_point(w->phase, w->step);
	world_watch_signals(w);
	if (!w->alone) {
		world_progress(w);
		world_beat(w, w->phase, 1);
	}
	return w->stop;
}

double world_idle_seconds(struct world *w)
{
	double idle = w->idle;
	w->idle = 0;
	return idle;
}

int world_has_left(const struct world *w, int peer)
{
	return w->peers[peer].bye >= (w->rank == LEADER && w->survives && w->bye_said ? 2 : 1);
}

/* Whom to name: the leader, who hears everybody, names whom it has not heard longest; but the one that it waits for
 * if they are all heard. Others hear the leader alone, and it should have spoken before them. -1: not known. */
static int suspect(const struct world *w, int peer, double now)
{
	double margin = 2 * world_beat_seconds(w);
	if (w->rank != LEADER)
		return now - w->peers[LEADER].seen > margin ? LEADER : peer;
	int found = peer > 0 ? peer : -1;
	for (int r = 1; r < w->size; r++) {
		double lead = found < 0 ? 0 : w->peers[found].seen - w->peers[r].seen;
		if (!world_has_left(w, r) && !w->peers[r].lost && (found < 0 || lead > (found == peer ? margin : 0)))
			found = r;
	}
	return found;
}

/* Nobody has been heard for too long: ends the job, unless it can go on without the one that is to blame. */
static void give_up(struct world *w, const char *what, int peer, double silence)
{
	static const char remedy[] = "see its log, memory and load; if a phase may be silent that long, raise run.deadline";
	static const char unlikely[] = "if the network is sound this is an error of favor, please report it";
	double now = clock_seconds();
	int who = suspect(w, peer, now);
	const double quiet = who < 0 ? 0 : now - w->peers[who].seen;
	if (w->rank == LEADER && who > 0 && quiet > 2 * world_beat_seconds(w) && world_can_lose(w, who)) {
		world_lose(w, who, quiet);
		return;
	}
	favor_process()->phase = what;
	if (who < 0)
		favor_die("nothing has come and nobody has worked for %.0f s; %s", silence, remedy);
	const struct peer *p = &w->peers[who];
	const char *role = world_role_name(w, who);
	char known[PHASE_MAX + 128] = "never heard of";
	if (p->heard)
		snprintf(known, sizeof known, "last phase %s, step %lld, sample %lld, %.0f s ago", p->last.phase,
		         (long long)p->last.step, (long long)p->last.sample, now - p->seen);
	if (now - p->seen <= 2 * world_beat_seconds(w))
		favor_die("all ranks only wait, for %.0f s now; among them rank %d (%s on %s, %s); %s", silence, who, role,
		          p->host, known, w->remedy ? w->remedy : unlikely);
	favor_die("no sign of life for %.0f s from rank %d (%s on %s, %s); %s", silence, who, role, p->host, known, remedy);
}

static double patience(const struct world *w)
{
	if (w->rank == LEADER)
		return w->deadline;
	double stagger = STAGGER * w->rank;
	return w->deadline + OTHERS_LATER + (stagger < STAGGER_MOST ? stagger : STAGGER_MOST);
}

void world_wait(struct world *w, int (*done)(struct world *w, void *arg), void *arg, const char *what, int peer)
{
	fault_point(what, w->step);
	world_watch_signals(w);
	world_progress(w);
	if (done(w, arg))
		return;
	if (w->alone) {
		favor_process()->phase = what;
		favor_die("there is one rank alone, nobody can send it anything; this is an error of favor, please report it");
	}
	double start = clock_seconds(), last = start, silence = 0;
	uint64_t signs = w->signs, taken_in = w->taken_in;
	struct timespec nap = {0, NAP_FIRST};
	for (;;) {
		nanosleep(&nap, NULL);
		nap.tv_nsec = 2 * nap.tv_nsec < NAP_LAST ? 2 * nap.tv_nsec : NAP_LAST;
		world_watch_signals(w);
		world_progress(w);
		if (w->taken_in != taken_in) { /* others are lively: more may follow soon */
			taken_in = w->taken_in;
			nap.tv_nsec = NAP_FIRST;
		}
		double now = clock_seconds();
		if (done(w, arg)) {
			w->idle += now - start;
			return;
		}
		/* Time counts while this rank watches: if the whole job was stopped (^Z) nobody is to blame. */
		silence += now - last < PAUSE ? now - last : PAUSE;
		last = now;
		if (w->signs != signs) {
			signs = w->signs;
			silence = 0;
		}
		if (silence > patience(w)) {
			give_up(w, what, peer, silence);
			silence = 0;
		}
		world_beat(w, what, 0);
	}
}

static int is_complete(struct world *w, void *request)
{
	int flag = 0, rc = MPI_Request_get_status(*(MPI_Request *)request, &flag, MPI_STATUS_IGNORE);
	/* a failed one is complete; MPI_Wait says with what */
	if (rc != MPI_SUCCESS && world_is_failure(rc))
		return 1;
	world_check(w, rc, "MPI_Request_get_status");
	return flag;
}

void world_wait_request(struct world *w, MPI_Request *request, MPI_Status *status, const char *what, int peer)
{
	world_wait(w, is_complete, request, what, peer);
	world_check(w, MPI_Wait(request, status), "MPI_Wait"); /* returns at once, and frees the request */
}
