// The row kernels of mf_sgd_epoch_ for one SIMD level.
#include "cpu/mf_sgd_epoch.h"
#include "cpu/pack.h"

namespace scdr::SCDR_LEVEL {
namespace {

// How many visits ahead the rows of the tables are asked for.
constexpr std::int64_t kAhead = 64;

SCDR_INLINE void prefetch_row(const float* row, int d) {
  const char* first = reinterpret_cast<const char*>(row);
  const char* last = reinterpret_cast<const char*>(row + d) - 1;
  for (const char* line = first; line < last; line += 64) __builtin_prefetch(line, 1, 3);
  __builtin_prefetch(last, 1, 3);
}

SCDR_INLINE double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

// Rows of the tables are dealt to threads in groups of 64, since two threads that write to one
// cache line wait for each other; and by a hash, so that popular ids spread.
SCDR_INLINE std::uint32_t owner(std::int32_t row, std::uint32_t parts) {
  const std::uint64_t hash = (static_cast<std::uint32_t>(row) >> 6) * 2654435761u;
  return static_cast<std::uint32_t>((hash * parts) >> 32);
}

template <int D>
constexpr std::int64_t stride(int d) {
  constexpr int width = PackFor<D>::width;
  return ((D > 0 ? D : d) + width - 1) / width * width;
}

// What a row weighs in the penalties.
SCDR_INLINE float weight(const float* inverse_count, std::int64_t row) {
  return inverse_count != nullptr ? inverse_count[row] : 1.0f;
}

template <Inner inner, int D, bool plain>
double compute(const MfTables& tables, const MfVisits& visits, const MfSettings& settings,
               const MfSteps& steps, std::int64_t batch, std::int64_t begin, std::int64_t end) {
  using Pack = PackFor<D>;
  const int d = D > 0 ? D : tables.d;
  double loss = 0.0;
  for (std::int64_t at = begin; at < end; ++at) {
    if (at + kAhead < visits.end) {
      const MfRating& soon = visits.ring[(at + kAhead) & visits.mask];
      prefetch_row(tables.user + std::int64_t{soon.user} * d, d);
      prefetch_row(tables.item + std::int64_t{soon.item} * d, d);
    }
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t user = visit.user, item = visit.item, row = at - batch;
    const float* u = tables.user + user * d;
    const float* v = tables.item + item * d;
    float* user_step = steps.user + row * stride<D>(d);
    float* item_step = steps.item + row * stride<D>(d);
    float base = settings.offset - visit.rating;
    if constexpr (plain) {
      const MfError error = mf_error<Pack, inner, D>(u, v, d, base, settings);
      mf_steps<Pack, inner, D, false>(u, v, d, error, settings.lr, 0.0f, 0.0f, user_step,
                                      item_step);
      steps.error[row] = error.error;
      loss += square(error.error);
    } else {
      if (tables.user_bias != nullptr) base += tables.user_bias[user];
      if (tables.item_bias != nullptr) base += tables.item_bias[item];
      const float user_weight = weight(tables.user_inverse_count, user);
      const float item_weight = weight(tables.item_inverse_count, item);
      const MfError error = mf_error<Pack, inner, D>(u, v, d, base, settings);
      mf_steps<Pack, inner, D, true>(u, v, d, error, settings.lr,
                                     settings.user_penalty * user_weight,
                                     settings.item_penalty * item_weight, user_step, item_step);
      if (tables.user_bias != nullptr)
        steps.user_bias[row] = mf_bias_step(error.error, tables.user_bias[user], settings.lr,
                                            settings.user_bias_penalty * user_weight);
      if (tables.item_bias != nullptr)
        steps.item_bias[row] = mf_bias_step(error.error, tables.item_bias[item], settings.lr,
                                            settings.item_bias_penalty * item_weight);
      steps.error[row] = error.error;
      loss += square(error.error);
    }
  }
  return loss;
}

template <int D, bool plain>
void apply(const MfTables& tables, const MfVisits& visits, const MfSteps& steps, std::int64_t begin,
           std::int64_t end, std::uint32_t part, std::uint32_t parts) {
  using Pack = PackFor<D>;
  const int d = D > 0 ? D : tables.d;
  for (std::int64_t at = begin; at < end; ++at) {
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t row = at - begin;
    if (parts == 1 || owner(visit.user, parts) == part) {
      mf_apply<Pack, D>(tables.user + std::int64_t{visit.user} * d, steps.user + row * stride<D>(d),
                        d);
      if (!plain && tables.user_bias != nullptr)
        tables.user_bias[visit.user] -= steps.user_bias[row];
    }
    if (parts == 1 || owner(visit.item, parts) == part) {
      mf_apply<Pack, D>(tables.item + std::int64_t{visit.item} * d, steps.item + row * stride<D>(d),
                        d);
      if (!plain && tables.item_bias != nullptr)
        tables.item_bias[visit.item] -= steps.item_bias[row];
    }
  }
}

template <Inner inner, int D, bool plain>
MfKernel kernel_for(int d) {
  return {stride<D>(d), compute<inner, D, plain>, apply<D, plain>};
}

template <Inner inner, bool plain>
MfKernel kernel(int d) {
  switch (d) {
    case 8:
      return kernel_for<inner, 8, plain>(d);
    case 10:
      return kernel_for<inner, 10, plain>(d);
    case 16:
      return kernel_for<inner, 16, plain>(d);
    case 32:
      return kernel_for<inner, 32, plain>(d);
    case 64:
      return kernel_for<inner, 64, plain>(d);
    default:
      return kernel_for<inner, 0, plain>(d);
  }
}

}  // namespace

MfKernel mf_kernel(Inner inner, int d, bool plain) {
  switch (inner) {
    case Inner::pgd:
      return plain ? kernel<Inner::pgd, true>(d) : kernel<Inner::pgd, false>(d);
    case Inner::exact:
      return plain ? kernel<Inner::exact, true>(d) : kernel<Inner::exact, false>(d);
    case Inner::none:
      break;
  }
  return plain ? kernel<Inner::none, true>(d) : kernel<Inner::none, false>(d);
}

}  // namespace scdr::SCDR_LEVEL
