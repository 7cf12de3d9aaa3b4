// The sharp losses and their gradients on CUDA, the torch side: memory, the current stream.
#include "cuda/sharp_losses.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "cuda/stream.h"
#include "sharp_losses_request.h"

namespace scdr {
namespace {

// The device of a tensor, current while this lives.
struct Place {
  explicit Place(const Tensor& like)
      : device(like.get_device_index()), guard(device), stream(cuda::current_stream(device)) {}

  int device;
  torch::stable::accelerator::DeviceGuard guard;
  void* stream;
};

class Status {
 public:
  explicit Status(const Tensor& like)
      : bits_(torch::stable::new_empty(like, {1}, ScalarType::Int)) {}
  unsigned* bits() { return reinterpret_cast<unsigned*>(bits_.mutable_data_ptr<std::int32_t>()); }

 private:
  Tensor bits_;
};

void mf_on_cuda(const SharpMfRequest& request) {
  if (request.count == 0) return;
  const Place place(request.like);
  Status status(request.like);
  throw_if_not_finite(
      kSharpMf, cuda::sharp_mf_loss(request.rows, request.settings, request.inner, request.count,
                                    status.bits(), place.device, place.stream));
}

void mf_backward_on_cuda(const SharpMfBackwardRequest& request) {
  if (request.count == 0) return;
  const Place place(request.like);
  cuda::sharp_mf_gradient(request.rows, request.inner, request.count, place.device, place.stream);
}

void mapping_on_cuda(const SharpMappingRequest& request) {
  if (request.count == 0) return;
  const Place place(request.like);
  Status status(request.like);
  throw_if_not_finite(kSharpMapping,
                      cuda::sharp_mapping_loss(request.mlp, request.rows, request.count,
                                               status.bits(), place.device, place.stream));
}

void mapping_backward_on_cuda(const SharpMappingBackwardRequest& request) {
  const Place place(request.like);
  std::vector<Tensor> kept;
  const auto scratch = cuda::mapping_gradient(request.mlp, request.count, [&](std::int64_t count) {
    kept.push_back(vector_like(request.like, count));
    return kept.back().mutable_data_ptr<float>();
  });
  cuda::sharp_mapping_gradient(request.mlp, request.rows, request.count, scratch,
                               request.over_mapping, place.device, place.stream);
}

}  // namespace
}  // namespace scdr

STABLE_TORCH_LIBRARY_IMPL(scdr, CUDA, m) {
  m.impl("sharp_mf_loss", TORCH_BOX(&scdr::sharp_mf_loss<scdr::mf_on_cuda>));
  m.impl("sharp_mf_loss_backward",
         TORCH_BOX(&scdr::sharp_mf_loss_backward<scdr::mf_backward_on_cuda>));
  m.impl("sharp_mapping_loss", TORCH_BOX(&scdr::sharp_mapping_loss<scdr::mapping_on_cuda>));
  m.impl("sharp_mapping_loss_backward",
         TORCH_BOX(&scdr::sharp_mapping_loss_backward<scdr::mapping_backward_on_cuda>));
}
