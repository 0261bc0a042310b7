// A warp's way over the columns of an item.
#pragma once

#include "cuda/device.cuh"
#include "cuda/items.cuh"
#include "cuda/tile_loads.cuh"
#include "cuda/tile_rows.cuh"

namespace gradsim::gpu {

// The steps strip, strip + strips, ... of the item: steps of whole vectors, then what is left behind them and before
// the first multiple of kVectorBytes. Engine::flush ends the chains of float32 additions every kStepsPerFlush steps.
template <class Engine>
__device__ inline void walk(Engine& engine, const TileRows& rows, const Item& item, int strip, int strips) {
  if (!(rows.left | rows.right) || item.begin >= item.end) return;
  const int64_t first = !rows.aligned ? item.begin : clamp(item.begin + rows.head, item.begin, item.end);
  const int64_t whole = rows.aligned ? (item.end - first) / Engine::kColumns : 0;
  const int64_t behind = first + whole * Engine::kColumns;
  const int64_t masked = whole + (item.end - behind + Engine::kMaskedColumns - 1) / Engine::kMaskedColumns;
  const int64_t steps = masked + (first > item.begin);
  for (int64_t s = strip; s < steps;) {
    for (int n = 0; n < Engine::kStepsPerFlush && s < steps; ++n, s += strips) {
      const bool is_whole = s < whole, is_head = s >= masked;
      const int64_t begin = is_whole  ? first + s * Engine::kColumns
                            : is_head ? item.begin
                                      : behind + (s - whole) * Engine::kMaskedColumns;
      engine.step(rows, is_whole, begin, is_head ? first : item.end);
    }
    engine.flush();
  }
}

}  // namespace gradsim::gpu
