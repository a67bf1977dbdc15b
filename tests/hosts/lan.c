/* A network between network namespaces, in one process: delay, loss, a slow line and cut cables, without what the kernel
 * may lack (netem, nftables) and with the same losses each time.
 *
 *   lan HOSTS PREFIX [delay=MS] [loss=PERCENT] [rate=MBIT] [seed=N]
 *
 * Host i lives in the namespace of the file PREFIXi (unshare --net=FILE) and gets the interface lan0, 10.99.0.(1+i)/24. Its packets come
 * out of a tunnel device here, wait for their time and go into the tunnel of the host that they are for. delay is that
 * of one way; rate is what each host may send; what would wait for longer than QUEUE_SECONDS for its turn is dropped, as
 * a switch does. Lines on stdin change the network: "delay 50", "loss 1", "rate 10", "cut 2", "join 2". The end of stdin
 * ends it, and the interfaces go with it. Prints "ready" when all are up. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS_MAX = 16, PACKET_MAX = 2048, HEADER = 20 };
static const double QUEUE_SECONDS = 0.5;

struct packet {
	struct packet *next;
	double due;
	int from, to;
	size_t bytes;
	unsigned char data[PACKET_MAX];
};

struct lan {
	int hosts;
	int tunnel[HOSTS_MAX], cut[HOSTS_MAX];
	double sends_until[HOSTS_MAX]; /* when the line of a host is free again */
	double delay, loss, rate;      /* seconds, share, bits a second (0: no limit) */
	uint64_t random;
	struct packet *first, *last;   /* under way, by due time */
	struct packet *spare;
};

static _Noreturn void die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "lan: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void set_address(struct ifreq *r, uint32_t address)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	memcpy(&r->ifr_addr, &a, sizeof a);
}

static void set_up(int control, const char *name)
{
	struct ifreq r = {0};
	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	if (ioctl(control, SIOCGIFFLAGS, &r))
		die("%s", name);
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(control, SIOCSIFFLAGS, &r))
		die("%s up", name);
}

/* The tunnel device of host i; this process is in its namespace meanwhile. */
static int open_tunnel(int i)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), control = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "lan0", .ifr_flags = IFF_TUN | IFF_NO_PI};
	if (fd < 0 || control < 0 || ioctl(fd, TUNSETIFF, &r))
		die("/dev/net/tun");
	set_address(&r, 0x0a630001u + (uint32_t)i); /* 10.99.0.1 + i */
	if (ioctl(control, SIOCSIFADDR, &r))
		die("address of host %d", i);
	set_address(&r, 0xffffff00u);
	if (ioctl(control, SIOCSIFNETMASK, &r))
		die("netmask of host %d", i);
	set_up(control, "lan0");
	set_up(control, "lo");
	close(control);
	return fd;
}

static void open_hosts(struct lan *l, const char *prefix)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < l->hosts; i++) {
		char path[256];
		snprintf(path, sizeof path, "%s%d", prefix, i);
		int space = open(path, O_RDONLY | O_CLOEXEC);
		if (space < 0 || setns(space, CLONE_NEWNET))
			die("%s", path);
		l->tunnel[i] = open_tunnel(i);
		close(space);
	}
	if (home < 0 || setns(home, CLONE_NEWNET))
		die("/proc/self/ns/net");
	close(home);
}

