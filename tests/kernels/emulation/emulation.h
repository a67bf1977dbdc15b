// Runs CUDA kernels on the CPU, so that their logic is tested where there is no GPU. A kernel's source is compiled as C++
// against stand-ins for the toolkit's headers (this folder); each CUDA thread becomes a fiber, a block's fibers run in
// turns on one CPU thread, and blocks run one after another. Numbers are the CPU's: libm's functions, no approximations.
//
// It is stricter than a GPU. These end the program with the place in the source: a barrier that not all threads of a
// block (or of a warp's mask) reach, one that they reach at different places, a shuffle that names a lane that has left,
// more shared memory than was opted in to (arrays counted in) or than the smaller of the GPUs that code is made for has, a
// wide access that is not aligned. A kernel that traps fails as on a GPU: not its launch says so, but what waits for it. An
// error that a runtime call gave and nobody asked cudaGetLastError for is the next launch's. Shared memory is on the heap (AddressSanitizer sees its bounds) and filled with 0xff bytes when
// a block begins (NaN as float, double and bfloat16), so that reading what nobody wrote shows. ThreadSanitizer sees each
// CUDA thread as a thread: it finds two of a block that touch the same bytes with no barrier between. Without it, and for
// blocks that disturb one another, the order in which threads and blocks run (emulation_set_order) makes these show.
//
// Not emulated: clusters, TMA, wgmma, cooperative groups, blocks that wait for one another, several streams (a launch is
// over when it returns). The host's side of the runtime is in runtime.cpp, cuBLASLt in cublaslt.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulation
{

struct Dim3 {
	unsigned x, y, z;
	constexpr Dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
	{
	}
};

struct Place {
	const char *file;
	int line;
};

Dim3 thread_index();
Dim3 block_index();
Dim3 block_size();
Dim3 grid_size();
unsigned lane();

void sync_block(Place here);
void sync_warp(unsigned mask, Place here);
// all[i] = what lane i of the mask gave; entries of other lanes are 0xff bytes. bytes <= 64. No memory barrier.
void warp_gather(unsigned mask, const void *mine, size_t bytes, void *all, Place here);
// The same without a copy: what lane i of the mask gave lies at i * GATHER_STRIDE, until this thread's next exchange.
constexpr size_t GATHER_STRIDE = 64;
const unsigned char *warp_view(unsigned mask, const void *mine, size_t bytes, Place here);
// The same for what one lane gave.
void warp_exchange(unsigned mask, const void *mine, size_t bytes, unsigned from, void *its, Place here);

// Around an update of *at.
void atomic_begin(const void *at);
void atomic_end(const void *at);

struct Copy {
	void *shared;
	const void *global;
	size_t bytes, zeros;
};
// True: the caller copies now. A copy may arrive at any moment between its issue and the wait for it: in ascending order of threads all come
// as late as they may, in descending order at once, else some so, some so.
bool copy_async(void *shared, const void *global, size_t bytes, size_t zeros);
void copy_commit();
[[noreturn]] void misaligned(const void *p, size_t n);
// p, which must be aligned to n bytes.
inline const void *aligned(const void *p, size_t n)
{
	if ((uintptr_t)p % n)
		misaligned(p, n);
	return p;
}
// The next copy that a wait for all but `pending` groups must do; false if there is none left.
bool copy_next(size_t pending, Copy *copy);

// This block's array for the declaration that `site` stands for, made at first use.
void *shared_array(const void *site, size_t bytes, size_t align, Place here);
void *dynamic_shared();
// Non-zero: more than a block may have.
int allow_shared(const void *kernel, int bytes);
// Bytes of dynamic shared memory that a launch may have.
int allowed_shared(const void *kernel);

// The thread that calls it fails the launch, as __trap() does; emulation_trap_message says what it said.
[[noreturn]] __attribute__((format(printf, 1, 2))) void trap(const char *format, ...);

// An argument of a kernel, as the launch has it.
struct Argument {
	const void *at;
	size_t bytes;
};
struct Launch {
	const void *kernel; // the function's address, for its allowance of shared memory
	Dim3 grid, block;
	size_t shared;
	const void *stream;
	std::function<void()> thread; // with copies of the arguments
};
// Is called before each launch: copies that are still under way must be done then. True: the launch is recorded, and does not run.
void before_launch(bool (*call)(const Launch &launch, const Argument *arguments, size_t count));
// Runs all blocks; cudaGetLastError tells of a launch that can't be.
void run(const Launch &launch, const Argument *arguments, size_t count);
// The same for a launch that was recorded.
void run_recorded(const Launch &launch);
// What a kernel has failed with (a cudaError_t); no kernel runs from then on.
int failure();
// Returns the code, which, if it is an error, cudaGetLastError gives next (a cudaError_t).
int remember(int code);

} // namespace emulation

// In which order threads and blocks run: 0 ascending, 1 descending, n > 1 shuffled anew at each turn, seed n.
extern "C" void emulation_set_order(unsigned order);
// What the kernels before have failed with (a cudaError_t); it is forgotten.
extern "C" int emulation_wait();
// What the last trap said; "" if there was none since the last call.
extern "C" const char *emulation_trap_message();
