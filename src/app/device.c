/* See device.h. */
#include "app/device.h"

#include "backend/cuda/open.h"

#include <stdio.h>
#include <string.h>

struct backend *device_open(enum device device, enum model_dtype dtype, int place, struct device_note *note,
                            struct favor_error *e)
{
	struct favor_error why = {""};
	char gpu[320];
	struct backend *b = device == DEVICE_CPU ? NULL : backend_cuda_open(place, gpu, sizeof gpu, &why);
	*note = (struct device_note){.cuda = b != NULL};
	if (b)
		snprintf(note->text, sizeof note->text, "cuda (%s)", gpu);
	else if (device == DEVICE_CUDA) {
		favor_fail(e, "device: cuda, but %s; device: cpu computes without a GPU", why.message);
		return NULL;
	} else if (device == DEVICE_AUTO)
		snprintf(note->text, sizeof note->text, "cpu (auto: %.480s)", why.message);
	else
		snprintf(note->text, sizeof note->text, "cpu");
	if (!b)
		b = backend_cpu_new(0);
	backend_set_products(b, dtype == MODEL_BFLOAT16 ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32);
	return b;
}

int device_named(const char *option, const char *text, enum device *device, struct favor_error *e)
{
	static const char *const names[] = {[DEVICE_AUTO] = "auto", [DEVICE_CPU] = "cpu", [DEVICE_CUDA] = "cuda"};
	for (int i = 0; i < 3; i++)
		if (!strcmp(text, names[i])) {
			*device = (enum device)i;
			return 0;
		}
	return favor_fail(e, "%s: \"%s\" is none of auto, cpu and cuda", option, text);
}
