// The kernels of the sharp losses and of their gradients: a group of threads a row where nothing is
// mapped, and where it is. No torch here.
#include "cuda/sharp_losses.h"

#include <cstddef>

#include "cuda/finite.h"
#include "cuda/launch.h"
#include "cuda/mapping_gradient_phases.h"
#include "cuda/mlp.h"
#include "cuda/pack.h"
#include "cuda/row.h"

namespace scdr::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 4;  // that share a row of the loss through a mapping
constexpr const char* kMf = "sharp_mf_loss";
constexpr const char* kMapping = "sharp_mapping_loss";

template <class Pack, Inner inner>
__global__ void mf_kernel(SharpMfRows rows, MfSettings settings, std::int64_t count) {
  for (std::int64_t row = thread_of_grid() / Pack::width; row < count;
       row += threads_of_grid() / Pack::width) {
    const MfError at = sharp_mf_error<Pack, inner>(rows, settings, row);
    if (Pack::lane() == 0) keep_sharp_mf_loss(rows, row, at);
  }
}

template <class Pack, Inner inner>
__global__ void mf_gradient_kernel(SharpMfGradients rows, std::int64_t count) {
  for (std::int64_t row = thread_of_grid() / Pack::width; row < count;
       row += threads_of_grid() / Pack::width) {
    scdr::sharp_mf_gradient<Pack, inner>(rows, row, rows.over_user + row * rows.d,
                                         rows.over_item + row * rows.d);
    if (Pack::lane() == 0) keep_sharp_mf_over_rating(rows, row);
  }
}

// Calls body with the pack that suits d, and with inner as a constant.
template <class Pack, Inner inner>
struct Chosen {};
template <class Pack, class Body>
void with_inner(Inner inner, const Body& body) {
  switch (inner) {
    case Inner::none:
      return body(Chosen<Pack, Inner::none>{});
    case Inner::pgd:
      return body(Chosen<Pack, Inner::pgd>{});
    case Inner::exact:
      return body(Chosen<Pack, Inner::exact>{});
  }
}
template <class Body>
void with_pack(int d, Inner inner, const Body& body) {
  if (d <= 16)
    with_inner<GroupPack<8>>(inner, body);
  else
    with_inner<WarpPack>(inner, body);
}

template <class Pack>
Grid grid_of(std::int64_t rows, cudaStream_t stream) {
  return {blocks_for(rows, kThreads / Pack::width), kThreads, stream};
}

template <int D, bool shared>
__global__ void __launch_bounds__(kThreads, 4)
    mapping_kernel(const __grid_constant__ PgdMlp given, SharpRows rows, std::int64_t count) {
  const PgdMlp mlp = mlp_of_block<shared>(given);
  for_each_row<kLanes>(thread_of_grid(), threads_of_grid(), count, [&](std::int64_t row, int mine) {
    scdr::sharp_mapping_loss<SharedRowPack<kLanes>, D, 1>(mlp, rows, row, mine);
  });
}

// Also <f(u + delta*), v> over v, from the activations that compute_row has left: some coordinates
// by each lane.
__device__ void gradient_over_item(const PgdMlp& mlp, const MappingGradient& of, int row, int lane,
                                   float* over_item) {
  const float g = of.moved[std::int64_t{row} * (mlp.d_source + 1) + mlp.d_source];
  const float* activation = of.activation + std::int64_t{row} * (mlp.hidden + 1);
  for (int t = lane; t < mlp.d_target; t += kGradientLanes) {
    float mapped = pgd_bias(mlp.b2, t);
    for (int j = 0; j < mlp.hidden; ++j)
      mapped = fmaf(mlp.w2[t * mlp.hidden + j], activation[j], mapped);
    over_item[t] = g * mapped;
  }
}

template <int D, bool shared>
__global__ void __launch_bounds__(kThreads, 4)
    mapping_rows_kernel(const __grid_constant__ PgdMlp given, SharpGradients rows,
                        MappingGradient to, Tile tile) {
  const PgdMlp mlp = mlp_of_block<shared>(given);
  const Team team = team_of_grid();
  for_each_row<kGradientLanes>(
      team.thread, team.threads, tile.count, [&](std::int64_t at, int mine) {
        const auto i = static_cast<int>(at);
        const std::int64_t row = tile.from + i;
        const float scale = 2.0f * rows.loss[row];
        const float error = compute_row<D, 1>(mlp, to, i, mine, rows.moved + row * mlp.d_source,
                                              rows.item + row * mlp.d_target, rows.rating[row],
                                              scale, rows.over_user + row * mlp.d_source);
        const int lane = SharedRowPack<kGradientLanes>::lane();
        if (mine > 0 && lane == 0) rows.over_rating[row] = -scale * error;
        if (rows.over_item == nullptr) return;
        __syncwarp();  // for what the other lanes have left
        if (mine > 0) gradient_over_item(mlp, to, i, lane, rows.over_item + row * mlp.d_target);
      });
}

