// A kernel launch: blocks in the order asked for, spread over a few OS threads; returns when all have ended.
#pragma once

#include <link.h>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "emulator/block.h"

namespace emulator {

// Launches and memsets since the last clear(), by name; and what cudaFuncSetAttribute has allowed.
struct Log {
  std::mutex mutex;
  std::vector<std::string> names;
  std::map<const void*, size_t> shared_bytes;

  static Log& get() {
    static Log log;
    return log;
  }
  void add(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex);
    names.push_back(name);
  }
};

// Static shared memory of this OS thread: all thread-local variables of this library but `current`.
class StaticShared {
 public:
  StaticShared() {
    Thread* volatile* touched = &current;  // makes sure that they exist
    *touched = nullptr;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* self) {
          const auto here = reinterpret_cast<uintptr_t>(&thread_entry);
          const ElfW(Phdr)* tls = nullptr;
          bool mine = false;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& header = info->dlpi_phdr[i];
            const uintptr_t start = info->dlpi_addr + header.p_vaddr;
            if (header.p_type == PT_LOAD) mine = mine || (here >= start && here < start + header.p_memsz);
            if (header.p_type == PT_TLS) tls = &header;
          }
          if (!mine) return 0;
          auto* result = static_cast<StaticShared*>(self);
          result->begin_ = static_cast<char*>(info->dlpi_tls_data);
          result->size_ = tls ? tls->p_memsz : 0;
          return 1;
        },
        this);
    const char* kept = reinterpret_cast<const char*>(&current);
    if (!begin_ || kept < begin_ || kept >= begin_ + size_) fail("the thread-local variables were not found");
  }

  void poison() const {
    Thread* const kept = current;
    std::memset(begin_, 0xff, size_);
    current = kept;
  }

 private:
  char* begin_ = nullptr;
  size_t size_ = 0;
};

// The i-th block to start. GPUs promise nothing about it.
inline uint64_t nth_block(const Order& order, uint64_t i, uint64_t count) {
  if (order.kind == Order::kForward) return i;
  if (order.kind == Order::kReverse) return count - 1 - i;
  uint64_t stride = Random{order.seed}.next() % count | 1;
  auto gcd = [](uint64_t a, uint64_t b) {
    while (b) a %= b, std::swap(a, b);
    return a;
  };
  while (gcd(stride, count) != 1) stride += 2;
  return uint64_t((static_cast<unsigned __int128>(stride) * i + order.seed) % count);
}

// One OS thread: blocks one after another.
inline void run_blocks(Launch& launch, std::atomic<uint64_t>& next) {
  Block block;
  block.launch = &launch;
  block.threads.resize(launch.block.count());
  Stacks stacks(unsigned(block.threads.size()));
  StaticShared static_shared;
  void* memory = nullptr;  // exactly as large as asked for: the address sanitizer sees what lies behind
  if (posix_memalign(&memory, 16, launch.shared_bytes)) fail("no memory for shared memory");
  const std::unique_ptr<char, void (*)(void*)> shared(static_cast<char*>(memory), std::free);
  block.shared = shared.get();
  const uint64_t count = launch.grid.count();
  for (uint64_t i; !launch.failed && (i = next.fetch_add(1)) < count;) {
    const uint64_t b = nth_block(launch.order, i, count);
    block.index = {unsigned(b % launch.grid.x), unsigned(b / launch.grid.x % launch.grid.y),
                   unsigned(b / launch.grid.x / launch.grid.y)};
    block.random = Random{launch.order.seed * 0x10001 + b};
    std::memset(block.shared, 0xff, launch.shared_bytes);
    static_shared.poison();
    for (unsigned t = 0; t < block.threads.size(); ++t) {
      Thread& thread = block.threads[t];
      thread.block = &block;
      thread.linear = t;
      thread.index = {t % launch.block.x, t / launch.block.x % launch.block.y, t / launch.block.x / launch.block.y};
      thread.fiber.start_at(thread_entry, stacks.begin(t), Stacks::size());
    }
    block.run();
  }
}

inline void check_limits(const Launch& launch, const void* kernel) {
  const dim3 &grid = launch.grid, &block = launch.block;
  if (!grid.count() || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    fail("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z));
  if (!block.count() || block.count() > 1024 || block.z > 64) fail("a block that no GPU can run");
  Log& log = Log::get();
  const std::lock_guard<std::mutex> lock(log.mutex);
  const auto allowed = log.shared_bytes.find(kernel);
  if (launch.shared_bytes > (allowed == log.shared_bytes.end() ? 48u << 10 : allowed->second))
    fail("dynamic shared memory above 48 KiB that cudaFuncSetAttribute has not allowed");
}

inline void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                const std::function<void()>& body) {
  Launch launch;
  launch.grid = grid, launch.block = block, launch.shared_bytes = shared_bytes;
  launch.name = name;
  launch.order = Order::from_environment();
  launch.kernel = &body;
  launch.deadline =
      std::chrono::steady_clock::now() + std::chrono::seconds(environment("GRADSIM_EMULATED_SECONDS", 60));
  check_limits(launch, kernel);
  Log::get().add(name);
  const auto workers =
      unsigned(std::min<uint64_t>(grid.count(), uint64_t(std::max(1L, environment("GRADSIM_EMULATED_THREADS", 3)))));
  launch.busy = int(workers);
  std::atomic<uint64_t> next{0};
  std::vector<std::string> errors(workers);
  std::vector<std::thread> threads;
  for (unsigned w = 0; w < workers; ++w)
    threads.emplace_back([&, w] {
      try {
        run_blocks(launch, next);
      } catch (const std::exception& error) {
        if (!launch.failed.exchange(true)) errors[w] = error.what();  // the others only stop because of this one
      }
      --launch.busy;
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors)
    if (!error.empty()) throw std::runtime_error(error);
}

}  // namespace emulator

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...); a std::runtime_error if anything went wrong in a thread.
template <class... Parameters, class... Arguments>
void emulate_launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                    const void* stream, const Arguments&... arguments) {
  if (stream) emulator::fail("there are no streams here");
  const std::tuple<std::decay_t<Parameters>...> copied(arguments...);
  emulator::run(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                [&] { std::apply(kernel, copied); });
}
