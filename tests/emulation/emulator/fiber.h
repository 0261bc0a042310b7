// A stack and a place to continue: what a CUDA thread needs to stop in the middle of a kernel.
#pragma once

#include <sys/mman.h>

#include <mutex>
#include <vector>

#include "emulator/language.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

// System V, x86-64: what a called function must preserve goes onto the stack, then the stacks are exchanged.
asm(R"(
.text
.weak gradsim_switch_stacks
.hidden gradsim_switch_stacks
.type gradsim_switch_stacks, @function
gradsim_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gradsim_switch_stacks, . - gradsim_switch_stacks
)");
extern "C" void gradsim_switch_stacks(void** save, void* next);

constexpr size_t kStackBytes = 128 << 10, kGuardBytes = 4 << 10;

// The stacks of a block's threads, each below it a page that may not be touched. Kept for later launches.
class Stacks {
 public:
  explicit Stacks(unsigned count) : count_(count) {
    {
      const std::lock_guard<std::mutex> lock(mutex());
      for (size_t i = 0; i < kept().size(); ++i)
        if (kept()[i].count >= count) {
          slab_ = kept()[i];
          kept().erase(kept().begin() + long(i));
          return;
        }
    }
    slab_.count = count;
    void* memory =
        mmap(nullptr, count * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for the stacks");
    slab_.memory = static_cast<char*>(memory);
    for (unsigned i = 0; i < count; ++i) mprotect(slab_.memory + i * kStackBytes, kGuardBytes, PROT_NONE);
  }

  ~Stacks() {
    const std::lock_guard<std::mutex> lock(mutex());
    kept().push_back(slab_);
  }

  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  char* begin(unsigned i) const { return slab_.memory + i * kStackBytes + kGuardBytes; }
  static constexpr size_t size() { return kStackBytes - kGuardBytes; }

 private:
  struct Slab {
    char* memory = nullptr;
    unsigned count = 0;
  };
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static std::vector<Slab>& kept() {
    static auto* slabs = new std::vector<Slab>;  // never destroyed: threads may still end after main
    return *slabs;
  }

  unsigned count_;
  Slab slab_;
};

// A side of a switch: the scheduler of a block, or one of its threads.
struct Fiber {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;  // lowest address and size: the address sanitizer wants to know
  size_t stack_size = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif

  void start_at(void (*entry)(), char* memory, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory, size);  // frames of whoever used it before
    fake_stack = nullptr;
#endif
    stack = memory, stack_size = size;
    void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(memory + size) & ~uintptr_t(15)) - 8);
    *top = nullptr;  // entry never returns
    *--top = reinterpret_cast<void*>(entry);
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
    stack_pointer = top;
  }

  // Continues `next`; returns when somebody continues this one. `last`: nobody will.
  void switch_to(Fiber& next, bool last = false) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, next.stack, next.stack_size);
#endif
    (void)last;
    gradsim_switch_stacks(&stack_pointer, next.stack_pointer);
    arrived(*this);
  }

  // What whoever continues has to do first. `scheduler_`: learns its own stack from the first switch.
  static void arrived(Fiber& me, Fiber* from = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    const void* stack = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(me.fake_stack, &stack, &size);
    if (from) from->stack = stack, from->stack_size = size;
#endif
    (void)me, (void)from;
  }
};

}  // namespace emulator
