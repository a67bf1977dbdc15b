// The scheduler behind emulation.h. This file is compiled without sanitizers (tests/kernels/meson.build says so) and calls
// their fiber interfaces itself: EMULATION_ADDRESS and EMULATION_THREAD say which one the program is linked with.
#include "emulation.h"
#include "cuda_runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef EMULATION_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATION_THREAD
#include <sanitizer/tsan_interface.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulation
{
namespace
{

enum {
	MAX_THREADS = 1024,    // of a block
	MAX_SHARED = 166912,   // bytes of a block, opted in, on the smaller of what code is made for (8.0; 9.0 has 232448)
	PLAIN_SHARED = 49152,  // without opting in
	STACK = 256 << 10,     // bytes of a fiber
	MAX_COPIES = 256,      // asynchronous copies of a thread that nobody waited for yet
	MAX_GATHER = (int)GATHER_STRIDE, // bytes that a lane gives
	WARPS = MAX_THREADS / 32,
	MASKS = 40             // different masks that one warp uses in one launch
};

struct Barrier {
	unsigned expected, arrived, generation;
	Place place; // where the first to arrive waits
};

// The lanes of one mask of one warp.
struct Team {
	unsigned mask;
	Barrier barrier;
	unsigned round[32]; // how often each lane has exchanged: consecutive rounds use alternate slots
	alignas(GATHER_STRIDE) unsigned char slots[2][32][MAX_GATHER];
};

struct Warp {
	int teams;
	Team *team[MASKS];
	unsigned gone; // lanes that have left the kernel
};

#ifdef __x86_64__
using Context = void *; // the stack pointer
#else
using Context = ucontext_t;
#endif

// What runs a CUDA thread.
struct Fiber {
	Context context;
	char *stack;
	void *thread_sanitizer, *fake_stack;
	bool done;
	unsigned number; // of the thread in its block
	Dim3 index;
	const Barrier *waits; // null: may run
	unsigned generation;  // of the barrier, when the wait began
	Place place;
	Copy copies[MAX_COPIES];
	unsigned copies_first, copies_end, groups[MAX_COPIES], groups_first, groups_end; // group g ends before copies[groups[g]]
};

struct Shared {
	const void *site;
	void *memory;
};

struct Allowance {
	const void *kernel;
	int bytes;
};

// One launch at a time; a file-scope state is what a device is.
struct Device {
	Context scheduler;
	void *scheduler_sanitizer, *scheduler_fake;
	const void *scheduler_stack;
	size_t scheduler_size;
	Fiber *thread[MAX_THREADS]; // by number in the block; made at first use, used again by each block
	Fiber *current;
	Dim3 grid, block, index;
	Barrier barrier;
	Warp warps[WARPS];
	Shared shared[64];
	int shared_count;
	size_t shared_bytes, dynamic_bytes;
	void *dynamic;
	const std::function<void()> *body;
	const Allowance *opted; // the kernel's; null: it has not opted in to more than all may have
	Allowance allowed[128];
	int allowed_count;
	bool (*before_launch)(const Launch &launch, const Argument *arguments, size_t count);
	unsigned order;
	uint64_t random;
	bool trapped, running;
	char message[512];
	cudaError_t last_error, failed;
} device;

[[noreturn]] void fatal(const char *what, Place a, Place b = {nullptr, 0})
{
	fprintf(stderr, "emulation: block (%u, %u, %u), thread %u: %s", device.index.x, device.index.y, device.index.z,
	        device.current ? device.current->number : 0, what);
	if (a.file)
		fprintf(stderr, ": %s:%d", a.file, a.line);
	if (b.file)
		fprintf(stderr, " and %s:%d", b.file, b.line);
	fprintf(stderr, "\n");
	abort();
}

unsigned random_below(unsigned n)
{
	device.random = device.random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)((device.random >> 33) % n);
}

// order[0..n): as emulation_set_order says
void arrange(unsigned *order, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		order[i] = device.order == 1 ? n - 1 - i : i;
	for (unsigned i = n; device.order > 1 && i > 1; i--) {
		unsigned j = random_below(i), t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
}

void release(const void *at)
{
#ifdef EMULATION_THREAD
	__tsan_release((void *)at);
#else
	(void)at;
#endif
}

void acquire(const void *at)
{
#ifdef EMULATION_THREAD
	__tsan_acquire((void *)at);
#else
	(void)at;
#endif
}

// Byte by byte, so that no sanitizer's memcpy is called: an exchange is no memory access of the kernel's.
__attribute__((noinline)) void copy_bytes(volatile unsigned char *to, const volatile unsigned char *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

// ---- switching

#ifdef __x86_64__
extern "C" void emulation_switch(void **save, void *to);
// Keeps what the System V ABI says a called function keeps.
asm(R"(
	.text
	.type emulation_switch, @function
emulation_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
	.size emulation_switch, .-emulation_switch
)");

void switch_context(Context *from, Context *to)
{
	emulation_switch(from, *to);
}

void prepare_context(Context *c, char *stack, unsigned number, void (*entry)())
{
	// begins elsewhere in each stack, or all would fight for the same lines of the cache
	void **top = (void **)(stack + STACK - number * 17 % 256 * 64);
	*--top = nullptr; // where entry would return to: it does not
	*--top = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--top = nullptr;
	*c = top;
}
#else
void switch_context(Context *from, Context *to)
{
	swapcontext(from, to);
}

void prepare_context(Context *c, char *stack, unsigned, void (*entry)())
{
	getcontext(c);
	c->uc_stack.ss_sp = stack;
	c->uc_stack.ss_size = STACK;
	c->uc_link = nullptr;
	makecontext(c, entry, 0);
}
#endif

void to_scheduler(bool for_good)
{
	Fiber *self = device.current;
	(void)for_good;
#ifdef EMULATION_ADDRESS
	__sanitizer_start_switch_fiber(for_good ? nullptr : &self->fake_stack, device.scheduler_stack, device.scheduler_size);
#endif
#ifdef EMULATION_THREAD
	__tsan_switch_to_fiber(device.scheduler_sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
	switch_context(&self->context, &device.scheduler);
#ifdef EMULATION_ADDRESS
	__sanitizer_finish_switch_fiber(self->fake_stack, &device.scheduler_stack, &device.scheduler_size);
#endif
}

void to_fiber(Fiber *f)
{
	device.current = f;
#ifdef EMULATION_ADDRESS
	__sanitizer_start_switch_fiber(&device.scheduler_fake, f->stack, STACK);
#endif
#ifdef EMULATION_THREAD
	__tsan_switch_to_fiber(f->thread_sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
	switch_context(&device.scheduler, &f->context);
#ifdef EMULATION_ADDRESS
	__sanitizer_finish_switch_fiber(device.scheduler_fake, nullptr, nullptr);
#endif
	device.current = nullptr;
}

// What ThreadSanitizer sees a block's threads and the scheduler wait for.
uint64_t block_begins, block_ends, shared_made;

// A fiber's first function.
void entry()
{
#ifdef EMULATION_ADDRESS
	__sanitizer_finish_switch_fiber(nullptr, &device.scheduler_stack, &device.scheduler_size);
#endif
	acquire(&block_begins);
	(*device.body)();
	release(&block_ends);
	Fiber *self = device.current;
	if (self->copies_first != self->copies_end)
		fatal("left the kernel with asynchronous copies that it did not wait for", {nullptr, 0});
	if (device.barrier.arrived)
		fatal("left the kernel while others wait at __syncthreads", device.barrier.place);
	Warp *w = &device.warps[self->number / 32];
	for (int i = 0; i < w->teams; i++)
		if (w->team[i]->barrier.arrived && w->team[i]->mask >> self->number % 32 & 1)
			fatal("left the kernel while its warp waits for it", w->team[i]->barrier.place);
	w->gone |= 1u << self->number % 32;
	self->done = true;
	to_scheduler(true);
	abort();
}

void wait_at(Barrier *b, Place here)
{
	Fiber *self = device.current;
	if (b->arrived && (b->place.line != here.line || (b->place.file != here.file && strcmp(b->place.file, here.file))))
		fatal("threads of one barrier wait at different places", b->place, here);
	b->place = here;
	if (++b->arrived == b->expected) {
		b->arrived = 0;
		b->generation++;
		return;
	}
	self->waits = b;
	self->generation = b->generation;
	self->place = here;
	to_scheduler(false);
	self->waits = nullptr;
}

Fiber *new_fiber()
{
	Fiber *f = (Fiber *)calloc(1, sizeof *f);
	f->stack = (char *)aligned_alloc(4096, STACK);
#ifdef EMULATION_THREAD
	f->thread_sanitizer = __tsan_create_fiber(0);
#endif
	return f;
}

// What a thread allocates between these two, ThreadSanitizer sees the scheduler allocate: else the thread would be its first
// writer, with which all others race.
void as_scheduler(bool begin)
{
#ifdef EMULATION_THREAD
	__tsan_switch_to_fiber(begin ? device.scheduler_sanitizer : device.current->thread_sanitizer,
	                       __tsan_switch_to_fiber_no_sync);
#else
	(void)begin;
#endif
}

void *fresh(size_t bytes, size_t align)
{
	void *p = nullptr;
	if (posix_memalign(&p, align < 16 ? 16 : align, bytes ? bytes : 1))
		abort();
	for (size_t i = 0; i < bytes; i++)
		((volatile unsigned char *)p)[i] = 0xff;
	return p;
}

// The team of this thread's warp that a mask names.
Team *team_of(unsigned mask, Place here)
{
	Fiber *self = device.current;
	Warp *w = &device.warps[self->number / 32];
	if (!(mask >> self->number % 32 & 1))
		fatal("calls with a mask that does not name it", here);
	if (mask & w->gone)
		fatal("waits for a lane that has left the kernel or never was", here);
	for (int i = 0; i < w->teams; i++)
		if (w->team[i]->mask == mask)
			return w->team[i];
	if (w->teams == MASKS)
		fatal("too many different masks in one warp", here);
	if (!w->team[w->teams])
		w->team[w->teams] = (Team *)aligned_alloc(alignof(Team), sizeof(Team));
	Team *t = w->team[w->teams++];
	memset(t, 0, sizeof *t);
	t->mask = mask;
	t->barrier.expected = (unsigned)__builtin_popcount(mask);
	return t;
}

void begin_block(unsigned threads)
{
	device.barrier = Barrier{threads, 0, 0, {nullptr, 0}};
	for (unsigned w = 0; w < WARPS; w++) {
		device.warps[w].teams = 0;
		unsigned first = w * 32, here = threads > first ? threads - first : 0;
		device.warps[w].gone = here >= 32 ? 0 : ~0u << here;
	}
	device.shared_count = 0;
	device.shared_bytes = device.dynamic_bytes;
	device.dynamic = device.dynamic_bytes ? fresh(device.dynamic_bytes, 128) : nullptr;
	release(&block_begins); // what the scheduler made for this block
	for (unsigned i = 0; i < threads; i++) {
		if (!device.thread[i])
			device.thread[i] = new_fiber();
		Fiber *f = device.thread[i];
		f->done = false;
		f->waits = nullptr;
		f->fake_stack = nullptr;
		f->number = i;
		f->index = Dim3(i % device.block.x, i / device.block.x % device.block.y, i / device.block.x / device.block.y);
		f->copies_first = f->copies_end = f->groups_first = f->groups_end = 0;
		prepare_context(&f->context, f->stack, i, entry);
	}
}

void end_block(unsigned threads)
{
	// a trap leaves threads where they are
	for (unsigned i = 0; device.trapped && i < threads; i++) {
#ifdef EMULATION_ADDRESS
		__asan_unpoison_memory_region(device.thread[i]->stack, STACK);
#endif
#ifdef EMULATION_THREAD
		__tsan_switch_to_fiber(device.thread[i]->thread_sanitizer, __tsan_switch_to_fiber_no_sync);
		release(&block_ends);
		__tsan_switch_to_fiber(device.scheduler_sanitizer, __tsan_switch_to_fiber_no_sync);
		__tsan_destroy_fiber(device.thread[i]->thread_sanitizer);
		device.thread[i]->thread_sanitizer = __tsan_create_fiber(0);
#endif
	}
	acquire(&block_ends);
	for (int i = 0; i < device.shared_count; i++)
		free(device.shared[i].memory);
	if (device.dynamic)
		free(device.dynamic);
}

void report_deadlock(unsigned threads)
{
	for (unsigned i = 0; i < threads; i++) {
		Fiber *f = device.thread[i];
		if (!f->done && (i == 0 || device.thread[i - 1]->done || device.thread[i - 1]->place.line != f->place.line))
			fprintf(stderr, "emulation: from thread %u on: waits at %s:%d\n", i, f->place.file, f->place.line);
	}
	fatal("no thread can go on: not all reach the same barrier", {nullptr, 0});
}

void run_block(unsigned threads)
{
	unsigned order[MAX_THREADS];
	begin_block(threads);
	arrange(order, threads);
	for (unsigned left = threads; left && !device.trapped;) {
		bool any = false;
		for (unsigned i = 0; i < threads && !device.trapped; i++) {
			Fiber *f = device.thread[order[i]];
			if (f->done || (f->waits && f->waits->generation == f->generation))
				continue;
			any = true;
			to_fiber(f);
			left -= f->done;
		}
		if (!any)
			report_deadlock(threads);
		if (device.order > 1)
			arrange(order, threads);
	}
	end_block(threads);
}

const Allowance *allowance(const void *kernel)
{
	for (int i = 0; i < device.allowed_count; i++)
		if (device.allowed[i].kernel == kernel)
			return &device.allowed[i];
	return nullptr;
}

} // namespace

Dim3 thread_index()
{
	return device.current->index;
}
Dim3 block_index()
{
	return device.index;
}
Dim3 block_size()
{
	return device.block;
}
Dim3 grid_size()
{
	return device.grid;
}
unsigned lane()
{
	return device.current->number % 32;
}

void sync_block(Place here)
{
	for (unsigned w = 0; w < (device.barrier.expected + 31) / 32; w++) {
		unsigned lanes = device.barrier.expected - w * 32;
		if (device.warps[w].gone & (lanes >= 32 ? ~0u : (1u << lanes) - 1))
			fatal("waits at __syncthreads for threads that have left the kernel", here);
	}
	release(&device.barrier);
	wait_at(&device.barrier, here);
	acquire(&device.barrier);
}

void sync_warp(unsigned mask, Place here)
{
	Team *t = team_of(mask, here);
	release(t);
	wait_at(&t->barrier, here);
	acquire(t);
}

namespace
{

// Gives `mine` to the lanes of the mask; returns what each gave, valid until this thread's next exchange.
Team *give(unsigned mask, const void *mine, size_t bytes, Place here, unsigned *slot)
{
	if (bytes > MAX_GATHER)
		fatal("exchanges more than the emulation has room for", here);
	Team *t = team_of(mask, here);
	unsigned self = lane();
	*slot = t->round[self]++ & 1;
	copy_bytes(t->slots[*slot][self], (const unsigned char *)mine, bytes);
	wait_at(&t->barrier, here);
	return t;
}

void take(const Team *t, unsigned slot, unsigned from, size_t bytes, unsigned char *to)
{
	if (t->mask >> from & 1)
		copy_bytes(to, t->slots[slot][from], bytes);
	else
		for (size_t k = 0; k < bytes; k++)
			((volatile unsigned char *)to)[k] = 0xff;
}

} // namespace

void warp_gather(unsigned mask, const void *mine, size_t bytes, void *all, Place here)
{
	unsigned slot;
	Team *t = give(mask, mine, bytes, here, &slot);
	for (unsigned i = 0; i < 32; i++)
		take(t, slot, i, bytes, (unsigned char *)all + i * bytes);
}

const unsigned char *warp_view(unsigned mask, const void *mine, size_t bytes, Place here)
{
	unsigned slot;
	return give(mask, mine, bytes, here, &slot)->slots[slot][0];
}

void warp_exchange(unsigned mask, const void *mine, size_t bytes, unsigned from, void *its, Place here)
{
	unsigned slot;
	Team *t = give(mask, mine, bytes, here, &slot);
	take(t, slot, from, bytes, (unsigned char *)its);
}

void atomic_begin(const void *at)
{
	acquire(at);
}
void atomic_end(const void *at)
{
	release(at);
}

bool copy_async(void *shared, const void *global, size_t bytes, size_t zeros)
{
	Fiber *f = device.current;
	if ((bytes != 4 && bytes != 8 && bytes != 16) || (uintptr_t)shared % bytes || (uintptr_t)global % bytes || zeros > bytes)
		fatal("asynchronous copy of other than 4, 8 or 16 aligned bytes", {nullptr, 0});
	if (device.order == 1 || (device.order > 1 && random_below(2)))
		return true;
	if (f->copies_end - f->copies_first == MAX_COPIES)
		fatal("too many asynchronous copies without a wait", {nullptr, 0});
	f->copies[f->copies_end++ % MAX_COPIES] = Copy{shared, global, bytes - zeros, zeros};
	return false;
}
void copy_commit()
{
	Fiber *f = device.current;
	if (f->groups_end - f->groups_first == MAX_COPIES)
		fatal("too many groups of asynchronous copies without a wait", {nullptr, 0});
	f->groups[f->groups_end++ % MAX_COPIES] = f->copies_end;
}
bool copy_next(size_t pending, Copy *copy)
{
	Fiber *f = device.current;
	while (f->groups_end - f->groups_first > pending) {
		if (f->copies_first != f->groups[f->groups_first % MAX_COPIES]) {
			*copy = f->copies[f->copies_first++ % MAX_COPIES];
			return true;
		}
		f->groups_first++;
	}
	return false;
}

void misaligned(const void *p, size_t n)
{
	fprintf(stderr, "emulation: an access of %zu bytes at %p, which is not aligned to them\n", n, p);
	fatal("a misaligned access", {nullptr, 0});
}

void *shared_array(const void *site, size_t bytes, size_t align, Place here)
{
	for (int i = 0; i < device.shared_count; i++)
		if (device.shared[i].site == site) {
			acquire(&shared_made);
			return device.shared[i].memory;
		}
	device.shared_bytes += bytes;
	const size_t arrays = device.shared_bytes - device.dynamic_bytes;
	if (device.shared_count == 64 || arrays > PLAIN_SHARED ||
	    (device.opted ? arrays + (size_t)device.opted->bytes > MAX_SHARED : device.shared_bytes > PLAIN_SHARED))
		fatal("more shared memory than a block may have, or than was opted in to", here);
	as_scheduler(true);
	void *p = fresh(bytes, align);
	release(&shared_made);
	as_scheduler(false);
	device.shared[device.shared_count++] = Shared{site, p};
	acquire(&shared_made);
	return p;
}

void *dynamic_shared()
{
	if (!device.dynamic)
		fatal("uses dynamic shared memory, but was launched with none", {nullptr, 0});
	return device.dynamic;
}

int allowed_shared(const void *kernel)
{
	const Allowance *a = allowance(kernel);
	return a ? a->bytes : (int)PLAIN_SHARED;
}

int allow_shared(const void *kernel, int bytes)
{
	if (bytes > MAX_SHARED)
		return 1;
	for (int i = 0; i < device.allowed_count; i++)
		if (device.allowed[i].kernel == kernel) {
			device.allowed[i].bytes = bytes;
			return 0;
		}
	if (device.allowed_count == 128)
		abort();
	device.allowed[device.allowed_count++] = Allowance{kernel, bytes};
	return 0;
}

void trap(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vsnprintf(device.message, sizeof device.message, format, list);
	va_end(list);
	device.trapped = true;
	to_scheduler(true);
	abort();
}

void before_launch(bool (*call)(const Launch &launch, const Argument *arguments, size_t count))
{
	device.before_launch = call;
}

int failure()
{
	return device.failed;
}

int remember(int code)
{
	if (code)
		device.last_error = (cudaError_t)code;
	return code;
}

void run(const Launch &launch, const Argument *arguments, size_t count)
{
	const Dim3 grid = launch.grid, block = launch.block;
	uint64_t threads = (uint64_t)block.x * block.y * block.z;
	if (!grid.x || grid.x > 0x7fffffff || !grid.y || grid.y > 65535 || !grid.z || grid.z > 65535 || !threads ||
	    threads > MAX_THREADS || block.z > 64 || device.running)
		remember(cudaErrorInvalidConfiguration);
	else if (launch.shared > (size_t)allowed_shared(launch.kernel))
		remember(cudaErrorInvalidValue);
	else if (!device.before_launch || !device.before_launch(launch, arguments, count))
		run_recorded(launch);
}

void run_recorded(const Launch &launch)
{
	if (device.failed)
		return;
	device.opted = allowance(launch.kernel);
	if (launch.shared > (size_t)allowed_shared(launch.kernel))
		fatal("a recorded launch has more shared memory than its kernel is allowed now", {nullptr, 0});
	const Dim3 grid = launch.grid, block = launch.block;
	uint64_t threads = (uint64_t)block.x * block.y * block.z;
	device.running = true;
	device.trapped = false;
	device.grid = grid;
	device.block = block;
	device.dynamic_bytes = launch.shared;
	device.body = &launch.thread;
	device.random = device.order;
#ifdef EMULATION_THREAD
	device.scheduler_sanitizer = __tsan_get_current_fiber();
#endif
	uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
	// shuffled: in steps of a prime, or one by one where it divides the number of blocks
	uint64_t stride = device.order > 1 && blocks % 7919 ? 7919 : 1;
	for (uint64_t i = 0; i < blocks && !device.trapped; i++) {
		uint64_t b = device.order == 1 ? blocks - 1 - i : i * stride % blocks;
		device.index =
			Dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y));
		run_block((unsigned)threads);
	}
	device.running = false;
	if (device.trapped)
		device.failed = cudaErrorLaunchFailure;
}

} // namespace emulation

cudaError_t cudaGetLastError()
{
	cudaError_t code = emulation::device.last_error;
	emulation::device.last_error = cudaSuccess;
	return code;
}

const char *cudaGetErrorString(cudaError_t code)
{
	switch (code) {
	case cudaSuccess: return "no error";
	case cudaErrorInvalidValue: return "invalid argument";
	case cudaErrorMemoryAllocation: return "out of memory";
	case cudaErrorInitializationError: return "initialization error";
	case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
	case cudaErrorNoDevice: return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice: return "invalid device ordinal";
	case cudaErrorNotReady: return "device not ready";
	case cudaErrorInvalidResourceHandle: return "invalid resource handle";
	case cudaErrorInvalidConfiguration: return "invalid configuration argument";
	case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
	case cudaErrorLaunchFailure: return "unspecified launch failure";
	}
	return "unknown error";
}

extern "C" void emulation_set_order(unsigned order)
{
	emulation::device.order = order;
}

extern "C" int emulation_wait()
{
	const cudaError_t code = emulation::device.failed;
	emulation::device.failed = cudaSuccess;
	return code;
}

extern "C" const char *emulation_trap_message()
{
	static char message[sizeof emulation::device.message];
	memcpy(message, emulation::device.message, sizeof message);
	emulation::device.message[0] = 0;
	return message;
}
