/* See stop.h. */
#include "base/stop.h"

#include <signal.h>
#include <stddef.h>

static const int watched[] = {SIGTERM, SIGUSR1, SIGUSR2, SIGINT};
enum { WATCHED = sizeof watched / sizeof *watched };

static volatile sig_atomic_t first;

/* Async-signal-safe: a store, and for the second Ctrl-C signal() and raise(). */
static void note(int signal_number)
{
	if (!first) {
		first = signal_number;
	} else if (signal_number == SIGINT && first == SIGINT) {
		signal(SIGINT, SIG_DFL);
		raise(SIGINT);
	}
}

void stop_watch(void)
{
	/* SA_RESTART: a read or write that a signal comes into goes on */
	struct sigaction a = {.sa_handler = note, .sa_flags = SA_RESTART};
	sigemptyset(&a.sa_mask);
	first = 0;
	for (int i = 0; i < WATCHED; i++)
		sigaction(watched[i], &a, NULL);
}

void stop_unwatch(void)
{
	for (int i = 0; i < WATCHED; i++)
		signal(watched[i], SIG_DFL);
}

int stop_signal(void)
{
	return first;
}

const char *stop_name(int signal_number)
{
	switch (signal_number) {
	case SIGTERM: return "SIGTERM";
	case SIGUSR1: return "SIGUSR1";
	case SIGUSR2: return "SIGUSR2";
	case SIGINT: return "SIGINT";
	default: return "a signal";
	}
}
