// The kernels of mapping_sgd_epoch_ for one SIMD level.
#include "cpu/mapping_sgd_epoch.h"

#include <utility>

#include "cpu/pack.h"
#include "cpu/rows.h"

namespace scdr::SCDR_LEVEL {
namespace {

constexpr int kWidth = RowPack::width;
constexpr int kPacks = kMappingRows / kWidth;
// Sums of products of columns are taken kTile x kTileColumns at a time, as many as a pack has
// places, so that in the end a tile is one pack.
constexpr int kTile = 4, kTileColumns = kWidth / kTile;
// Columns of all rows: a pack number p of column k is at [k * kPacks + p]. One for a bias, and some
// to fill the last tile.
constexpr int kMostColumns = kMostPgdWidth + kTile;

template <int Step, int... At>
SCDR_INLINE RowPack fold(RowPack a, RowPack b, std::integer_sequence<int, At...>) {
  return {
      __builtin_shufflevector(a.x, b.x, ((At & Step) != 0 ? kWidth + At : At)...) +
      __builtin_shufflevector(a.x, b.x, ((At & Step) != 0 ? kWidth + (At ^ Step) : At ^ Step)...)};
}

// Place i of the result is the sum over the places of x[i].
template <int Step = kWidth / 2>
SCDR_INLINE RowPack sum_each(RowPack* x) {
  for (int i = 0; i < Step; ++i)
    x[i] = fold<Step>(x[i], x[i + Step], std::make_integer_sequence<int, kWidth>());
  if constexpr (Step > 1) return sum_each<Step / 2>(x);
  return x[0];
}

struct Columns {
  RowPack* x;
  int count;

