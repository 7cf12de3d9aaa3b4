// Adam's step on one row of a table, over packs as in math/mf_sgd_epoch.h; beyond those it needs
//   x / y, root(x)
// D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
#pragma once

#include "math/inline.h"

namespace scdr {

// What all rows of a batch share.
struct AdamStep {
  float size;                       // lr sqrt(1 - beta2^t) / (1 - beta1^t) at batch t
  float first_share, second_share;  // 1 - beta1, 1 - beta2
  float eps;  // beside the root before bias correction, as torch.optim.SparseAdam
};

// The moments take in the gradient; returns what is to be taken off x.
template <class Pack>
SCDR_INLINE Pack adam_step(Pack& first, Pack& second, Pack gradient, const AdamStep& step) {
  first = fma(Pack::all(step.first_share), gradient - first, first);
  second = fma(Pack::all(step.second_share), gradient * gradient - second, second);
  return Pack::all(step.size) * first / (root(second) + Pack::all(step.eps));
}

}  // namespace scdr
