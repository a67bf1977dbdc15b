/* What passes between ranks, wherever the backend has it: gradients between learners, weights to who rolls out. */
#ifndef FAVOR_APP_EXCHANGE_H
#define FAVOR_APP_EXCHANGE_H

#include <stdint.h>

struct setup;
struct trainer;

/* Gradients over learners; with comm.reproducible a zeroed sum, to which gradients are added, and which all then share; if
 * sharded a learner gets the sum of its slice alone, and the weights that each has stepped go to all; the leader's weights to
 * ranks that only roll out, and version and stop to all (as world_publish). Collective as what they call in comm. */
void exchange_sum_gradients(struct trainer *t);
void exchange_zero_sum(struct trainer *t);
void exchange_add_in_order(struct trainer *t, int first, int count);
void exchange_share_sum(struct trainer *t);
void exchange_share_weights(struct trainer *t);
void exchange_publish(struct trainer *t, uint64_t *version, int *stop);
void exchange_free(struct trainer *t);
/* Bytes on the host that this rank's blocks pass through at most, before it is known which way they go: for the memory plan. */
int64_t exchange_bytes(const struct setup *s);

#endif
