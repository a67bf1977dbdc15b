/* Antialiased bicubic resizing with the results of Pillow's, to the 8-bit value. The algorithm: two passes, across and
 * down, each a weighted sum over the pixels within the filter's support, which grows with the scale when shrinking.
 * Weights are computed in doubles, normalised, and rounded to integers of WEIGHT_BITS fractional bits; sums are rounded
 * and cut to 0..255 after each pass. A pass that changes nothing is left out. The order of the passes shows in the
 * result: see down_first. */
#include "data/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	WEIGHT_BITS = 32 - 8 - 2,
	ROWS = 16, /* rows that the pass across works on together: one vector of sums a channel */
	SPAN = 96  /* values that the pass down works on together */
};

struct weights {
	int32_t taps;   /* room for one output pixel */
	int32_t *first; /* [size] first input pixel */
	int32_t *count; /* [size] */
	int32_t *value; /* [size, taps] */
};

/* Cubic convolution with a = -0.5. */
static double cubic(double x)
{
	const double a = -0.5;
	x = fabs(x);
	if (x < 1.0)
		return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
	if (x < 2.0)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0.0;
}

static void weights_init(struct weights *w, int32_t in, int32_t out)
{
	const double scale = (double)in / out, stretch = scale < 1.0 ? 1.0 : scale, support = 2.0 * stretch;
	w->taps = (int32_t)ceil(support) * 2 + 1;
	w->first = favor_malloc((size_t)out * sizeof(int32_t));
	w->count = favor_malloc((size_t)out * sizeof(int32_t));
	w->value = favor_malloc((size_t)out * (size_t)w->taps * sizeof(int32_t));
	double *k = favor_malloc((size_t)w->taps * sizeof *k);
	for (int32_t i = 0; i < out; i++) {
		const double center = (i + 0.5) * scale, inverse = 1.0 / stretch;
		int32_t from = (int32_t)(center - support + 0.5), to = (int32_t)(center + support + 0.5);
		from = from < 0 ? 0 : from;
		to = to > in ? in : to;
		double sum = 0;
		for (int32_t x = from; x < to; x++) {
			k[x - from] = cubic((x - center + 0.5) * inverse);
			sum += k[x - from];
		}
		for (int32_t x = 0; x < to - from; x++) {
			if (sum != 0.0)
				k[x] /= sum;
			w->value[(size_t)i * (size_t)w->taps + (size_t)x] = k[x] < 0 ? (int32_t)(-0.5 + k[x] * (1 << WEIGHT_BITS))
			                                                             : (int32_t)(0.5 + k[x] * (1 << WEIGHT_BITS));
		}
		w->first[i] = from;
		w->count[i] = to - from;
	}
	free(k);
}

static void weights_free(struct weights *w)
{
	free(w->first);
	free(w->count);
	free(w->value);
}

