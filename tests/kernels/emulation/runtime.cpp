// The host's side of the emulated CUDA: memory, copies, events. Device memory is the heap, each block as large as asked for
// (AddressSanitizer sees its bounds) and filled with 0xff bytes. It is stricter than a GPU: pointers of copies must lie in blocks
// of the right kind, and a copy between page-locked and device memory happens as late as it may (when a kernel or product runs, or
// somebody waits), so that memory that is used again too early shows. A kernel that failed shows where the program waits for it, and in all calls
// from then on; an error that a call gave stays for the next launch, "not ready" too, as on a GPU. A process that was forked from one that has
// used the GPU can't use it.
//
// Graphs. While a stream is captured, launches, copies, fills and products are recorded with copies of their arguments, and anything that
// allocates, frees, waits, asks or copies pageable memory ends the program, as does work for another stream. A launch of the graph does
// what was recorded, in its order, if each block that an argument points into (every 8 bytes of it that look so) is still the one that
// it was. FAVOR_EMULATED_NO_GRAPHS=1: streams can't be captured; FAVOR_EMULATED_GRAPH_LAUNCHES: only so many launches of graphs succeed.
//
// FAVOR_EMULATED_GPUS: how many there are (1), of which CUDA_VISIBLE_DEVICES may name those that the process sees, by number;
// FAVOR_EMULATED_MIB: memory of each (4096). They differ in their UUID alone: a process has one. What is
// given to the GPU is counted, so that a stream that should wait for another by an event and doesn't is found (NCCL's calls look).
#include "runtime.h"
#include "cuda_runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sched.h>
#include <unistd.h>
#include <vector>
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif

