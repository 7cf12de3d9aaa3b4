// The row kernels of mf_sgd_epoch_ for one SIMD level.
#include "cpu/mf_sgd_epoch.h"
#include "cpu/pack.h"

namespace scdr::SCDR_LEVEL {
namespace {

// How many visits ahead the rows of the tables are asked for.
constexpr std::int64_t kAhead = 64;

SCDR_INLINE void prefetch_row(const MfTable& table, std::int64_t i, int d) {
  const float* row = table.factors + i * table.stride;
  const char* first = reinterpret_cast<const char*>(row);
  const char* last = reinterpret_cast<const char*>(row + d) - 1;
  for (const char* line = first; line < last; line += 64) __builtin_prefetch(line, 1, 3);
  // A padded row starts with its line, so that the loop has met the last one.
  if (table.stride % 16 != 0) __builtin_prefetch(last, 1, 3);
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

// What row i weighs in the penalties.
SCDR_INLINE float weight(const MfTable& table, std::int64_t i) {
  return table.inverse_count != nullptr ? table.inverse_count[i * table.column_stride] : 1.0f;
}

SCDR_INLINE float bias(const MfTable& table, std::int64_t i) {
  return table.bias != nullptr ? table.bias[i * table.column_stride] : 0.0f;
}

template <Inner inner, int D, bool plain>
double compute(const MfTables& tables, const MfVisits& visits_in, const MfSettings& settings_in,
               const MfSteps& steps_in, std::int64_t batch, std::int64_t begin, std::int64_t end) {
  using Pack = PackFor<D>;
  // Copies: for all the compiler knows, a step that is stored could be one of these.
  const MfTable users = tables.user, items = tables.item;
  const MfVisits visits = visits_in;
  const MfSettings settings = settings_in;
  const MfSteps steps = steps_in;
  const int d = D > 0 ? D : tables.d;
  double loss = 0.0;
  for (std::int64_t at = begin; at < end; ++at) {
    if (at + kAhead < visits.end) {
      const MfRating& soon = visits.ring[(at + kAhead) & visits.mask];
      prefetch_row(users, soon.user, d);
      prefetch_row(items, soon.item, d);
    }
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t user = visit.user, item = visit.item, row = at - batch;
    const float* u = users.factors + user * users.stride;
    const float* v = items.factors + item * items.stride;
    float* user_step = steps.user + row * stride<D>(d);
    float* item_step = steps.item + row * stride<D>(d);
    float base = settings.offset - visit.rating;
    MfError error;
    if constexpr (plain) {
      error = mf_error<Pack, inner, D>(u, v, d, base, settings);
      mf_steps<Pack, inner, D, false>(u, v, d, error, settings.lr, 0.0f, 0.0f, user_step,
                                      item_step);
    } else {
      const float user_bias = bias(users, user), item_bias = bias(items, item);
      const float user_weight = weight(users, user), item_weight = weight(items, item);
      base += user_bias + item_bias;
      error = mf_error<Pack, inner, D>(u, v, d, base, settings);
      mf_steps<Pack, inner, D, true>(u, v, d, error, settings.lr,
                                     settings.user_penalty * user_weight,
                                     settings.item_penalty * item_weight, user_step, item_step);
      if (users.bias != nullptr)
        steps.user_bias[row] = mf_bias_step(error.error, user_bias, settings.lr,
                                            settings.user_bias_penalty * user_weight);
      if (items.bias != nullptr)
        steps.item_bias[row] = mf_bias_step(error.error, item_bias, settings.lr,
                                            settings.item_bias_penalty * item_weight);
    }
    steps.error[row] = error.error;
    loss += square(error.error);
  }
  return loss;
}

// Takes one step off row i.
template <int D, bool plain>
SCDR_INLINE void apply_to(const MfTable& table, std::int64_t i, int d, const float* step,
                          const float* bias_step) {
  mf_apply<PackFor<D>, D>(table.factors + i * table.stride, step, d);
  if (!plain && table.bias != nullptr) table.bias[i * table.column_stride] -= *bias_step;
}

template <int D, bool plain>
void apply(const MfTables& tables, const MfVisits& visits_in, const MfSteps& steps_in,
           std::int64_t batch, std::int64_t begin, std::int64_t end, std::uint32_t part,
           std::uint32_t parts) {
  const MfTable users = tables.user, items = tables.item;  // copies, as in compute
  const MfVisits visits = visits_in;
  const MfSteps steps = steps_in;
  const int d = D > 0 ? D : tables.d;
  for (std::int64_t at = begin; at < end; ++at) {
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t row = at - batch;
    if (parts == 1 || owner(visit.user, parts) == part)
      apply_to<D, plain>(users, visit.user, d, steps.user + row * stride<D>(d),
                         steps.user_bias + row);
    if (parts == 1 || owner(visit.item, parts) == part)
      apply_to<D, plain>(items, visit.item, d, steps.item + row * stride<D>(d),
                         steps.item_bias + row);
  }
}

// A row's visits come together at the first of them.
template <int D>
SCDR_INLINE void gather_row(std::int64_t& first, std::int64_t at, std::int64_t batch, int d,
                            float* step, float* bias_step) {
  if (first < batch) {
    first = at;
    return;
  }
  const std::int64_t to = first - batch, from = at - batch;
  mf_add<PackFor<D>, D>(step + to * stride<D>(d), step + from * stride<D>(d), d);
  if (bias_step != nullptr) bias_step[to] += bias_step[from];
}

SCDR_INLINE float* bias_steps(const MfTable& table, float* steps) {
  return table.bias != nullptr ? steps : nullptr;
}

template <int D>
void gather(const MfTables& tables, const MfVisits& visits, const MfSteps& steps,
            const MfFirstVisits& first, std::int64_t batch, std::int64_t begin, std::int64_t end,
            std::uint32_t part, std::uint32_t parts) {
  float* user_bias = bias_steps(tables.user, steps.user_bias);
  float* item_bias = bias_steps(tables.item, steps.item_bias);
  for (std::int64_t at = begin; at < end; ++at) {
    if (at + kAhead < visits.end) {
      const MfRating& soon = visits.ring[(at + kAhead) & visits.mask];
      __builtin_prefetch(first.user + soon.user, 1, 3);
      __builtin_prefetch(first.item + soon.item, 1, 3);
    }
    const MfRating& visit = visits.ring[at & visits.mask];
    if (parts == 1 || owner(visit.user, parts) == part)
      gather_row<D>(first.user[visit.user], at, batch, tables.d, steps.user, user_bias);
    if (parts == 1 || owner(visit.item, parts) == part)
      gather_row<D>(first.item[visit.item], at, batch, tables.d, steps.item, item_bias);
  }
}

template <int D>
double square_sum(const MfTables& tables, const MfVisits& visits, const MfSteps& steps,
                  const MfFirstVisits& first, std::int64_t batch, std::int64_t begin,
                  std::int64_t end) {
  const int d = D > 0 ? D : tables.d;
  float* user_bias = bias_steps(tables.user, steps.user_bias);
  float* item_bias = bias_steps(tables.item, steps.item_bias);
  double total = 0.0;
  for (std::int64_t at = begin; at < end; ++at) {
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t row = at - batch;
    if (first.user[visit.user] == at)
      total += mf_row_square_sum<PackFor<D>, D>(d, steps.user + row * stride<D>(d),
                                                user_bias != nullptr ? user_bias + row : nullptr);
    if (first.item[visit.item] == at)
      total += mf_row_square_sum<PackFor<D>, D>(d, steps.item + row * stride<D>(d),
                                                item_bias != nullptr ? item_bias + row : nullptr);
  }
  return total;
}

// Whether what was written is finite: zero for each value that is, else NaN.
template <int D>
struct Written {
  PackFor<D> factors = PackFor<D>::all(0.0f);
  PackFor<1> biases = PackFor<1>::all(0.0f);

  bool finite() const { return sum(factors) == 0.0f && sum(biases) == 0.0f; }
};

template <int D>
SCDR_INLINE void update_row(const MfTable& table, const MfTable& first, const MfTable& second,
                            std::int64_t i, int d, const float* gradient,
                            const float* bias_gradient, const MfUpdate& how, Written<D>& written) {
  const auto row = [i](const MfTable& of) { return of.factors + i * of.stride; };
  const auto bias_of = [i](const MfTable& of) { return of.bias + i * of.column_stride; };
  written.factors = written.factors +
                    mf_update<PackFor<D>, D>(row(table), row(first), row(second), gradient, d, how);
  if (table.bias != nullptr)
    written.biases =
        written.biases + mf_update<PackFor<1>, 1>(bias_of(table), bias_of(first), bias_of(second),
                                                  bias_gradient, 1, how);
}

template <int D>
bool update(const MfTables& tables, const MfMoments& moments, const MfVisits& visits,
            const MfSteps& steps, const MfFirstVisits& first, const MfUpdate& how,
            std::int64_t batch, std::int64_t begin, std::int64_t end) {
  const int d = D > 0 ? D : tables.d;
  Written<D> written;
  for (std::int64_t at = begin; at < end; ++at) {
    if (at + kAhead < visits.end) {
      const MfRating& soon = visits.ring[(at + kAhead) & visits.mask];
      prefetch_row(tables.user, soon.user, d);
      prefetch_row(tables.item, soon.item, d);
      if (how.adam) {
        prefetch_row(moments.user_first, soon.user, d);
        prefetch_row(moments.user_second, soon.user, d);
        prefetch_row(moments.item_first, soon.item, d);
        prefetch_row(moments.item_second, soon.item, d);
      }
    }
    const MfRating& visit = visits.ring[at & visits.mask];
    const std::int64_t row = at - batch;
    if (first.user[visit.user] == at)
      update_row<D>(tables.user, moments.user_first, moments.user_second, visit.user, d,
                    steps.user + row * stride<D>(d), steps.user_bias + row, how, written);
    if (first.item[visit.item] == at)
      update_row<D>(tables.item, moments.item_first, moments.item_second, visit.item, d,
                    steps.item + row * stride<D>(d), steps.item_bias + row, how, written);
  }
  return written.finite();
}

template <Inner inner, int D, bool plain>
MfKernel kernel_for(int d) {
  return {stride<D>(d), compute<inner, D, plain>, apply<D, plain>, gather<D>, square_sum<D>,
          update<D>};
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
