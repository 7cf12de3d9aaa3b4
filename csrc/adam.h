// Adam's settings, checked, and what a batch needs of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "check.h"
#include "math/adam.h"

namespace scdr {

struct AdamSettings {
  double lr, beta1, beta2, eps;
};

inline void check_adam(const char* op, const AdamSettings& adam) {
  const auto decays = [op](const char* name, double beta) {
    check(beta >= 0.0 && beta < 1.0, op, name, "must be in [0, 1), not ", beta);
  };
  decays("adam.beta1", adam.beta1);
  decays("adam.beta2", adam.beta2);
  check(std::isfinite(adam.eps) && static_cast<float>(adam.eps) > 0.0f, op, "adam.eps",
        "must be a positive float32, not ", adam.eps);
}

// The step at batch number `batch`, counted from 1 over the whole training.
inline AdamStep adam_step_at(const AdamSettings& adam, std::int64_t batch) {
  const auto t = static_cast<double>(batch);
  const double size =
      adam.lr * std::sqrt(1.0 - std::pow(adam.beta2, t)) / (1.0 - std::pow(adam.beta1, t));
  return {.size = static_cast<float>(size),
          .first_share = static_cast<float>(1.0 - adam.beta1),
          .second_share = static_cast<float>(1.0 - adam.beta2),
          .eps = static_cast<float>(adam.eps)};
}

}  // namespace scdr
