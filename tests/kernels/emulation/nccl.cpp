// NCCL for the emulated CUDA: ranks are processes of one host, and meet in a file of /dev/shm that the team's id names. Sums are
// made in rank order. It moves only when somebody asks (ncclCommGetAsyncError, an event, a wait for the stream), is as late as it may
// be, and stricter than NCCL:
//  - a collective call reads its input when it is made and writes its output when everybody has given his part: a sum that is
//    started too early lacks something, and what is written to the buffer meanwhile is lost;
//  - the stream of a call must wait for all that the program has given to the GPU before;
//  - all ranks must make the same calls, of the same size and root, in the same order, one after the other is settled.
//
// A team's file:   Header | Slot of rank 0, turn 0 | rank 0, turn 1 | rank 1, turn 0 | ...
// Data travel in pieces of PIECE floats. Piece q of all ranks lies in the slots of turn q % 2; a rank gives piece q when all have
// taken q - 2.
//
// FAVOR_EMULATED_NCCL=WHAT:RANK:CALL makes the rank fail or hang from its CALLth collective on, counted from 0 over all teams
// (-1: when it joins): "hang", "fail"; "slow" lets it take a second for each. FAVOR_EMULATED_NCCL_LOG names a file to which rank 0
// of each team says what it does.
#include "nccl.h"
#include "runtime.h"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <vector>

using namespace emulation;

