// What an epoch keeps where it takes the gradient of a batch as a whole: for Adam and clipping.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "adam.h"
#include "cpu/mf_sgd_epoch.h"
#include "mf_sgd_epoch_request.h"

namespace scdr {

class Gradients {
 public:
  explicit Gradients(const MfRequest& request)
      : first_user_(static_cast<std::size_t>(request.n_users), -1),
        first_item_(static_cast<std::size_t>(request.n_items), -1),
        clip_norm_(request.clip_norm),
        adam_(request.adam),
        batches_(request.adam_step ? request.adam_step->mutable_data_ptr<std::int64_t>() : nullptr),
        moments_(moments_of(request)) {}

  MfFirstVisits first() { return {first_user_.data(), first_item_.data()}; }
  const MfMoments& moments() const { return moments_; }
  bool clips() const { return clip_norm_.has_value(); }

  // How the next batch updates the tables; square_sum: of its gradient, where it is clipped.
  MfUpdate next(double square_sum) {
    double scale = 1.0;
    // The 1e-6 is that of torch.nn.utils.clip_grad_norm_.
    if (clip_norm_) scale = std::min(1.0, *clip_norm_ / (std::sqrt(square_sum) + 1e-6));
    if (batches_ == nullptr)
      return {.scale = static_cast<float>(adam_.lr * scale), .adam = false, .step = {}};
    return {.scale = static_cast<float>(scale),
            .adam = true,
            .step = adam_step_at(adam_, *batches_ + 1)};
  }

  // The batch has gone into tables and moments.
  void applied() {
    if (batches_ != nullptr) ++*batches_;
  }

 private:
  static MfMoments moments_of(const MfRequest& request) {
    if (!request.adam_step) return {};
    const auto table = [&](const std::optional<Tensor>& moment, const std::optional<Tensor>& bias) {
      return MfTable{MfRequest::write(moment), request.d, MfRequest::write(bias), nullptr, 1};
    };
    const MfMomentTensors &user = request.user_moments, &item = request.item_moments;
    return {.user_first = table(user.first, user.bias_first),
            .user_second = table(user.second, user.bias_second),
            .item_first = table(item.first, item.bias_first),
            .item_second = table(item.second, item.bias_second)};
  }

  std::vector<std::int64_t> first_user_, first_item_;
  std::optional<double> clip_norm_;
  AdamSettings adam_;
  std::int64_t* batches_;  // where Adam counts them; null: SGD
  MfMoments moments_;
};

}  // namespace scdr