__global__ void chunks_kernel(PgdMlp mlp, MappingGradient of, Tile tile) {
  sum_chunks(mlp, of, tile, team_of_grid());
}

__global__ void add_kernel(MappingGradient of, Tile tile) { add_chunks(of, tile, team_of_grid()); }

// Calls body with d_source, where there are kernels for it, and whether weights are in shared
// memory, as constants.
template <int D, bool shared>
struct Known {};
template <class Body>
void with_width(const PgdMlp& mlp, const Body& body) {
  if (bytes_of_weights(mlp) > kSharedBytes) return body(Known<0, false>{});
  switch (mlp.d_source) {
    case 10:
      return body(Known<10, true>{});
    case 11:
      return body(Known<11, true>{});
    default:
      return body(Known<0, true>{});
  }
}

std::size_t bytes_if(bool shared, const PgdMlp& mlp) { return shared ? bytes_of_weights(mlp) : 0; }

}  // namespace

unsigned sharp_mf_loss(const SharpMfRows& rows, const MfSettings& settings, Inner inner,
                       std::int64_t count, unsigned* status, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kMf, cudaSetDevice(device));
  find_wrong(kMf, {rows.user, rows.item, rows.rating, rows.d, rows.d}, count, status, stream);
  with_pack(rows.d, inner, [&]<class Pack, Inner how>(Chosen<Pack, how>) {
    launch(kMf, grid_of<Pack>(count, stream), mf_kernel<Pack, how>, rows, settings, count);
  });
  return read(kMf, status, stream);
}

void sharp_mf_gradient(const SharpMfGradients& rows, Inner inner, std::int64_t count, int device,
                       void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kMf, cudaSetDevice(device));
  with_pack(rows.d, inner, [&]<class Pack, Inner how>(Chosen<Pack, how>) {
    launch(kMf, grid_of<Pack>(count, stream), mf_gradient_kernel<Pack, how>, rows, count);
  });
}

unsigned sharp_mapping_loss(const PgdMlp& mlp, const SharpRows& rows, std::int64_t count,
                            unsigned* status, int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kMapping, cudaSetDevice(device));
  find_wrong(kMapping, {rows.user, rows.item, rows.rating, mlp.d_source, mlp.d_target}, count,
             status, stream);
  with_width(mlp, [&]<int D, bool shared>(Known<D, shared>) {
    launch(kMapping,
           {blocks_for(count, kThreads / kLanes), kThreads, stream, bytes_if(shared, mlp)},
           mapping_kernel<D, shared>, mlp, rows, count);
  });
  return read(kMapping, status, stream);
}

void sharp_mapping_gradient(const PgdMlp& mlp, const SharpGradients& rows, std::int64_t count,
                            const MappingGradient& scratch, float* const (&over_mapping)[4],
                            int device, void* stream_handle) {
  auto* stream = static_cast<cudaStream_t>(stream_handle);
  check_cuda(kMapping, cudaSetDevice(device));
  const auto grid = [stream](std::int64_t threads) {
    return Grid{blocks_for(threads, kThreads), kThreads, stream};
  };
  std::int64_t from = 0;
  do {  // once where there are no rows: the gradient over the mapping is then 0
    const Tile tile = tile_of(count, from);
    with_width(mlp, [&]<int D, bool shared>(Known<D, shared>) {
      launch(kMapping,
             {blocks_for(tile.count, kThreads / kGradientLanes), kThreads, stream,
              bytes_if(shared, mlp)},
             mapping_rows_kernel<D, shared>, mlp, rows, scratch, tile);
    });
    launch(kMapping, grid(scratch.size() * tile.chunks()), chunks_kernel, mlp, scratch, tile);
    launch(kMapping, grid(scratch.size()), add_kernel, scratch, tile);
    from += kTileRows;
  } while (from < count);
  for (int part = 0; part < 4; ++part) {
    const std::int64_t begin = scratch.part_begin[part];
    const auto bytes =
        static_cast<std::size_t>(scratch.part_begin[part + 1] - begin) * sizeof(float);
    if (bytes > 0)
      check_cuda(kMapping, cudaMemcpyAsync(over_mapping[part], scratch.gradient + begin, bytes,
                                           cudaMemcpyDeviceToDevice, stream));
  }
}

}  // namespace scdr::cuda
