/* favor preprocess: the patches of images as the vision tower takes them, written as safetensors. Made for comparing
 * with transformers' image processor. */
#include "app/assets.h"
#include "app/commands.h"
#include "data/image.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void help(void)
{
	puts("usage: favor preprocess --model M --image F [--image F ...] --out X.safetensors\n"
	     "Writes pixel_values, F32 [patches, channels * temporal * patch * patch], and image_grid_thw, I64 [images, "
	     "3].\n"
	     "  --model M   a Hugging Face folder or a checkpoint: its preprocessor_config.json or processor_config.json is read\n"
	     "  --image F   JPEG, PNG or WebP; the patches of several images follow one another\n"
	     "  --out X     the file to write");
}

static void put_little(unsigned char out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (unsigned char)(v >> 8 * i);
}

/* A safetensors file: the header's length in 8 bytes, the header (JSON, filled up with spaces), the tensors one after
 * the other. */
static int write_tensors(const char *path, const struct patches *p, int count, struct favor_error *e)
{
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "floats are written as they lie in memory: a little-endian machine is needed"
#endif
	int64_t rows = 0;
	for (int i = 0; i < count; i++)
		rows += p[i].rows;
	const long long end = (long long)(rows * p[0].cols) * 4, last = end + (long long)count * 24;
	char *header = favor_format("{\"pixel_values\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%lld]},"
	                            "\"image_grid_thw\":{\"dtype\":\"I64\",\"shape\":[%d,3],\"data_offsets\":[%lld,%lld]}}",
	                            (long long)rows, (long long)p[0].cols, end, count, end, last);
	const size_t length = strlen(header), padding = (8 - length % 8) % 8;
	unsigned char word[8];
	int rc = -1;
	FILE *f = fopen(path, "wb");
	if (!f) {
		favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
		goto done;
	}
	put_little(word, length + padding);
	fwrite(word, 1, 8, f);
	fwrite(header, 1, length, f);
	fwrite("       ", 1, padding, f);
	for (int i = 0; i < count; i++)
		fwrite(p[i].values, sizeof(float), (size_t)p[i].rows * (size_t)p[i].cols, f);
	for (int i = 0; i < count; i++) {
		const int32_t grid[3] = {p[i].grid_t, p[i].grid_h, p[i].grid_w};
		for (int k = 0; k < 3; k++) {
			put_little(word, (uint64_t)grid[k]);
			fwrite(word, 1, 8, f);
		}
	}
	int bad = ferror(f);
	if (fclose(f) || bad)
		favor_fail(e, "%s: writing failed: %s", path, strerror(errno));
	else
		rc = 0;
done:
	free(header);
	return rc;
}

int cmd_preprocess(int argc, char **argv, struct favor_error *e)
{
	static const struct option options[] = {{"model", required_argument, NULL, 'm'},
	                                        {"image", required_argument, NULL, 'i'},
	                                        {"out", required_argument, NULL, 'o'},
	                                        {"help", no_argument, NULL, 'h'},
	                                        {NULL, 0, NULL, 0}};
	const char *model = NULL, *out = NULL, **images = favor_calloc((size_t)argc, sizeof *images);
	struct patches *patches = favor_calloc((size_t)argc, sizeof *patches);
	struct image_settings settings;
	int rc = 2, count = 0;
	optind = 0;
	for (int c; (c = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
		switch (c) {
		case 'm': model = optarg; break;
		case 'i': images[count++] = optarg; break;
		case 'o': out = optarg; break;
		case 'h':
			help();
			rc = 0;
			goto done;
		default:
			favor_fail(e,
			           c == ':' ? "preprocess: %s needs a value"
			                    : "preprocess: unknown option %s (favor preprocess --help lists them)",
			           argv[optind - 1]);
			goto done;
		}
	}
	if (optind < argc || !model || !out || count == 0) {
		favor_fail(e,
		           optind < argc
		               ? "preprocess: what is \"%s\"? Images are given by --image"
		               : "preprocess: %s is missing (usage: favor preprocess --model M --image F --out X.safetensors)",
		           optind < argc ? argv[optind]
		           : !model      ? "--model"
		           : count == 0  ? "--image"
		                         : "--out");
		goto done;
	}
	if (assets_image_settings(model, &settings, e))
		goto done;
	for (int i = 0; i < count; i++) {
		struct image im;
		if (image_load(&im, images[i], e))
			goto done;
		int bad = image_patches(&patches[i], &im, &settings, e);
		image_free(&im);
		if (bad) {
			favor_fail_prefix(e, "%s", images[i]);
			goto done;
		}
	}
	if (write_tensors(out, patches, count, e) == 0)
		rc = 0;
done:
	for (int i = 0; i < count; i++)
		patches_free(&patches[i]);
	free(patches);
	free(images);
	return rc;
}
