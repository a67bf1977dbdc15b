// The host's side of the emulated CUDA: memory, copies, events. Device memory is the heap, each block as large as asked for
// (AddressSanitizer sees its bounds) and filled with 0xff bytes. It is stricter than a GPU: pointers of copies must lie in blocks
// of the right kind, and a copy between page-locked and device memory happens as late as it may (when a kernel or product runs, or
// somebody waits), so that memory that is used again too early shows.
//
// FAVOR_EMULATED_GPUS: how many there are (1); FAVOR_EMULATED_MIB: memory of each (4096). They differ in their UUID alone: a process has one. What is
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
#include <vector>

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

struct Host {
	std::map<const char *, size_t> device, locked; // blocks by their beginning
	size_t used = 0;
	std::vector<Pending> queue;
	int streams = 0, events = 0, chosen = 0;
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

void launching()
{
	host.given++;
	finish_copies();
}

void wait_for(const void *stream)
{
	finish_copies();
	while (host.busy && stream && host.busy(stream))
		sched_yield();
}

bool in(const std::map<const char *, size_t> &blocks, const void *p, size_t bytes)
{
	auto after = blocks.upper_bound((const char *)p);
	if (after == blocks.begin())
		return false;
	auto block = std::prev(after);
	return (const char *)p + bytes <= block->first + block->second;
}

size_t memory()
{
	return number("FAVOR_EMULATED_MIB", 4096) << 20;
}

cudaError_t allocate(std::map<const char *, size_t> &blocks, void **p, size_t bytes)
{
	*p = nullptr;
	if (posix_memalign(p, 256, bytes ? bytes : 1))
		return cudaErrorMemoryAllocation;
	memset(*p, 0xff, bytes);
	blocks[(const char *)*p] = bytes;
	return cudaSuccess;
}

cudaError_t release(std::map<const char *, size_t> &blocks, void *p)
{
	if (!p)
		return cudaSuccess;
	finish_copies();
	auto block = blocks.find((const char *)p);
	if (block == blocks.end())
		misuse("a block is freed that was not allocated so");
	blocks.erase(block);
	free(p);
	return cudaSuccess;
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
	*count = (int)number("FAVOR_EMULATED_GPUS", 1);
	return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
	int count = 0;
	if (cudaGetDeviceCount(&count) || device < 0 || device >= count)
		return cudaErrorInvalidDevice;
	*properties = cudaDeviceProp();
	snprintf(properties->name, sizeof properties->name, "emulated GPU");
	properties->totalGlobalMem = memory();
	properties->major = 9;
	memcpy(properties->uuid.bytes, &device, sizeof device);
	return cudaSuccess;
}
cudaError_t cudaSetDevice(int device)
{
	int count = 0;
	if (cudaGetDeviceCount(&count) || device < 0 || device >= count)
		return cudaErrorInvalidDevice;
	host.chosen = device;
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
		return cudaErrorMemoryAllocation;
	host.used += bytes;
	return allocate(host.device, p, bytes);
}
cudaError_t cudaFree(void *p)
{
	auto block = host.device.find((const char *)p);
	if (p && block != host.device.end())
		host.used -= block->second;
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
	Pending copy = {to, from, 0, bytes, {}};
	if (kind == cudaMemcpyHostToDevice && !in(host.locked, from, bytes))
		copy.pageable.assign((const unsigned char *)from, (const unsigned char *)from + bytes);
	host.given++;
	host.queue.push_back(copy);
	return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
	if (!stream || !in_device_memory(to, bytes))
		misuse("a fill of %zu bytes at %p, which is not in device memory", bytes, to);
	host.given++;
	host.queue.push_back({to, nullptr, value, bytes, {}});
	return cudaSuccess;
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
	wait_for(stream);
	return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	wait_for(stream);
	host.streams--;
	delete (Stream *)stream;
	return cudaSuccess;
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
	*(Event *)event = {host.given, stream};
	return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	if (!event || !stream || flags)
		misuse("a stream that waits for an event that is none, or is the default one");
	Stream *s = (Stream *)stream;
	s->follows = std::max(s->follows, ((Event *)event)->given);
	return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
	if (!event)
		misuse("a question for an event that is none");
	finish_copies();
	const void *stream = ((Event *)event)->stream;
	return host.busy && stream && host.busy(stream) ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	if (!event)
		misuse("a wait for an event that is none");
	wait_for(((Event *)event)->stream);
	return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	host.events--;
	delete (Event *)event;
	return cudaSuccess;
}

} // extern "C"
