/* What the data set targets share: a file is loaded, its classes are built, its prompts written. */
#ifndef FAVOR_TESTS_FUZZ_DATASET_H
#define FAVOR_TESTS_FUZZ_DATASET_H

#include "fuzz.h"

/* path: the data set in fuzz_folder(). Aborts if a record lies outside of it, or a promise of dataset.h is broken. */
void fuzz_dataset(const char *path, const char *split);

#endif
