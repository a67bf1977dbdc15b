/* Shapes in integers: every sample of a shape's bounding box is tested against the shape. Fast enough for a few dozen
 * shapes on an image of 100 pixels, and exact. */
#include "data/synth_canvas.h"

#include <stdlib.h>

enum { SAMPLE = CANVAS_UNIT / CANVAS_SAMPLES, MAX_CORNERS = 16 };

struct box {
	int32_t x0, y0, x1, y1; /* samples, x1 and y1 excluded */
};

void canvas_init(struct canvas *c, int32_t width, int32_t height)
{
	c->width = width * CANVAS_SAMPLES;
	c->height = height * CANVAS_SAMPLES;
	c->rgb = favor_calloc((size_t)c->width * (size_t)c->height, 3);
}

void canvas_free(struct canvas *c)
{
	free(c->rgb);
	*c = (struct canvas){0};
}

void canvas_finish(const struct canvas *c, struct image *im)
{
	im->width = c->width / CANVAS_SAMPLES;
	im->height = c->height / CANVAS_SAMPLES;
	im->pixels = favor_malloc((size_t)im->width * (size_t)im->height * 3);
	const int n = CANVAS_SAMPLES * CANVAS_SAMPLES;
	for (int32_t y = 0; y < im->height; y++)
		for (int32_t x = 0; x < im->width; x++)
			for (int k = 0; k < 3; k++) {
				int sum = n / 2;
				for (int j = 0; j < CANVAS_SAMPLES; j++)
					for (int i = 0; i < CANVAS_SAMPLES; i++)
						sum += c->rgb[((size_t)(y * CANVAS_SAMPLES + j) * (size_t)c->width +
						               (size_t)(x * CANVAS_SAMPLES + i)) *
						                  3 +
						              (size_t)k];
				im->pixels[((size_t)y * (size_t)im->width + (size_t)x) * 3 + (size_t)k] = (uint8_t)(sum / n);
			}
}

