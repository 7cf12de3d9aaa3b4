// Between the two halves of the sharp losses on CUDA: the torch side (memory) and the kernels.
#pragma once

#include <cstdint>

#include "cuda/mapping_gradient.h"
#include "math/sharp_mapping_loss.h"
#include "math/sharp_mf_loss.h"

namespace scdr::cuda {

// All run on `stream` of `device`. Those of a loss return which columns of the rows are not finite
// (kNotFinite...), by way of status [1], and wait for it; the others do not wait.
unsigned sharp_mf_loss(const SharpMfRows& rows, const MfSettings& settings, Inner inner,
                       std::int64_t count, unsigned* status, int device, void* stream);
void sharp_mf_gradient(const SharpMfGradients& rows, Inner inner, std::int64_t count, int device,
                       void* stream);
unsigned sharp_mapping_loss(const PgdMlp& mlp, const SharpRows& rows, std::int64_t count,
                            unsigned* status, int device, void* stream);
// Over the mapping: w1, b1, w2, b2, null of a bias that there is not.
void sharp_mapping_gradient(const PgdMlp& mlp, const SharpGradients& rows, std::int64_t count,
                            const MappingGradient& scratch, float* const (&over_mapping)[4],
                            int device, void* stream);

}  // namespace scdr::cuda
