// The order of work of the fused step. Every block, when it starts, takes the next of the tickets 0, 1, 2, ... from a
// counter. A ticket is either the Gramian of an item or the combine of one:
//
//   Gramian items in order; behind the Gramian item that comes `ahead` items after the last one of group k, the combine
//   items of group k, last item first: they find in L2 what was read last.
//
// Until the combine of k is reached, blocks have work to do while the last item and the weights of k are computed. No
// deadlock, however few blocks run at a time and in whatever order they start: a combine waits for Gramian items, which
// wait for nothing and have smaller tickets, and who holds a smaller ticket has started before.
#pragma once

#include "cuda/items.cuh"
#include "cuda/search.cuh"

namespace gradsim::gpu {

// In device memory; filled by prepare_kernel from tables that are not trusted, so that the tickets are what is
// described above whatever those hold.
struct Schedule {
  int64_t groups, chunk, ahead;
  const int64_t* first;  // [groups + 1], rising from 0: group k owns the items first[k] to first[k + 1] - 1

  __device__ int64_t first_of(int64_t group) const { return load_readonly(first + group); }
  __device__ int64_t items() const { return first_of(groups); }
};

struct Work {
  bool combines;
  int64_t group, item;
  int64_t first, last;  // items of the group: first to last - 1
};

// The ticket of the first combine of group k.
__device__ inline int64_t first_combine(const Schedule& s, int64_t items, int64_t group) {
  const int64_t read = s.first_of(group + 1) + s.ahead;
  return s.first_of(group) + (read < items ? read : items);
}

// What a ticket below 2 items() stands for. By all lanes of a warp, alike in all.
__device__ inline Work work_of(const Schedule& s, int64_t ticket) {
  const int64_t items = s.items();
  const int64_t begun =  // groups whose combine begins at this ticket or before
      count_leading(s.groups, [&](int64_t k) { return first_combine(s, items, k) <= ticket; });
  Work work;
  int64_t combined = 0;  // items of these groups
  if (begun > 0) {
    work.group = begun - 1;
    work.first = s.first_of(work.group), work.last = combined = s.first_of(begun);
    const int64_t within = ticket - first_combine(s, items, work.group);
    work.combines = within < work.last - work.first;
    work.item = work.last - 1 - within;
    if (work.combines) return work;
  }
  work.combines = false;
  work.item = ticket - combined;
  work.group = count_leading(s.groups, [&](int64_t k) { return s.first_of(k) <= work.item; }) - 1;
  work.first = s.first_of(work.group), work.last = s.first_of(work.group + 1);
  return work;
}

// The columns of the work's item; `dtype_of_buffer` as in items.cuh. By all lanes of a warp, alike in all.
__device__ inline Item item_of_work(const Layout& g, const Schedule& s, const Work& work, Dtype dtype_of_buffer) {
  int64_t segment = work.group;
  if (g.first) {
    const int64_t begin = clamp(load_readonly(g.first + work.group), 0, g.segments - 1);
    const int64_t end = clamp(load_readonly(g.first + work.group + 1), begin, g.segments);
    const int64_t after =
        count_leading(end - begin, [&](int64_t n) { return first_item(g, s.chunk, begin + n) <= work.item; });
    segment = begin + (after > 0 ? after - 1 : 0);
  }
  return item_of_segment(g, s.chunk, work.item, segment, dtype_of_buffer);
}

// A group's items in bundles, so that nobody has to add up more than a few hundred partial Gramians: the items of group
// k with the same index / size. Bundles are numbered through all groups.
struct Bundles {
  int64_t size;  // items

  GRADSIM_HOST_DEVICE int64_t count(int64_t items, int64_t groups) const { return items / size + groups; }
  __device__ int64_t of(const Work& work) const { return work.item / size + work.group; }
  __device__ int64_t first(const Work& work) const { return work.first / size + work.group; }
  __device__ int64_t last(const Work& work) const { return (work.last - 1) / size + work.group + 1; }
  // The items of the work's bundle.
  __device__ int64_t first_item(const Work& work) const {
    const int64_t cut = work.item / size * size;
    return cut > work.first ? cut : work.first;
  }
  __device__ int64_t last_item(const Work& work) const {
    const int64_t cut = work.item / size * size + size;
    return cut < work.last ? cut : work.last;
  }
};

}  // namespace gradsim::gpu
