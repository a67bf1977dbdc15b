// What the emulated runtime lends the emulated cuBLASLt and NCCL.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation
{

// Whether [p, p + bytes) lies in one block of device memory.
bool in_device_memory(const void *p, size_t bytes);
// Whether what is given to the stream now is recorded (a capture is under way); another stream must not be given anything then.
bool recording(const void *stream);
// Records it: run() when the graph is launched, if the blocks of device and page-locked memory that `pointers` lie in are the same then.
void record(const char *what, const void *const *pointers, size_t count, std::function<int()> run);
// Ends the program if a capture is under way: `call` can't be made then.
void not_recording(const char *call);
// Does what is queued on the stream: copies and fills wait until something looks.
void finish_copies();
// Whether the stream has waited for all that the program has given to the GPU so far.
bool stream_follows_all(const void *stream);
// The GPU that the program has chosen.
int chosen_device();
// Is asked whether a stream has work that others must take part in, and goes on with it.
void set_stream_busy(bool (*busy)(const void *stream));
// A number from the environment.
size_t number(const char *name, size_t otherwise);
// Says what is wrong with a call and ends the program: a mistake that a GPU might forgive.
[[noreturn]] __attribute__((format(printf, 1, 2))) void misuse(const char *format, ...);

} // namespace emulation
