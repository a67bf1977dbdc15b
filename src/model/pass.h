/* One training pass over a packed batch: log-probabilities of its targets, then the gradient of a loss of them. */
#ifndef FAVOR_MODEL_PASS_H
#define FAVOR_MODEL_PASS_H

#include "model/batch.h"
#include "model/model.h"
#include "model/towers.h"

struct pass {
	const struct run *run;
	const struct model *model;
	const struct batch *batch;
	float temperature;
	int recompute, vision_backward;
	struct vision_rows vision;
	struct text_rows text;
	int32_t *embed_row, *feature_row, *target_row, *target_id; /* backend memory */
	struct tensor patches, features, hidden, final, gathered, normed;
	struct vision_saved *blocks; /* host arrays in host_memory */
	struct text_saved *layers;
	struct tensor *block_x, *layer_x; /* inputs kept when recomputing */
	struct merger_saved merger;
	float *final_rstd, *lse;
	void *host_memory; /* owned */
	/* Set between forward and backward, or NULL: called as the backward pass is queued, when all gradients from `from` (an
	 * address in grad's block) to the end of the block are complete. They complete from the end on: head, last layer, ...,
	 * embedding, vision tower; `from` falls. */
	void (*ready)(void *arg, const float *from);
	void *ready_arg;
};

/* Forward. logp[targets] and entropy[targets] (may be NULL) on the host. keep: what the backward needs stays in
 * run->arena until the caller resets it; keep 0: only the values. recompute: layers keep their input alone and are
 * computed again in the backward. vision_backward: 0 for a frozen tower. 1: the run's tick said to give up, and no
 * result is there; else 0. */
int pass_forward(struct pass *p, const struct run *run, const struct model *m, const struct batch *b, float temperature,
                 int keep, int recompute, int vision_backward, float *logp, float *entropy);
/* For g[targets] = dL/dlogp (host): grad += dL/dweights. 1: given up, and only a part was added; else 0. */
int pass_backward(struct pass *p, const float *g, struct weights *grad);
/* Frees the host arrays; the arena is the caller's. */
void pass_end(struct pass *p);

/* Bytes of arena that a pass over such a batch needs on that backend: for the memory plan. */
int64_t pass_bytes(const struct backend *b, const struct model_config *c, int64_t rows, int64_t patches,
                   int64_t targets, int recompute, int vision_backward);

#endif
