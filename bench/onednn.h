/* oneDNN's product with weights packed as it likes best, to compare with: what a good library makes of this machine. Its rows'
 * bits may depend on their number. Version 2 of its interface, as Debian 12 has it. */
#ifndef FAVOR_BENCH_ONEDNN_H
#define FAVOR_BENCH_ONEDNN_H

#include <stdint.h>

struct onednn_product;

/* c[m,n] = a[m,k] w[n,k]^T, all dense; w is packed here. a and c are borrowed. bfloat16: of a and w rounded to it, both
 * here, with c in float32; NULL where the library can't on this CPU. */
struct onednn_product *onednn_product_new(int64_t m, int64_t n, int64_t k, const float *a, const float *w, float *c,
                                          int bfloat16);
void onednn_product_destroy(struct onednn_product *p);
/* On OpenMP's current number of threads, which must be that of the creation. */
void onednn_product_run(struct onednn_product *p);

#endif