namespace
{

constexpr int RANKS = 64;
constexpr size_t PIECE = 64 << 10;

struct Member {
	std::atomic<int> joined, parted;
	std::atomic<uint64_t> given, taken; // pieces
	int device;
};
struct Header {
	std::atomic<int> ranks; // 0: nobody has come yet
	std::atomic<int> failed;
	Member members[RANKS];
};
enum Kind { SUM, SUM_TO, SPREAD };
struct Label {
	Kind kind;
	int root;
	size_t count; // of the whole call
	bool operator==(const Label &l) const { return kind == l.kind && root == l.root && count == l.count; }
};
struct Slot {
	Label label;
	float data[PIECE];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free, "shared between processes");

struct Call {
	Label label;
	float *to;
	const void *stream;
	std::vector<float> input;
	size_t given, taken; // floats of this call
};

double now()
{
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int calls_made; // by this process, over all teams

} // namespace

struct ncclComm {
	int rank, ranks;
	std::string path;
	Header *header;
	Slot *slots;
	size_t bytes;
	bool together = false, finalizing = false, settled = false;
	ncclResult_t broken = ncclSuccess;
	uint64_t given = 0, taken = 0;
	std::deque<Call> calls;
	double since = 0; // "slow": when the first call began
};

namespace
{

std::vector<ncclComm *> teams;

// Whether the environment says `what` of this rank now.
bool told(const ncclComm *c, const char *what, int call)
{
	const char *text = getenv("FAVOR_EMULATED_NCCL");
	char name[16];
	int rank, from;
	return text && sscanf(text, "%15[a-z]:%d:%d", name, &rank, &from) == 3 && !strcmp(name, what) && rank == c->rank && call >= from;
}

void say(const ncclComm *c, const char *what, size_t count)
{
	const char *path = getenv("FAVOR_EMULATED_NCCL_LOG");
	FILE *f = path && *path && c->rank == 0 ? fopen(path, "a") : nullptr;
	if (!f)
		return;
	fprintf(f, "%s %zu of %d\n", what, count, c->ranks);
	fclose(f);
}

Slot &slot(const ncclComm *c, int rank, uint64_t piece)
{
	return c->slots[2 * rank + (int)(piece % 2)];
}

bool everybody(const ncclComm *c, std::atomic<uint64_t> Member::*counter, uint64_t least)
{
	for (int r = 0; r < c->ranks; r++)
		if ((c->header->members[r].*counter).load(std::memory_order_acquire) < least)
			return false;
	return true;
}

bool give(ncclComm *c)
{
	for (Call &call : c->calls) {
		if (call.given == call.label.count)
			continue;
		if (c->given >= 2 && !everybody(c, &Member::taken, c->given - 1))
			return false;
		Slot &s = slot(c, c->rank, c->given);
		const size_t n = std::min(PIECE, call.label.count - call.given);
		s.label = call.label;
		if (call.label.kind != SPREAD || call.label.root == c->rank)
			memcpy(s.data, call.input.data() + call.given, n * sizeof(float));
		call.given += n;
		c->header->members[c->rank].given.store(++c->given, std::memory_order_release);
		return true;
	}
	return false;
}

bool take(ncclComm *c)
{
	if (c->calls.empty() || c->taken == c->given || !everybody(c, &Member::given, c->taken + 1))
		return false;
	Call &call = c->calls.front();
	if (told(c, "slow", calls_made) && call.taken == 0) {
		if (c->since == 0)
			c->since = now();
		if (now() - c->since < 1)
			return false;
		c->since = 0;
	}
	const size_t n = std::min(PIECE, call.label.count - call.taken);
	float *to = call.to + call.taken;
	for (int r = 0; r < c->ranks; r++) {
		const Slot &s = slot(c, r, c->taken);
		if (!(s.label == call.label))
			misuse("rank %d of a team makes call (%d, %zu floats, root %d) where rank %d makes (%d, %zu, %d)", c->rank, call.label.kind,
			       call.label.count, call.label.root, r, s.label.kind, s.label.count, s.label.root);
		const bool sums = call.label.kind == SUM || (call.label.kind == SUM_TO && call.label.root == c->rank);
		for (size_t i = 0; i < n && sums; i++)
			to[i] = r ? to[i] + s.data[i] : s.data[i];
	}
	if (call.label.kind == SPREAD)
		memcpy(to, slot(c, call.label.root, c->taken).data, n * sizeof(float));
	call.taken += n;
	c->header->members[c->rank].taken.store(++c->taken, std::memory_order_release);
	if (call.taken == call.label.count)
		c->calls.pop_front();
	return true;
}

void fail(ncclComm *c, ncclResult_t code)
{
	c->broken = code;
	c->header->failed.store(1);
}

void join(ncclComm *c)
{
	for (int r = 0; r < c->ranks; r++)
		if (!c->header->members[r].joined.load(std::memory_order_acquire))
			return;
	c->together = true;
	if (c->rank == 0)
		unlink(c->path.c_str());
	for (int r = 0; r < c->ranks; r++)
		for (int q = 0; q < r; q++)
			if (c->header->members[r].device == c->header->members[q].device)
				fail(c, ncclInvalidUsage);
}

void go_on(ncclComm *c)
{
	finish_copies();
	if (c->header->failed.load() && !c->broken)
		c->broken = ncclRemoteError;
	if (c->broken)
		return;
	if (!c->together)
		join(c);
	if (told(c, "hang", calls_made - 1))
		return;
	if (told(c, "fail", calls_made - 1))
		fail(c, ncclSystemError);
	for (bool moved = c->together && !c->broken; moved;) {
		moved = give(c);
		moved = take(c) || moved;
	}
}

bool busy(const void *stream)
{
	for (ncclComm *c : teams) {
		go_on(c);
		for (const Call &call : c->calls)
			if (call.stream == stream)
				return true;
	}
	return false;
}

ncclResult_t collective(ncclComm *c, const void *from, void *to, size_t count, ncclDataType_t type, Kind kind, int root, const void *stream)
{
	if (!c || !stream || type != ncclFloat32 || root < 0 || root >= c->ranks)
		return ncclInvalidArgument;
	if (c->broken)
		return c->broken;
	if (!c->settled || c->finalizing)
		misuse("NCCL: a collective call before the one before is known to be settled");
	if (from != to || !count || !in_device_memory(to, count * sizeof(float)))
		misuse("NCCL: %zu floats at %p are not in device memory", count, to);
	if (!stream_follows_all(stream))
		misuse("NCCL: a call on a stream that has not waited for what the program gave to the GPU before");
	finish_copies();
	const float *x = (const float *)from;
	c->calls.push_back({{kind, root, count}, (float *)to, stream, std::vector<float>(x, x + count), 0, 0});
	calls_made++;
	c->settled = false;
	say(c, kind == SUM ? "sum" : kind == SUM_TO ? "sum_to" : "spread", count);
	return ncclInProgress;
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version)
{
	*version = NCCL_VERSION(2, 28, 9);
	return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
	static int made;
	snprintf(id->internal, sizeof id->internal, "/dev/shm/favor-emulated-nccl-%ld-%d-%.0f", (long)getpid(), made++, now() * 1e6);
	return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
	if (ranks < 1 || ranks > RANKS || rank < 0 || rank >= ranks || config->size != sizeof *config || config->magic != 0xcafebeef)
		return ncclInvalidArgument;
	if (config->blocking)
		misuse("NCCL: a communicator that blocks has no deadline");
	ncclComm *c = new ncclComm;
	c->rank = rank;
	c->ranks = ranks;
	c->path = std::string(id.internal, strnlen(id.internal, sizeof id.internal));
	const size_t first = (sizeof(Header) + 4095) / 4096 * 4096;
	c->bytes = first + (size_t)(2 * ranks) * sizeof(Slot);
	const int file = open(c->path.c_str(), O_RDWR | O_CREAT, 0600);
	void *memory = file < 0 || ftruncate(file, (off_t)c->bytes)
	                   ? MAP_FAILED
	                   : mmap(nullptr, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file >= 0)
		close(file);
	if (memory == MAP_FAILED || told(c, "fail", -1)) {
		delete c;
		return ncclSystemError;
	}
	c->header = (Header *)memory;
	c->slots = (Slot *)((char *)memory + first);
	int nobody = 0;
	if (!c->header->ranks.compare_exchange_strong(nobody, ranks) && nobody != ranks)
		misuse("NCCL: rank %d joins a team of %d, others one of %d", rank, ranks, nobody);
	c->header->members[rank].device = chosen_device();
	if (!told(c, "hang", -1) && c->header->members[rank].joined.exchange(1, std::memory_order_acq_rel))
		misuse("NCCL: rank %d joins twice", rank);
	teams.push_back(c);
	set_stream_busy(busy);
	say(c, "join", 0);
	*comm = c;
	return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state)
{
	go_on(c);
	c->settled = c->together;
	if (c->finalizing) {
		c->header->members[c->rank].parted.store(1);
		for (int r = 0; r < c->ranks; r++)
			c->settled = c->settled && c->header->members[r].parted.load();
	}
	*state = c->broken ? c->broken : c->settled ? ncclSuccess : ncclInProgress;
	return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c)
{
	if (!c->settled || c->finalizing || !c->calls.empty())
		misuse("NCCL: a team is ended that has something to do");
	c->finalizing = true;
	c->settled = false;
	return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t c)
{
	if (!c->finalizing || !c->settled)
		misuse("NCCL: a communicator is freed that is not finalized, which would block");
	for (size_t i = 0; i < teams.size(); i++)
		if (teams[i] == c)
			teams.erase(teams.begin() + (long)i);
	munmap(c->header, c->bytes);
	delete c;
	return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
	return op == ncclSum ? collective(comm, from, to, count, type, SUM, 0, stream) : ncclInvalidArgument;
}

ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root, ncclComm_t comm,
                        cudaStream_t stream)
{
	return op == ncclSum ? collective(comm, from, to, count, type, SUM_TO, root, stream) : ncclInvalidArgument;
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream)
{
	return collective(comm, from, to, count, type, SPREAD, root, stream);
}

const char *ncclGetErrorString(ncclResult_t code)
{
	static const char *const texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
	                                    "invalid argument", "invalid usage", "remote process exited or there was a network error",
	                                    "operation in progress"};
	return code >= 0 && code <= ncclInProgress ? texts[code] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t)
{
	return "";
}

} // extern "C"