  // With those that fill the last tile.
  static constexpr int rounded(int count, int tile) { return (count + tile - 1) / tile * tile; }
  SCDR_INLINE void fill(int packs, int tile) const {
    for (int k = count; k < rounded(count, tile); ++k)
      for (int p = 0; p < packs; ++p) x[k * kPacks + p] = RowPack::all(0.0f);
  }
};

constexpr std::int64_t tiled(int rows, int columns) {
  return std::int64_t{Columns::rounded(rows, kTile)} * Columns::rounded(columns, kTileColumns);
}

// Adds a b', summed over the rows, to sums, which holds it tile by tile.
void add_products(const Columns& a, const Columns& b, int packs, float* sums) {
  a.fill(packs, kTile);
  b.fill(packs, kTileColumns);
  for (int i = 0; i < a.count; i += kTile) {
    for (int j = 0; j < b.count; j += kTileColumns, sums += kWidth) {
      RowPack sum[kWidth];
      SCDR_UNROLL_KNOWN
      for (int t = 0; t < kWidth; ++t) sum[t] = RowPack::all(0.0f);
      for (int p = 0; p < packs; ++p) {
        SCDR_UNROLL_KNOWN
        for (int t = 0; t < kWidth; ++t)
          sum[t] = fma(a.x[(i + t / kTileColumns) * kPacks + p],
                       b.x[(j + t % kTileColumns) * kPacks + p], sum[t]);
      }
      store(sums, RowPack::load(sums) + sum_each(sum));
    }
  }
}

// From tiles to weight [rows, columns]; a column beyond these is the bias.
void unpack_products(const float* sums, int rows, int columns, float* weight, float* bias) {
  const int all = columns + (bias != nullptr ? 1 : 0);
  for (int i = 0; i < rows; i += kTile)
    for (int j = 0; j < all; j += kTileColumns, sums += kWidth)
      for (int t = 0; t < kWidth; ++t) {
        const int row = i + t / kTileColumns, column = j + t % kTileColumns;
        if (row >= rows || column >= all) continue;
        (column < columns ? weight[row * columns + column] : bias[row]) = sums[t];
      }
}

int with_bias(int columns, const float* bias) { return columns + (bias != nullptr ? 1 : 0); }

std::int64_t first_sums(const PgdMlp& mlp) {
  return tiled(mlp.hidden, with_bias(mlp.d_source, mlp.b1));
}

std::int64_t size_of_sums(const PgdMlp& mlp) {
  return first_sums(mlp) + tiled(mlp.d_target, with_bias(mlp.hidden, mlp.b2));
}

void unpack(const PgdMlp& mlp, const float* sums, const MappingGradient& gradient) {
  unpack_products(sums, mlp.hidden, mlp.d_source, gradient.w1, gradient.b1);
  unpack_products(sums + first_sums(mlp), mlp.d_target, mlp.hidden, gradient.w2, gradient.b2);
}

void compute(const PgdMlp& mlp, const MappingChunk& in, const MappingOutput& out) {
  constexpr int together = kWidth > 4 ? 10 : 8;  // as in pgd_mlp_kernel
  const int d_source = mlp.d_source, d_target = mlp.d_target, hidden = mlp.hidden;
  RowPack scaled_user[kMostColumns * kPacks], scaled_item[kMostColumns * kPacks];
  RowPack activation[kMostColumns * kPacks], unit[kMostColumns * kPacks];
  const int count = in.count, packs = (count + kWidth - 1) / kWidth;
  for (int p = 0; p < packs; ++p) {
    const int begin = p * kWidth, n = count - begin < kWidth ? count - begin : kWidth;
    RowPack user[kMostPgdWidth], item[kMostPgdWidth], readout[kMostPgdWidth];
    RowPack x[kMostPgdWidth], delta[kMostPgdWidth], slope[kMostPgdWidth], rating{};
    const MappingVisit* visits = in.visits + begin;
    // The rows that are missing are zero, and so are their gradients.
    load_columns([&](int i) { return in.user + std::int64_t{visits[i].user} * d_source; }, d_source,
                 n, user);
    load_columns([&](int i) { return in.item + std::int64_t{visits[i].item} * d_target; }, d_target,
                 n, item);
    for (int i = 0; i < n; ++i) rating.x[i] = visits[i].rating;
    const RowPack e = mapping_error<RowPack, 0, together>(
        mlp, user, item, rating, readout, x, delta, slope, [&](int j, RowPack h, RowPack u) {
          activation[j * kPacks + p] = h;
          unit[j * kPacks + p] = u;
        });
    store_column(out.error + begin, 1, n, e);
    RowPack g = RowPack::all(in.scale) * e;
    if (in.weight != nullptr) g = g * RowPack::column(in.weight + begin, 1, n);
    for (int k = 0; k < d_source; ++k) {
      scaled_user[k * kPacks + p] = g * user[k];
      slope[k] = g * slope[k];
    }
    store_columns(out.user + begin * d_source, d_source, n, slope);
    for (int t = 0; t < d_target; ++t) scaled_item[t * kPacks + p] = g * item[t];
    if (out.item != nullptr) {
      for (int t = 0; t < d_target; ++t) {
        RowPack mapped = RowPack::all(pgd_bias(mlp.b2, t));
        for (int j = 0; j < hidden; ++j)
          mapped = fma(RowPack::all(mlp.w2[t * hidden + j]), activation[j * kPacks + p], mapped);
        item[t] = g * mapped;
      }
      store_columns(out.item + begin * d_target, d_target, n, item);
    }
    scaled_user[d_source * kPacks + p] = g;
    activation[hidden * kPacks + p] = RowPack::all(1.0f);
  }
  add_products({unit, hidden}, {scaled_user, with_bias(d_source, mlp.b1)}, packs, out.sums);
  add_products({scaled_item, d_target}, {activation, with_bias(hidden, mlp.b2)}, packs,
               out.sums + first_sums(mlp));
}

// In eight sums, whatever the level.
double square_sum(const float* x, std::int64_t count) {
  double sums[8] = {};
  const auto square = [](float s) { return static_cast<double>(s) * static_cast<double>(s); };
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int t = 0; t < 8; ++t) sums[t] += square(x[i + t]);
  for (int t = 0; i < count; ++i, ++t) sums[t] += square(x[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

bool update(float* table, float* first, float* second, const std::int32_t* number,
            std::int64_t count, int n, const float* gradient, const MappingUpdate& how) {
  using Pack = PackFor<0>;
  Pack wrong = Pack::all(0.0f);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t at = std::int64_t{number[i]} * n;
    wrong =
        wrong + mapping_update<Pack>(table + at, how.adam ? first + at : nullptr,
                                     how.adam ? second + at : nullptr, gradient + i * n, n, how);
  }
  return sum(wrong) == 0.0f;
}

}  // namespace

MappingKernel mapping_kernel() { return {size_of_sums, compute, unpack, square_sum, update}; }

}  // namespace scdr::SCDR_LEVEL
