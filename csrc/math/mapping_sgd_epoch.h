// The mapping stage for a pack of rows, and the update of its parameters. With the item folded into
// the readout (see math/pgd_perturb_mlp.h), x = u + delta* and g = (2 / B) e, the gradients of the
// mean of e^2 over the B rows of a batch are, delta* a constant (Eq. 15),
//   over W1, b1   sum_rows (c (1 - h^2)) (g x)',  sum_rows c (1 - h^2) g
//   over W2, b2   sum_rows (g v) h',              sum_rows g v
//   over u        g W1' (c (1 - h^2))
#pragma once

#include <cstdint>

#include "math/adam.h"
#include "math/inline.h"
#include "math/pgd_perturb_mlp.h"

namespace scdr {

// Perturbs a pack of rows and runs them through the mapping. Replaces user [d_source] by x, leaves
// W1' (c (1 - h^2)) in slope [d_source], tells keep(j, h, c (1 - h^2)) of each hidden unit, and
// returns e. readout [hidden], x [d_source] and delta [d_source] are scratch.
template <class Pack, int D, int J, class Keep>
SCDR_INLINE Pack mapping_error(const PgdMlp& mlp, Pack* user, const Pack* item, Pack rating,
                               Pack* readout, Pack* x, Pack* delta, Pack* slope, const Keep& keep) {
  const int n = D > 0 ? D : mlp.d_source;
  const Pack shift = pgd_fold_item<Pack, J>(mlp, item, rating, readout);
  pgd_ascend<Pack, D, J>(mlp, user, readout, shift, x, slope, delta);
  SCDR_UNROLL_KNOWN
  for (int k = 0; k < n; ++k) user[k] = fma(Pack::all(mlp.step_size), delta[k], user[k]);
  return pgd_error<Pack, D, J>(mlp, user, readout, shift, slope, keep);
}

// What becomes of a gradient: g <- scale g + pull x, where scale clips and pull is of the penalty.
struct MappingUpdate {
  float scale, pull, lr;
  bool adam;
  AdamStep step;  // of Adam
};

// x[0, n) moves against its gradient. Returns zeros, or NaN somewhere where a value that was
// written is not finite. Packs hold neighbouring values here, as in math/mf_sgd_epoch.h.
template <class Pack>
SCDR_INLINE Pack mapping_update(float* x, float* first, float* second, const float* gradient, int n,
                                const MappingUpdate& update) {
  const Pack zero = Pack::all(0.0f);
  Pack wrong = zero;
  for (int i = 0; i < n; i += Pack::width) {
    const Pack from = Pack::load(x + i, n - i);
    Pack taken = fma(Pack::all(update.pull), from,
                     Pack::all(update.scale) * Pack::load(gradient + i, n - i));
    if (update.adam) {
      Pack m = Pack::load(first + i, n - i), v = Pack::load(second + i, n - i);
      taken = adam_step(m, v, taken, update.step);
      store(first + i, n - i, m);
      store(second + i, n - i, v);
      wrong = fma(v, zero, wrong);
    } else {
      taken = Pack::all(update.lr) * taken;
    }
    const Pack to = from - taken;
    store(x + i, n - i, to);
    wrong = fma(to, zero, wrong);
  }
  return wrong;
}

}  // namespace scdr
