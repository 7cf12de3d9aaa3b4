// One rating's part in an epoch of SGD on L_MF or L_SMF: the error at the perturbed user vector and
// the steps that it asks of its user and item. Written once for the CPU (a pack is a SIMD register)
// and CUDA (a pack is one float in each thread of a warp). Includes nothing of torch or CUDA.
//
// A pack holds Pack::width neighbouring factors:
//   Pack::load(p, n), store(p, n, x)   the first n of them; the others read as 0
//   Pack::all(s)                       the scalar s in every place
//   x + y, x - y, x * y, fma(x, y, z)                x y + z, rounded once where the hardware can
//   abs(x), sign(x), sum(x), nonzero(x), and Pack::root(s), Pack::copysign(s, t) of scalars
#pragma once

#include "math/adam.h"
#include "math/inline.h"

namespace scdr {

// How the perturbation of the user vector is found.
enum class Inner {
  none,   // not perturbed: L_MF
  pgd,    // projected gradient ascent of so many steps, in closed form
  exact,  // the supremum over the ball
};

// How far PGD moves each coordinate whose gradient is not 0, `root` the square root of their
// number.
SCDR_SHARED float pgd_length(float reach, float radius, float root) {
  const float edge = radius / root;
  return reach < edge ? reach : edge;
}

struct MfSettings {
  float lr;
  float offset;
  float reach;        // steps * step_size: how far PGD could move a coordinate
  float radius;       // of the l2 ball
  float full_length;  // pgd_length for an item vector without zeros
  float user_penalty, item_penalty, user_bias_penalty, item_bias_penalty;
};

// error = <u + delta, v> + biases - rating; delta = along sgn(v) for pgd, along v for exact.
struct MfError {
  float error;
  float along;
};

// Two sums at once, which is cheaper in some packs.
template <class Pack>
SCDR_INLINE void sum_both(Pack a, Pack b, float& sum_a, float& sum_b) {
  sum_a = sum(a);
  sum_b = sum(b);
}

// Every step of PGD raises |e| by step_size ||v||_1, so its sign never turns, every step goes along
// sgn(e) sgn(v), and after any number of them, with projection,
//   delta = c sgn(e) sgn(v),  c = min(steps * step_size, radius / sqrt(nnz(v)));
// the supremum over the ball is at delta = radius sgn(e) v / ||v||_2. sgn(0) = 0.
// base = offset + biases - rating. u, v: [d]; D = d where it is known when compiling, else 0.
template <class Pack, Inner inner, int D>
SCDR_INLINE MfError mf_error(const float* u, const float* v, int d, float base,
                             const MfSettings& settings) {
  const int n = D > 0 ? D : d;
  Pack product = Pack::all(0.0f), size = Pack::all(0.0f);
  int nonzeros = 0;
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width) {
    const Pack v_j = Pack::load(v + j, n - j);
    product = fma(Pack::load(u + j, n - j), v_j, product);
    if constexpr (inner == Inner::pgd) {
      size = size + abs(v_j);
      nonzeros += nonzero(v_j);
    }
    if constexpr (inner == Inner::exact) size = fma(v_j, v_j, size);
  }
  if constexpr (inner == Inner::none) {
    return {sum(product) + base, 0.0f};
  } else {
    float e, total;
    sum_both(product, size, e, total);
    e += base;
    // No other branch on e: which way it went would be random.
    if (e == 0.0f) return {e, 0.0f};
    if constexpr (inner == Inner::pgd) {
      float length = settings.full_length;
      if (nonzeros != n) {
        if (nonzeros == 0) return {e, 0.0f};
        length =
            pgd_length(settings.reach, settings.radius, Pack::root(static_cast<float>(nonzeros)));
      }
      const float along = Pack::copysign(length, e);
      return {e + along * total, along};
    } else {
      const float norm = Pack::root(total);
      const float along = Pack::copysign(settings.radius, e) / (norm < 1e-12f ? 1e-12f : norm);
      return {e + along * total, along};
    }
  }
}

