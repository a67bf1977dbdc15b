/* Which libraries decode images. */
#include "data/image.h"

#include <png.h>
#include <stdio.h>
#include <webp/decode.h>
/* needs stdio.h first */
#include <jpeglib.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

void image_libraries(char *text, size_t size)
{
#ifdef LIBJPEG_TURBO_VERSION
	static const char jpeg[] = "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION);
#else
	static const char jpeg[] = "libjpeg";
#endif
	int webp = WebPGetDecoderVersion();
	snprintf(text, size, "%s (API %d), libpng %s, libwebp %d.%d.%d", jpeg, JPEG_LIB_VERSION, png_get_libpng_ver(NULL),
	         webp >> 16 & 255, webp >> 8 & 255, webp & 255);
}
