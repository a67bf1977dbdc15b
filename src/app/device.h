/* Which backend a process computes on: the configuration's device, or --device. */
#ifndef FAVOR_APP_DEVICE_H
#define FAVOR_APP_DEVICE_H

#include "backend/backend.h"
#include "base/config.h"

/* What was opened, and why, in a line for the log. */
struct device_note {
	int cuda;
	char text[512]; /* "cuda (GPU 0, NVIDIA H100)", "cpu", "cpu (auto: there is no CUDA driver ...)" */
};

/* A backend for a process that is `place` among those that compute on this host. cuda: a GPU, or NULL with a message;
 * auto: a GPU if there is one that can be used, else the CPU. Threads: all cores (backend_set_threads). */
struct backend *device_open(enum device device, enum model_dtype dtype, int place, struct device_note *note,
                            struct favor_error *e);
/* "auto", "cpu" or "cuda"; -1 with a message that names `option`. */
int device_named(const char *option, const char *text, enum device *device, struct favor_error *e);

#endif