// Eq. 15 with a penalty: what SGD takes off u and v for this rating,
//   user_step = lr (2 e v + 2 user_penalty u),  item_step = lr (2 e (u + delta) + 2 item_penalty
//   v).
// Without `penalised` both penalties are taken as 0.
template <class Pack, Inner inner, int D, bool penalised>
SCDR_INLINE void mf_steps(const float* u, const float* v, int d, MfError at, float lr,
                          float user_penalty, float item_penalty, float* user_step,
                          float* item_step) {
  const int n = D > 0 ? D : d;
  const Pack gain = Pack::all(2.0f * lr * at.error);
  const Pack user_pull = Pack::all(2.0f * lr * user_penalty);
  const Pack item_pull = Pack::all(2.0f * lr * item_penalty);
  const Pack along = Pack::all(at.along);
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width) {
    const Pack u_j = Pack::load(u + j, n - j);
    const Pack v_j = Pack::load(v + j, n - j);
    Pack moved = u_j;
    if constexpr (inner == Inner::pgd) moved = fma(along, sign(v_j), u_j);
    if constexpr (inner == Inner::exact) moved = fma(along, v_j, u_j);
    if constexpr (penalised) {
      store_padded(user_step + j, n - j, fma(gain, v_j, user_pull * u_j));
      store_padded(item_step + j, n - j, fma(gain, moved, item_pull * v_j));
    } else {
      store_padded(user_step + j, n - j, gain * v_j);
      store_padded(item_step + j, n - j, gain * moved);
    }
  }
}

// The same for a bias: lr (2 e + 2 penalty b).
SCDR_INLINE float mf_bias_step(float error, float bias, float lr, float penalty) {
  return 2.0f * lr * (error + penalty * bias);
}

// x -= step.
template <class Pack, int D>
SCDR_INLINE void mf_apply(float* x, const float* step, int d) {
  const int n = D > 0 ? D : d;
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width)
    store(x + j, n - j, Pack::load(x + j, n - j) - Pack::load_padded(step + j, n - j));
}

// sum += step.
template <class Pack, int D>
SCDR_INLINE void mf_add(float* sum, const float* step, int d) {
  const int n = D > 0 ? D : d;
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width)
    store_padded(sum + j, n - j,
                 Pack::load_padded(sum + j, n - j) + Pack::load_padded(step + j, n - j));
}

template <class Pack, int D>
SCDR_INLINE float mf_square_sum(const float* gradient, int d) {
  const int n = D > 0 ? D : d;
  Pack squares = Pack::all(0.0f);
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width) {
    const Pack g = Pack::load(gradient + j, n - j);
    squares = fma(g, g, squares);
  }
  return sum(squares);
}

// The square of the gradient of a row of a table and of its bias, if any.
template <class Pack, int D>
SCDR_INLINE double mf_row_square_sum(int d, const float* gradient, const float* bias_gradient) {
  const auto square = [](float x) { return static_cast<double>(x) * static_cast<double>(x); };
  double total = mf_square_sum<Pack, D>(gradient, d);
  if (!(total <= static_cast<double>(__FLT_MAX__))) {  // the squares, or a gradient, are too large
    total = 0.0;
    for (int j = 0; j < d; ++j) total += square(gradient[j]);
  }
  return bias_gradient != nullptr ? total + square(*bias_gradient) : total;
}

// What becomes of the gradient of a row of a table, which its visits in a batch have summed up.
struct MfUpdate {
  float scale;  // multiplies it: clipping, and for SGD the learning rate
  bool adam;
  AdamStep step;  // of Adam
};

// x[0, d) moves against its gradient. Returns zeros, or NaN somewhere where a value that was
// written is not finite.
template <class Pack, int D>
SCDR_INLINE Pack mf_update(float* x, float* first, float* second, const float* gradient, int d,
                           const MfUpdate& update) {
  const int n = D > 0 ? D : d;
  const Pack zero = Pack::all(0.0f);
  Pack wrong = zero;
  SCDR_UNROLL
  for (int j = 0; j < n; j += Pack::width) {
    Pack taken = Pack::all(update.scale) * Pack::load(gradient + j, n - j);
    if (update.adam) {
      Pack m = Pack::load(first + j, n - j), v = Pack::load(second + j, n - j);
      taken = adam_step(m, v, taken, update.step);
      store(first + j, n - j, m);
      store(second + j, n - j, v);
      wrong = fma(v, zero, wrong);
    }
    const Pack moved = Pack::load(x + j, n - j) - taken;
    store(x + j, n - j, moved);
    wrong = fma(moved, zero, wrong);
  }
  return wrong;
}

}  // namespace scdr