namespace emulation
{

size_t number(const char *name, size_t otherwise)
{
	const char *text = getenv(name);
	return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

namespace
{

struct Pending {
	void *to;
	const void *from; // null: a fill
	int value;
	size_t bytes;
	std::vector<unsigned char> pageable; // what it had when the call was made
};

struct Block {
	size_t bytes;
	uint64_t number; // no two have the same, ever
};
using Blocks = std::map<const char *, Block>;

// Something recorded, and the blocks that it points into.
struct Node {
	const char *what;
	std::vector<std::pair<const char *, uint64_t>> blocks;
	std::function<int()> run;
};
struct Graph {
	std::vector<Node> nodes;
};

struct Host {
	Blocks device, locked; // by their beginning
	uint64_t blocks = 0;   // so far
	const void *captured = nullptr; // the stream whose work is recorded
	Graph *graph = nullptr;         // where to
	int graphs = 0;
	size_t launched = 0; // graphs
	size_t used = 0;
	std::vector<Pending> queue;
	int streams = 0, events = 0, chosen = 0;
	pid_t process = 0; // that chose the GPU first
	uint64_t given = 0; // things that the GPU was given to do
	bool (*busy)(const void *stream) = nullptr;
} host;

struct Stream {
	uint64_t follows = 0; // what is given to it comes after that many things
};
struct Event {
	uint64_t given = 0;
	const void *stream = nullptr; // on which it was recorded
};

bool in(const Blocks &blocks, const void *p, size_t bytes)
{
	auto after = blocks.upper_bound((const char *)p);
	if (after == blocks.begin())
		return false;
	auto block = std::prev(after);
	return (const char *)p + bytes <= block->first + block->second.bytes;
}

bool is_there(const Blocks &blocks, const std::pair<const char *, uint64_t> &block)
{
	auto now = blocks.find(block.first);
	return now != blocks.end() && now->second.number == block.second;
}

// The block that p lies in, into the list.
void note_block(Node *node, const void *p)
{
	for (const Blocks *blocks : {&host.device, &host.locked}) {
		auto after = blocks->upper_bound((const char *)p);
		if (after != blocks->begin() && in(*blocks, p, 1))
			node->blocks.emplace_back(std::prev(after)->first, std::prev(after)->second.number);
	}
}

bool launching(const Launch &launch, const Argument *arguments, size_t count)
{
	if (recording(launch.stream)) {
		std::vector<const void *> pointers;
		for (size_t i = 0; i < count; i++)
			for (size_t at = 0; at + sizeof(void *) <= arguments[i].bytes; at += sizeof(void *)) {
				const void *p;
				memcpy(&p, (const char *)arguments[i].at + at, sizeof p);
#ifdef VALGRIND_MAKE_MEM_DEFINED
				(void)VALGRIND_MAKE_MEM_DEFINED(&p, sizeof p); /* what lies between a structure's members may be anything */
#endif
				pointers.push_back(p);
			}
		record("a kernel", pointers.data(), pointers.size(), [launch] {
			finish_copies();
			run_recorded(launch);
			return 0;
		});
		return true;
	}
	host.given++;
	finish_copies();
	return false;
}

// What a call returns that would have succeeded: what a kernel before it has failed with.
cudaError_t said(cudaError_t code = cudaSuccess)
{
	return (cudaError_t)remember(failure() ? failure() : code);
}

cudaError_t wait_for(const void *stream)
{
	not_recording("a wait");
	finish_copies();
	while (host.busy && stream && host.busy(stream))
		sched_yield();
	return said();
}

size_t memory()
{
	return number("FAVOR_EMULATED_MIB", 4096) << 20;
}

// The GPUs that the process sees.
std::vector<int> visible()
{
	const int there = (int)number("FAVOR_EMULATED_GPUS", 1);
	const char *text = getenv("CUDA_VISIBLE_DEVICES");
	std::vector<int> gpus;
	for (int i = 0; !text && i < there; i++)
		gpus.push_back(i);
	for (char *end; text && *text; text = *end == ',' ? end + 1 : end) {
		const long gpu = strtol(text, &end, 10);
		if (end == text || gpu < 0 || gpu >= there) // as the driver, which leaves out what comes behind
			break;
		gpus.push_back((int)gpu);
	}
	return gpus;
}

cudaError_t allocate(Blocks &blocks, void **p, size_t bytes)
{
	*p = nullptr;
	not_recording("an allocation");
	if (failure())
		return said();
	if (posix_memalign(p, 256, bytes ? bytes : 1))
		return said(cudaErrorMemoryAllocation);
	memset(*p, 0xff, bytes);
	blocks[(const char *)*p] = {bytes, ++host.blocks};
	return cudaSuccess;
}

cudaError_t release(Blocks &blocks, void *p)
{
	if (!p)
		return cudaSuccess;
	not_recording("memory being freed");
	finish_copies();
	auto block = blocks.find((const char *)p);
	if (block == blocks.end())
		misuse("a block is freed that was not allocated so");
	blocks.erase(block);
	free(p);
	return said();
}

} // namespace

bool stream_follows_all(const void *stream)
{
	return ((const Stream *)stream)->follows >= host.given;
}
int chosen_device()
{
	return host.chosen;
}
void set_stream_busy(bool (*busy)(const void *stream))
{
	host.busy = busy;
}

void misuse(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fprintf(stderr, "emulation: ");
	vfprintf(stderr, format, list);
	fprintf(stderr, "\n");
	va_end(list);
	abort();
}

bool recording(const void *stream)
{
	if (host.captured && stream != host.captured)
		misuse("work for another stream while one is captured");
	return host.captured;
}

void record(const char *what, const void *const *pointers, size_t count, std::function<int()> run)
{
	Node node = {what, {}, std::move(run)};
	for (size_t i = 0; i < count; i++)
		note_block(&node, pointers[i]);
	host.graph->nodes.push_back(std::move(node));
}

void not_recording(const char *call)
{
	if (host.captured)
		misuse("%s while a stream is captured", call);
}

bool in_device_memory(const void *p, size_t bytes)
{
	return in(host.device, p, bytes);
}

void finish_copies()
{
	for (const Pending &c : host.queue) {
		if (!c.pageable.empty())
			memcpy(c.to, c.pageable.data(), c.bytes);
		else if (c.from)
			memcpy(c.to, c.from, c.bytes);
		else
			memset(c.to, c.value, c.bytes);
	}
	host.queue.clear();
}

} // namespace emulation

using namespace emulation;

extern "C" {

cudaError_t cudaDriverGetVersion(int *version)
{
	*version = 13000;
	return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
	*version = 13000;
	return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count)
{
	*count = (int)visible().size();
	if (host.process && host.process != getpid())
		return said(cudaErrorInitializationError);
	return said(*count ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	int count = 0;
	if (cudaGetDeviceCount(&count) || device < 0 || device >= count)
		return said(cudaErrorInvalidDevice);
	*properties = cudaDeviceProp();
	snprintf(properties->name, sizeof properties->name, "emulated GPU");
	properties->totalGlobalMem = memory();
	properties->major = 9;
	const int gpu = visible()[(size_t)device] + 1; // no UUID is zero
	memcpy(properties->uuid.bytes, &gpu, sizeof gpu);
	return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
	int count = 0;
	if (cudaGetDeviceCount(&count) || device < 0 || device >= count)
		return said(cudaErrorInvalidDevice);
	host.process = getpid();
	host.chosen = visible()[(size_t)device];
	before_launch(launching);
	return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
	*total = memory();
	*available = *total > host.used ? *total - host.used : 0;
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
	if (bytes == 0 || host.used + bytes > memory())
		return said(cudaErrorMemoryAllocation);
	host.used += bytes;
	return allocate(host.device, p, bytes);
}
cudaError_t cudaFree(void *p)
{
	auto block = host.device.find((const char *)p);
	if (p && block != host.device.end())
		host.used -= block->second.bytes;
	return release(host.device, p);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
	return allocate(host.locked, p, bytes);
}
cudaError_t cudaFreeHost(void *p)
{
	return release(host.locked, p);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
	const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
	if (!stream)
		misuse("a copy on the default stream, which the backend never uses");
	if (to_device != in_device_memory(to, bytes) || from_device != in_device_memory(from, bytes))
		misuse("a copy of %zu bytes from %p to %p, of which one is not in the memory that was named", bytes, from, to);
	if (recording(stream)) {
		if (!to_device && !in(host.locked, to, bytes))
			misuse("a copy to pageable memory while a stream is captured");
		if (!from_device && !in(host.locked, from, bytes))
			misuse("a copy from pageable memory while a stream is captured");
		const void *const pointers[] = {to, from};
		record("a copy", pointers, 2, [=] {
			host.queue.push_back({to, from, 0, bytes, {}});
			return 0;
		});
		return cudaSuccess;
	}
	Pending copy = {to, from, 0, bytes, {}};
	if (kind == cudaMemcpyHostToDevice && !in(host.locked, from, bytes))
		copy.pageable.assign((const unsigned char *)from, (const unsigned char *)from + bytes);
	host.given++;
	host.queue.push_back(copy);
	return said();
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
	if (!stream || !in_device_memory(to, bytes))
		misuse("a fill of %zu bytes at %p, which is not in device memory", bytes, to);
	if (recording(stream)) {
		const void *const pointers[] = {to};
		record("a fill", pointers, 1, [=] {
			host.queue.push_back({to, nullptr, value, bytes, {}});
			return 0;
		});
		return cudaSuccess;
	}
	host.given++;
	host.queue.push_back({to, nullptr, value, bytes, {}});
	return said();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
	*stream = (cudaStream_t) new Stream;
	host.streams++;
	return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	if (!stream)
		misuse("a wait for the default stream, which the backend never uses");
	return wait_for(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	const cudaError_t code = wait_for(stream);
	host.streams--;
	delete (Stream *)stream;
	return code;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
	*event = (cudaEvent_t) new Event;
	host.events++;
	return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	if (!event || !stream)
		misuse("an event is recorded that is none, or on the default stream");
	not_recording("an event");
	*(Event *)event = {host.given, stream};
	return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	if (!event || !stream || flags)
		misuse("a stream that waits for an event that is none, or is the default one");
	not_recording("a wait for an event");
	Stream *s = (Stream *)stream;
	s->follows = std::max(s->follows, ((Event *)event)->given);
	return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
	if (!event)
		misuse("a question for an event that is none");
	not_recording("a question for an event");
	finish_copies();
	const void *stream = ((Event *)event)->stream;
	return said(host.busy && stream && host.busy(stream) ? cudaErrorNotReady : cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	if (!event)
		misuse("a wait for an event that is none");
	return wait_for(((Event *)event)->stream);
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	host.events--;
	delete (Event *)event;
	return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
	if (!stream)
		misuse("a capture of the default stream");
	not_recording("another capture");
	if (number("FAVOR_EMULATED_NO_GRAPHS", 0))
		return said(cudaErrorStreamCaptureUnsupported);
	host.captured = stream;
	host.graph = new Graph;
	host.graphs++;
	return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
	if (!stream || host.captured != stream)
		misuse("the end of a capture of a stream that is not captured");
	host.captured = nullptr;
	*graph = (cudaGraph_t)host.graph;
	host.graph = nullptr;
	return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
	if (!graph || flags)
		misuse("a graph is made ready that is none, or with flags");
	not_recording("a graph being made ready");
	*exec = (cudaGraphExec_t) new Graph(*(Graph *)graph);
	host.graphs++;
	return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	host.graphs--;
	delete (Graph *)graph;
	return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	if (!exec || !stream)
		misuse("a graph is launched that is none, or on the default stream");
	not_recording("the launch of a graph");
	if (host.launched++ >= number("FAVOR_EMULATED_GRAPH_LAUNCHES", SIZE_MAX))
		return said(cudaErrorInvalidResourceHandle);
	const std::vector<Node> &nodes = ((Graph *)exec)->nodes;
	for (size_t i = 0; i < nodes.size(); i++)
		for (const auto &block : nodes[i].blocks)
			if (!is_there(host.device, block) && !is_there(host.locked, block))
				misuse("a graph is launched whose node %zu, %s, points into memory that was freed since", i, nodes[i].what);
	for (const Node &node : nodes) {
		host.given++;
		const int code = node.run();
		if (code)
			return said((cudaError_t)code);
	}
	return said();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	finish_copies();
	host.graphs--;
	delete (Graph *)exec;
	return cudaSuccess;
}

} // extern "C"
