// What launchers' codes mean.
#include "device.cuh"

extern "C" const char *kernel_error(int code)
{
	return cudaGetErrorString((cudaError_t)code);
}
