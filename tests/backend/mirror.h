/* A backend in host memory that computes on another, whose memory is a device's: each op copies what it is given there,
 * calls the other's, and copies everything back. So the tests of the ops, which read and write what they give, run on any
 * backend. Aliasing is kept: ranges of host memory that overlap are one range there, at the same alignment. */
#ifndef FAVOR_TESTS_BACKEND_MIRROR_H
#define FAVOR_TESTS_BACKEND_MIRROR_H

#include "backend/backend.h"

/* Takes ownership of device. */
struct backend *mirror_new(struct backend *device);

#endif