static inline uint8_t rounded(int32_t sum)
{
	int32_t v = sum >> WEIGHT_BITS;
	return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* in [height, in_width, 3] -> out [height, out_width, 3]. ROWS rows are turned so that their pixels of a column lie
 * side by side: the innermost loop then runs over rows and becomes vector instructions. */
static void resize_across(uint8_t *out, int32_t out_width, const uint8_t *in, int32_t in_width, int32_t height,
                          const struct weights *w)
{
	uint8_t *turned = favor_calloc((size_t)in_width * 3, ROWS); /* [in_width, 3, ROWS] */
	for (int32_t y0 = 0; y0 < height; y0 += ROWS) {
		const int rows = height - y0 < ROWS ? height - y0 : ROWS;
		for (int r = 0; r < rows; r++) {
			const uint8_t *row = in + (size_t)(y0 + r) * (size_t)in_width * 3;
			for (size_t i = 0; i < (size_t)in_width * 3; i++)
				turned[i * ROWS + (size_t)r] = row[i];
		}
		for (int32_t x = 0; x < out_width; x++) {
			int32_t sum[3 * ROWS];
			for (int i = 0; i < 3 * ROWS; i++)
				sum[i] = 1 << (WEIGHT_BITS - 1);
			const uint8_t *column = turned + (size_t)w->first[x] * 3 * ROWS;
			const int32_t *k = w->value + (size_t)x * (size_t)w->taps;
			for (int32_t t = 0; t < w->count[x]; t++, column += 3 * ROWS)
				for (int i = 0; i < 3 * ROWS; i++)
					sum[i] += column[i] * k[t];
			for (int r = 0; r < rows; r++)
				for (int c = 0; c < 3; c++)
					out[((size_t)(y0 + r) * (size_t)out_width + (size_t)x) * 3 + (size_t)c] =
						rounded(sum[c * ROWS + r]);
		}
	}
	free(turned);
}

/* in [.., width, 3] -> out [out_height, width, 3] */
static void resize_down(uint8_t *out, int32_t out_height, const uint8_t *in, int32_t width, const struct weights *w)
{
	const size_t stride = (size_t)width * 3;
	for (int32_t y = 0; y < out_height; y++) {
		const int32_t *k = w->value + (size_t)y * (size_t)w->taps;
		const uint8_t *top = in + (size_t)w->first[y] * stride;
		for (size_t from = 0; from < stride; from += SPAN) {
			int32_t sum[SPAN];
			for (int i = 0; i < SPAN; i++)
				sum[i] = 1 << (WEIGHT_BITS - 1);
			if (stride - from >= SPAN) {
				for (int32_t t = 0; t < w->count[y]; t++) {
					const uint8_t *row = top + (size_t)t * stride + from;
					for (int i = 0; i < SPAN; i++)
						sum[i] += row[i] * k[t];
				}
				for (int i = 0; i < SPAN; i++)
					out[(size_t)y * stride + from + (size_t)i] = rounded(sum[i]);
			} else {
				for (size_t i = 0; i < stride - from; i++) {
					for (int32_t t = 0; t < w->count[y]; t++)
						sum[i] += top[(size_t)t * stride + from + i] * k[t];
					out[(size_t)y * stride + from + i] = rounded(sum[i]);
				}
			}
		}
	}
}

/* Pillow 13 and later shrink a tall image's height first, older ones always begin across (its pull request 9549). The
 * rule was found by comparing with both orders. */
static int down_first(const struct image *in, int32_t width, int32_t height)
{
	return in->height > height && (int64_t)in->height - height > 2 * ((int64_t)in->width - width);
}

static void pass_across(struct image *out, const struct image *in, int32_t width)
{
	struct weights w;
	weights_init(&w, in->width, width);
	*out = (struct image){width, in->height, favor_malloc((size_t)width * (size_t)in->height * 3)};
	resize_across(out->pixels, width, in->pixels, in->width, in->height, &w);
	weights_free(&w);
}

static void pass_down(struct image *out, const struct image *in, int32_t height)
{
	struct weights w;
	weights_init(&w, in->height, height);
	*out = (struct image){in->width, height, favor_malloc((size_t)in->width * (size_t)height * 3)};
	resize_down(out->pixels, height, in->pixels, in->width, &w);
	weights_free(&w);
}

void image_resize_bicubic(struct image *out, const struct image *in, int32_t width, int32_t height)
{
	struct image middle = {0};
	if (width == in->width && height == in->height) {
		*out = (struct image){width, height, favor_malloc((size_t)width * (size_t)height * 3)};
		memcpy(out->pixels, in->pixels, (size_t)width * (size_t)height * 3);
	} else if (width == in->width) {
		pass_down(out, in, height);
	} else if (height == in->height) {
		pass_across(out, in, width);
	} else if (down_first(in, width, height)) {
		pass_down(&middle, in, height);
		pass_across(out, &middle, width);
	} else {
		pass_across(&middle, in, width);
		pass_down(out, &middle, height);
	}
	image_free(&middle);
}
