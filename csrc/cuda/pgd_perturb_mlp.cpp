// pgd_perturb_mlp and tanh on CUDA, the torch side: checks, memory, the current stream.
#include "cuda/pgd_perturb_mlp.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "cuda/stream.h"
#include "pgd_perturb_mlp_request.h"

namespace scdr {
namespace {

Tensor run_on_cuda(const PgdMlpRequest& request) {
  const Tensor& user = request.user;
  const int device = user.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = cuda::current_stream(device);
  Tensor delta = torch::stable::empty_like(user);
  if (request.rows == 0) return delta;
  const PgdRows rows{
      .user = user.const_data_ptr<float>(),
      .item = request.item.const_data_ptr<float>(),
      .rating = request.rating.const_data_ptr<float>(),
      .delta = delta.mutable_data_ptr<float>(),
  };
  const Tensor status = torch::stable::new_empty(user, {1}, ScalarType::Int);
  auto* bits = reinterpret_cast<unsigned*>(status.mutable_data_ptr<std::int32_t>());
  throw_if_not_finite(kPgdPerturbMlp,
                      cuda::pgd_perturb_mlp(request.mlp, rows, request.rows, bits, device, stream));
  return delta;
}

Tensor tanh_on_cuda(Tensor x) {
  check_tanh(x);
  const int device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  Tensor result = torch::stable::empty_like(x);
  if (x.numel() > 0)
    cuda::tanh(x.const_data_ptr<float>(), result.mutable_data_ptr<float>(), x.numel(), device,
               cuda::current_stream(device));
  return result;
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("pgd_perturb_mlp", TORCH_BOX(&scdr::pgd_perturb_mlp<scdr::run_on_cuda>));
  m.impl("tanh", TORCH_BOX(&scdr::tanh_on_cuda));
}