static int32_t clamp(int32_t v, int32_t lo, int32_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

/* The samples that may lie within `reach` of the given extent. */
static struct box box_of(const struct canvas *c, int32_t x0, int32_t y0, int32_t x1, int32_t y1, int32_t reach)
{
	struct box b = {clamp((x0 - reach) / SAMPLE - 1, 0, c->width), clamp((y0 - reach) / SAMPLE - 1, 0, c->height),
	                clamp((x1 + reach) / SAMPLE + 2, 0, c->width), clamp((y1 + reach) / SAMPLE + 2, 0, c->height)};
	return b;
}

static void blend(struct canvas *c, int32_t x, int32_t y, const struct paint *p, int32_t light)
{
	uint8_t *q = c->rgb + ((size_t)y * (size_t)c->width + (size_t)x) * 3;
	const int32_t color[3] = {p->r, p->g, p->b};
	for (int k = 0; k < 3; k++) {
		int32_t v = clamp(color[k] * (256 + light) / 256, 0, 255);
		q[k] = (uint8_t)((q[k] * (256 - p->alpha) + v * p->alpha + 128) / 256);
	}
}

static int64_t integer_sqrt(int64_t n)
{
	int64_t r = 0;
	for (int64_t bit = (int64_t)1 << 30; bit; bit >>= 1)
		if ((r + bit) * (r + bit) <= n)
			r += bit;
	return r;
}

void canvas_capsule(struct canvas *c, struct point a, struct point b, int32_t ra, int32_t rb, struct paint p)
{
	struct box box = box_of(c, a.x < b.x ? a.x : b.x, a.y < b.y ? a.y : b.y, a.x > b.x ? a.x : b.x,
	                        a.y > b.y ? a.y : b.y, ra > rb ? ra : rb);
	const int64_t dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy, length = integer_sqrt(length2);
	for (int32_t y = box.y0; y < box.y1; y++)
		for (int32_t x = box.x0; x < box.x1; x++) {
			int64_t px = (int64_t)x * SAMPLE + SAMPLE / 2 - a.x, py = (int64_t)y * SAMPLE + SAMPLE / 2 - a.y;
			int64_t along = px * dx + py * dy;
			/* position of the nearest point of the axis, in 1/65536 of its length */
			int64_t t = along <= 0 ? 0 : along >= length2 ? 65536 : along * 65536 / length2;
			int64_t ex = px - dx * t / 65536, ey = py - dy * t / 65536, r = ra + (rb - ra) * t / 65536;
			if (ex * ex + ey * ey > r * r)
				continue;
			int64_t light = length > 0 && r > 0 ? (px * dy - py * dx) * p.shade / (length * r) : 0;
			blend(c, x, y, &p, (int32_t)light);
		}
}

void canvas_ellipse(struct canvas *c, struct point center, struct point axis, int32_t minor, struct paint p)
{
	const int64_t major = integer_sqrt((int64_t)axis.x * axis.x + (int64_t)axis.y * axis.y), b = minor;
	if (major == 0)
		return;
	struct box box = box_of(c, center.x, center.y, center.x, center.y, (int32_t)(major > b ? major : b));
	for (int32_t y = box.y0; y < box.y1; y++)
		for (int32_t x = box.x0; x < box.x1; x++) {
			int64_t px = (int64_t)x * SAMPLE + SAMPLE / 2 - center.x, py = (int64_t)y * SAMPLE + SAMPLE / 2 - center.y;
			int64_t s = (px * axis.x + py * axis.y) / major, t = (px * axis.y - py * axis.x) / major;
			if (s * s * b * b + t * t * major * major <= major * major * b * b)
				blend(c, x, y, &p, (int32_t)(t * p.shade / (b + 1)));
		}
}

void canvas_ring(struct canvas *c, struct point center, int32_t radius, int32_t thickness, struct paint p)
{
	const int64_t in = radius - thickness / 2, out = in + thickness;
	struct box box = box_of(c, center.x, center.y, center.x, center.y, (int32_t)out);
	for (int32_t y = box.y0; y < box.y1; y++)
		for (int32_t x = box.x0; x < box.x1; x++) {
			int64_t px = (int64_t)x * SAMPLE + SAMPLE / 2 - center.x, py = (int64_t)y * SAMPLE + SAMPLE / 2 - center.y;
			int64_t d = px * px + py * py;
			if (d <= out * out && d >= in * in)
				blend(c, x, y, &p, 0);
		}
}

void canvas_polygon(struct canvas *c, const struct point *corners, int n, struct paint p)
{
	int32_t y0 = corners[0].y, y1 = corners[0].y;
	for (int i = 1; i < n; i++) {
		y0 = corners[i].y < y0 ? corners[i].y : y0;
		y1 = corners[i].y > y1 ? corners[i].y : y1;
	}
	struct box box = box_of(c, 0, y0, c->width * SAMPLE, y1, 0);
	for (int32_t y = box.y0; y < box.y1; y++) {
		/* where the edges cross this row of samples, in order */
		int32_t cross[MAX_CORNERS];
		int count = 0;
		const int64_t py = (int64_t)y * SAMPLE + SAMPLE / 2;
		for (int i = 0; i < n && i < MAX_CORNERS; i++) {
			struct point a = corners[i], b = corners[(i + 1) % n];
			if ((a.y <= py) == (b.y <= py))
				continue;
			int32_t at = a.x + (int32_t)((int64_t)(b.x - a.x) * (py - a.y) / (b.y - a.y));
			int j = count++;
			for (; j > 0 && cross[j - 1] > at; j--)
				cross[j] = cross[j - 1];
			cross[j] = at;
		}
		for (int i = 0; i + 1 < count; i += 2) {
			int32_t from = clamp(cross[i] / SAMPLE - 1, 0, c->width),
					to = clamp(cross[i + 1] / SAMPLE + 2, 0, c->width);
			for (int32_t x = from; x < to; x++) {
				int32_t px = x * SAMPLE + SAMPLE / 2;
				if (px >= cross[i] && px < cross[i + 1])
					blend(c, x, y, &p, 0);
			}
		}
	}
}
