// Between the two halves of pgd_perturb_mlp on CUDA: the torch side (memory) and the kernels; and
// the same for tanh.
#pragma once

#include <cstdint>

#include "math/pgd_perturb_mlp.h"

namespace scdr::cuda {

// Both run on `stream` of `device`. Perturbs all rows and returns which of their columns are not
// finite (kNotFinite...), by way of status [1]; waits for it.
unsigned pgd_perturb_mlp(const PgdMlp& mlp, const PgdRows& rows, std::int64_t count,
                         unsigned* status, int device, void* stream);
// out[i] = tanh(x[i]) for count of them; does not wait.
void tanh(const float* x, float* out, std::int64_t count, int device, void* stream);

}  // namespace scdr::cuda
