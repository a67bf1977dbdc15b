/* Messages between ranks, as any rank may find them in its mail: the first byte is this rank, the second its state,
 * then messages of (source, kind, length in two bytes, bytes). MPI is played by the functions below; favor_die, which
 * is the right answer to nonsense, comes back here. The world has 4 ranks: a learner that leads, a reward rank, two
 * rollout ranks. */
#include "fuzz.h"

#include "comm/internal.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 4, COLOCATE = 1, OFFERED = 2, ASKED = 4, SURVIVES = 8 };

/* The mail that is left. */
static const uint8_t *mail_at;
static size_t mail_left, probed; /* probed: bytes of the message that Improbe found */
static jmp_buf death;
static char last_words[FAVOR_ERROR_MAX];

#ifdef FUZZ_ASAN
void __lsan_disable(void);
void __lsan_enable(void);
#define LEAKS_ALLOWED(x) __lsan_##x()
#else
#define LEAKS_ALLOWED(x) ((void)0)
#endif

/* The linker leads calls of favor_die here (--wrap). What a job that ends has not freed is no leak. */
_Noreturn void __wrap_favor_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void __wrap_favor_die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(last_words, sizeof last_words, format, args);
	va_end(args);
	longjmp(death, 1);
}

/* A rank that hears that it is lost. */
int raise(int signal)
{
	(void)signal;
	snprintf(last_words, sizeof last_words, "lost");
	longjmp(death, 1);
}

int MPI_Improbe(int source, int tag, MPI_Comm comm, int *flag, MPI_Message *message, MPI_Status *status)
{
	(void)source, (void)tag, (void)comm;
	*flag = mail_left >= 4;
	if (!*flag)
		return MPI_SUCCESS;
	size_t n = (size_t)mail_at[2] | (size_t)mail_at[3] << 8;
	if (n > mail_left - 4)
		n = mail_left - 4;
	status->MPI_SOURCE = mail_at[0] % RANKS;
	status->MPI_TAG = mail_at[1];
	probed = n;
	*message = MPI_MESSAGE_NULL;
	return MPI_SUCCESS;
}

int MPI_Get_count(const MPI_Status *status, MPI_Datatype type, int *count)
{
	(void)type, (void)status;
	*count = (int)probed;
	return MPI_SUCCESS;
}

int MPI_Imrecv(void *to, int count, MPI_Datatype type, MPI_Message *message, MPI_Request *request)
{
	(void)type, (void)message;
	FUZZ_WANT(count >= 0 && (size_t)count + 4 <= mail_left);
	memcpy(to, mail_at + 4, (size_t)count);
	mail_at += 4 + count;
	mail_left -= 4 + (size_t)count;
	*request = MPI_REQUEST_NULL;
	return MPI_SUCCESS;
}

int MPI_Test(MPI_Request *request, int *flag, MPI_Status *status)
{
	(void)status;
	*request = MPI_REQUEST_NULL;
	*flag = 1;
	return MPI_SUCCESS;
}

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
	(void)data, (void)type, (void)tag, (void)comm;
	FUZZ_WANT(count >= 0 && to >= 0 && to < RANKS);
	*request = MPI_REQUEST_NULL;
	return MPI_SUCCESS;
}

static void open_world(struct world *w, int rank, int state)
{
	*w = (struct world){.rank = rank % RANKS,
	                    .size = RANKS,
	                    .assigned = 1,
	                    .rollouts = 2,
	                    .rewards = 1,
	                    .learner_count = 1,
	                    .colocate = (state & COLOCATE) != 0,
	                    .deadline = 60,
	                    .phase = "start",
	                    .step = 3,
	                    .sample = -1};
	if (w->colocate)
		w->rollouts = w->rewards = w->learner_count = RANKS;
	w->peers = favor_calloc(RANKS, sizeof *w->peers);
	for (int r = 0; r < RANKS; r++) {
		w->peers[r].beat_request = MPI_REQUEST_NULL;
		snprintf(w->peers[r].host, sizeof w->peers[r].host, "node%d", r);
	}
	w->survives = state & SURVIVES && !w->colocate;
	w->over = w->arrivals.round = -1;
	if (w->rank == LEADER && state & OFFERED)
		world_offer(w, 3, 100, 4, 1);
	if (state & ASKED) {
		w->pull = PULL_ASKED;
		w->answer.step = 3;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w;
	if (size < 2)
		return 0;
	LEAKS_ALLOWED(disable);
	open_world(&w, data[0], data[1]);
	mail_at = data + 2;
	mail_left = size - 2;
	last_words[0] = 0;
	if (setjmp(death) == 0) {
		world_progress(&w);
		FUZZ_WANT(mail_left < 4);
		for (int s = 0; s < STAGES; s++)
			for (struct group *g; (g = world_try(&w, (enum stage)s));)
				group_destroy(g);
		if (w.rank == LEADER && w.survives && data[1] & OFFERED)
			world_lose(&w, 3, 0);
		world_beat(&w, "wait", 0);
	} else {
		FUZZ_WANT(last_words[0]);
	}
	world_free_inbox(&w);
	world_free_ledger(&w);
	world_free_star(&w);
	world_free_mail(&w);
	free(w.peers);
	LEAKS_ALLOWED(enable);
	return 0;
}
