/* The image itself. */
#include "data/image.h"

#include <stdlib.h>

void image_free(struct image *im)
{
	free(im->pixels);
	*im = (struct image){0};
}
