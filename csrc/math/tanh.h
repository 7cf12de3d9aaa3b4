// tanh over a pack, by one formula everywhere: no libm. Needs of the pack, besides what math/ says
// of packs, x / y, min(x, y) and max(x, y); these two give y where either is not a number.
#pragma once

#include "math/inline.h"

namespace scdr {

// x P(x^2) / Q(x^2), P and Q fitted to tanh(x) / x on [0, 9] for the smallest relative error
// (2.1e-8 before the coefficients are rounded). The error in float32 is below 4e-7, absolute and
// relative. Odd; 0 at 0; 1 from 9 on, where the next float32 to tanh is 1 or the one before it;
// never beyond 1; NaN where x is.
template <class Pack>
SCDR_INLINE Pack tanh(Pack x) {
  const Pack one = Pack::all(1.0f), edge = Pack::all(9.0f);
  const Pack at = max(Pack::all(-9.0f), min(edge, x));
  const Pack y = at * at;
  Pack p = fma(Pack::all(1.3354647165897404e-08f), y, Pack::all(2.06090717256302e-05f));
  Pack q = fma(Pack::all(7.776552024552075e-07f), y, Pack::all(0.0003285633574705571f));
  p = fma(p, y, Pack::all(0.003495587268844247f));
  q = fma(q, y, Pack::all(0.025876978412270546f));
  p = fma(p, y, Pack::all(0.13381025195121765f));
  q = fma(q, y, Pack::all(0.4671434164047241f));
  p = fma(p, y, one);
  q = fma(q, y, one);
  return max(Pack::all(-1.0f), min(one, at * p / q));
}

}  // namespace scdr
