// What each ticket of the fused step stands for (test_schedule.py).
#include "cuda/device.cuh"
#include "cuda/schedule.cuh"

using namespace gradsim::gpu;

namespace {

constexpr int64_t kColumns = 10;

// A warp a ticket: combines, group, item, the group's items, the bundle, the group's bundles, the bundle's items.
__global__ void list_tickets(Schedule schedule, Bundles bundles, int64_t* out) {
  const Work work = work_of(schedule, blockIdx.x);
  if (threadIdx.x != 0) return;
  const int64_t row[kColumns] = {work.combines,
                                 work.group,
                                 work.item,
                                 work.first,
                                 work.last,
                                 bundles.of(work),
                                 bundles.first(work),
                                 bundles.last(work),
                                 bundles.first_item(work),
                                 bundles.last_item(work)};
  for (int64_t c = 0; c < kColumns; ++c) out[blockIdx.x * (kColumns) + c] = row[c];
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void schedule_tickets(int64_t groups, const int64_t* first,
                                                                        int64_t ahead, int64_t bundle, int64_t* out) {
  const Schedule schedule{groups, 64, ahead, first};
  const dim3 grid(unsigned(2 * first[groups]));
  GRADSIM_LAUNCH(list_tickets, grid, kWarp, 0, nullptr, schedule, Bundles{bundle}, out);
}
