/* What each phase of a GRPO step has to do at least, counted from the shapes: what bench/roofline.c and bench/bench_gpu.c measure
 * against. */
#ifndef FAVOR_BENCH_NEEDS_H
#define FAVOR_BENCH_NEEDS_H

#include "model/model.h"

enum { VISION, PREFILL, DECODE, FORWARD, BACKWARD, UPDATE, PHASES };

/* Operations; bytes that must be read and written; the size of what is gone through. */
struct need {
	double flops, bytes, set;
};

struct need_shape {
	double patches, prompt, group, response; /* of one group: P, n, G, T; the image's tokens are among the n */
	double groups;                           /* that decode together; the other phases are one group's */
	double operand;                          /* bytes of a weight, key or activation as products take it */
};

/* Operations: a product of [m, k] and [k, n] has 2 m k n; a pair of a query and a key that it sees 2 Q for the score
 * and 2 Q for the value, over all heads; norms, activations and sampling are not counted. With n prompt tokens, G
 * responses of T tokens, P patches, and the letters of params.h:
 *
 *   text(r, p, t) = L (2 r (2 Q H + 2 KV H + 3 F H) + 4 Q p) + 2 t V H      r rows, p pairs, t rows through the head
 *   vision   = 2 P (E C + depth (4 E E + 2 E M)) + 4 E P P depth + 2 P / S (S E S E + H S E)
 *   prefill  = text(n, n (n + 1) / 2, 1)
 *   decode   = text(G (T - 1), G ((T - 1) n + T (T - 1) / 2), G (T - 1))
 *   forward  = vision + text(n + G (T - 1), prefill's pairs + decode's pairs, G T)
 *   backward = 2 x the forward's products (gradients of inputs and of weights; patches need none), 2.5 x its attention
 *              (the scores again, dV, dP, dQ, dK), 3 x its head (the logits again, dh, dw)
 *   update   = (2 + 15) a weight: its square; moments, corrections, root, division, decay
 *
 * Bytes: the weights that take part, once (decode: once a token); keys and values written and read (decode: the
 * prompt's once a token, a response's own once for each later token); activations that the backward needs, written by
 * the forward and read by the backward; gradients read and written; update: 9 passes over w, g, m, v. */
void count_needs(const struct model *m, const struct need_shape *s, struct need needs[PHASES]);

#endif
