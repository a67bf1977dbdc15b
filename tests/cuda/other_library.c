/* A CUDA backend of another build of favor, for tests/cuda.sh: the program must refuse it. */
#include "backend/cuda/library.h"

extern const struct cuda_library favor_cuda_library;
const struct cuda_library favor_cuda_library = {.format = CUDA_LIBRARY_FORMAT,
                                                .backend_bytes = sizeof(struct backend),
                                                .tensor_bytes = sizeof(struct tensor),
                                                .version = "0.0.1"};