/* Uniform in [0, 1): splitmix64. */
static double draw(struct lan *l)
{
	uint64_t z = l->random += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* When the packet arrives, or a negative number if it gets lost. */
static double arrival(struct lan *l, const struct packet *p)
{
	double t = now();
	if (l->cut[p->from] || l->cut[p->to] || draw(l) < l->loss)
		return -1;
	if (l->rate > 0) {
		double *until = &l->sends_until[p->from];
		if (*until < t)
			*until = t;
		if (*until - t > QUEUE_SECONDS)
			return -1;
		*until += (double)p->bytes * 8 / l->rate;
		t = *until;
	}
	return t + l->delay;
}

static void queue(struct lan *l, struct packet *p)
{
	struct packet **at = l->first && l->last->due <= p->due ? &l->last->next : &l->first;
	while (*at && (*at)->due <= p->due)
		at = &(*at)->next;
	p->next = *at;
	*at = p;
	if (!p->next)
		l->last = p;
}

/* All that host i has sent. */
static void take(struct lan *l, int i)
{
	for (;;) {
		struct packet *p = l->spare;
		if (p)
			l->spare = p->next;
		else if (!(p = malloc(sizeof *p)))
			die("memory");
		ssize_t n = read(l->tunnel[i], p->data, sizeof p->data);
		/* IPv4 to 10.99.0.(1 + to) */
		p->to = n >= HEADER && p->data[0] >> 4 == 4 ? p->data[19] - 1 : -1;
		p->from = i;
		p->bytes = n > 0 ? (size_t)n : 0;
		if (p->to >= 0 && p->to < l->hosts && p->to != i && (p->due = arrival(l, p)) >= 0) {
			queue(l, p);
		} else {
			p->next = l->spare;
			l->spare = p;
		}
		if (n <= 0)
			return;
	}
}

/* What is due. A cable that is cut now loses what was on it. */
static void deliver(struct lan *l)
{
	for (double t = now(); l->first && l->first->due <= t;) {
		struct packet *p = l->first;
		l->first = p->next;
		if (!l->cut[p->from] && !l->cut[p->to] && write(l->tunnel[p->to], p->data, p->bytes) < 0 && errno != EAGAIN &&
		    errno != ENOBUFS)
			die("host %d", p->to);
		p->next = l->spare;
		l->spare = p;
	}
}

/* "cut 2", "delay=50", ... */
static void command(struct lan *l, const char *line)
{
	char name[16];
	double x;
	if (sscanf(line, "%15[a-z]%*[ =]%lf", name, &x) != 2) {
		fprintf(stderr, "lan: not understood: %s\n", line);
		exit(2);
	}
	int host = (int)x, known = host >= 0 && host < l->hosts;
	if (!strcmp(name, "delay"))
		l->delay = x / 1000;
	else if (!strcmp(name, "loss"))
		l->loss = x / 100;
	else if (!strcmp(name, "rate"))
		l->rate = x * 1e6;
	else if (!strcmp(name, "seed"))
		l->random = (uint64_t)x;
	else if (!strcmp(name, "cut") && known)
		l->cut[host] = 1;
	else if (!strcmp(name, "join") && known)
		l->cut[host] = 0;
	else {
		fprintf(stderr, "lan: there is no %s\n", line);
		exit(2);
	}
}

static void run(struct lan *l)
{
	struct pollfd fds[HOSTS_MAX + 1] = {{.fd = 0, .events = POLLIN}};
	for (int i = 0; i < l->hosts; i++)
		fds[i + 1] = (struct pollfd){.fd = l->tunnel[i], .events = POLLIN};
	for (;;) {
		double wait = l->first ? l->first->due - now() : 1;
		struct timespec timeout = {0, wait > 0 ? (long)((wait < 0.9 ? wait : 0.9) * 1e9) : 0};
		if (ppoll(fds, (nfds_t)l->hosts + 1, &timeout, NULL) < 0 && errno != EINTR)
			die("poll");
		for (int i = 0; i < l->hosts; i++)
			if (fds[i + 1].revents)
				take(l, i);
		deliver(l);
		char line[64];
		if (fds[0].revents && !fgets(line, sizeof line, stdin))
			return;
		if (fds[0].revents)
			command(l, line);
	}
}

int main(int argc, char **argv)
{
	static struct lan l;
	if (argc < 3 || (l.hosts = atoi(argv[1])) < 1 || l.hosts > HOSTS_MAX) {
		fprintf(stderr, "usage: lan HOSTS PREFIX [delay=MS] [loss=PERCENT] [rate=MBIT] [seed=N]\n");
		return 2;
	}
	setvbuf(stdin, NULL, _IONBF, 0); /* so that poll sees each line */
	for (int i = 3; i < argc; i++)
		command(&l, argv[i]);
	open_hosts(&l, argv[2]);
	puts("ready");
	fflush(stdout);
	run(&l);
	return 0;
}
