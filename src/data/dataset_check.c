/* The check of every image before the first step: a run must not end in its third hour over a truncated file. */
#include "data/dataset.h"
#include "data/faults.h"
#include "data/image.h"

int dataset_check_images(const struct dataset *d, void (*done)(void *arg, int32_t i, int32_t n), void *arg,
                         struct favor_error *e)
{
	struct faults faults = {0};
	for (int32_t i = 0; i < d->count; i++) {
		const struct record *r = &d->records[i];
		for (int32_t k = 0; k < r->image_count; k++) {
			int32_t width, height;
			struct favor_error one = {""};
			if (image_check(r->images[k], &width, &height, &one) == 0)
				continue;
			if (r->line > 0)
				faults_add(&faults, "%s:%d: %s", d->path, r->line, one.message);
			else
				faults_add(&faults, "%s", one.message);
		}
		if (done)
			done(arg, i + 1, d->count);
	}
	int rc = faults_report(&faults, e, d->path, "bad images");
	faults_free(&faults);
	return rc;
}
