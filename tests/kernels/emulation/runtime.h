// What the emulated runtime lends the emulated cuBLASLt.
#pragma once

#include <cstddef>

namespace emulation
{

// Whether [p, p + bytes) lies in one block of device memory.
bool in_device_memory(const void *p, size_t bytes);
// Does what is queued on the stream: copies and fills wait until something looks.
void finish_copies();
// Says what is wrong with a call and ends the program: a mistake that a GPU might forgive.
[[noreturn]] __attribute__((format(printf, 1, 2))) void misuse(const char *format, ...);

} // namespace emulation
