/* How many threads a backend runs: for the backends alone. */
#ifndef FAVOR_BACKEND_THREADS_H
#define FAVOR_BACKEND_THREADS_H

/* threads, or if that is 0 (or less) the number of cores in the process's affinity mask. */
int backend_thread_count(int threads);

#endif
