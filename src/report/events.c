/* TensorBoard's event files, encoded and read again (events.h). run_log.c calls it. */
#include "report/events.h"

#include <math.h>
#include <string.h>

/* Of struct Event and what it holds: field numbers, and the wire types of protocol buffers. */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION_LOG = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };
enum { RECORD_HEAD = 12, RECORD_TAIL = 4 };

/* CRC-32C (Castagnoli), bit by bit: some KiB a step. */
static uint32_t masked_crc(const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t c = 0xffffffffu;
	for (size_t i = 0; i < n; i++) {
		c ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
	}
	c = ~c;
	return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void add_little(struct text *t, uint64_t x, int bytes)
{
	unsigned char b[8];
	for (int i = 0; i < bytes; i++)
		b[i] = (unsigned char)(x >> 8 * i);
	text_bytes(t, b, (size_t)bytes);
}

static uint64_t little(const char *data, int bytes)
{
	uint64_t x = 0;
	for (int i = 0; i < bytes; i++)
		x |= (uint64_t)(unsigned char)data[i] << 8 * i;
	return x;
}

static void add_varint(struct text *t, uint64_t x)
{
	for (; x >= 0x80; x >>= 7)
		add_little(t, (x & 0x7f) | 0x80, 1);
	add_little(t, x, 1);
}

static void add_key(struct text *t, int field, int wire)
{
	add_varint(t, (uint64_t)field << 3 | (uint64_t)wire);
}

static void add_bytes(struct text *t, int field, const void *data, size_t n)
{
	add_key(t, field, WIRE_BYTES);
	add_varint(t, n);
	text_bytes(t, data, n);
}

static void begin_event(struct text *event, double time, int64_t step)
{
	uint64_t bits;
	memcpy(&bits, &time, sizeof bits);
	add_key(event, EVENT_WALL_TIME, WIRE_64);
	add_little(event, bits, 8);
	if (step) { /* as every value, 0 is left out */
		add_key(event, EVENT_STEP, WIRE_VARINT);
		add_varint(event, (uint64_t)step);
	}
}

/* Frees the event. */
static void add_record(struct text *t, struct text *event)
{
	const size_t begin = t->n;
	add_little(t, event->n, 8);
	add_little(t, masked_crc(t->data + begin, 8), 4);
	text_bytes(t, event->data, event->n);
	add_little(t, masked_crc(event->data, event->n), 4);
	text_free(event);
}

void events_begin(struct text *t, double time)
{
	static const char version[] = "brain.Event:2";
	struct text event = {0}, session = {0};
	begin_event(&event, time, 0);
	add_bytes(&event, EVENT_FILE_VERSION, version, strlen(version));
	add_record(t, &event);

	add_key(&session, SESSION_STATUS, WIRE_VARINT);
	add_varint(&session, SESSION_START);
	begin_event(&event, time, 0);
	add_bytes(&event, EVENT_SESSION_LOG, session.data, session.n);
	add_record(t, &event);
	text_free(&session);
}

void events_metrics(struct text *t, double time, int64_t step, const struct metrics *m)
{
	struct text event = {0}, summary = {0};
	for (int i = 0; i < m->count; i++) {
		const char *name = m->names[i];
		const float x = (float)m->values[i];
		uint32_t bits;
		struct text value = {0}, tag = {0};
		if (!isfinite(x) || strcmp(name, m->text_name) == 0)
			continue;
		memcpy(&bits, &x, sizeof bits);
		text_format(&tag, "%s%s", strncmp(name, "eval/", 5) == 0 ? "" : "train/", name);
		add_bytes(&value, VALUE_TAG, tag.data, tag.n);
		add_key(&value, VALUE_SIMPLE, WIRE_32);
		add_little(&value, bits, 4);
		add_bytes(&summary, SUMMARY_VALUE, value.data, value.n);
		text_free(&value);
		text_free(&tag);
	}
	if (summary.n) {
		begin_event(&event, time, step);
		add_bytes(&event, EVENT_SUMMARY, summary.data, summary.n);
		add_record(t, &event);
	}
	text_free(&summary);
}

/* The step of an event that begins as begin_event makes it; 0 if it has none or begins otherwise. */
static int64_t step_of(const char *event, size_t n)
{
	uint64_t step = 0;
	size_t at = 1 + 8;
	if (n <= at || event[0] != (EVENT_WALL_TIME << 3 | WIRE_64) || event[at++] != (EVENT_STEP << 3 | WIRE_VARINT))
		return 0;
	for (int shift = 0; at < n && shift < 63; shift += 7) {
		const unsigned char b = (unsigned char)event[at++];
		step |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return (int64_t)step;
	}
	return 0;
}

void events_keep(struct text *t, const char *data, size_t n, int64_t last_step)
{
	for (size_t at = 0; n - at >= RECORD_HEAD + RECORD_TAIL;) {
		const char *head = data + at, *event = head + RECORD_HEAD;
		const uint64_t size = little(head, 8);
		if (size > n - at - RECORD_HEAD - RECORD_TAIL || little(head + 8, 4) != masked_crc(head, 8) ||
		    little(event + size, 4) != masked_crc(event, size))
			return;
		const int64_t step = step_of(event, size);
		if (step > 0 && step <= last_step)
			text_bytes(t, head, RECORD_HEAD + size + RECORD_TAIL);
		at += RECORD_HEAD + size + RECORD_TAIL;
	}
}
