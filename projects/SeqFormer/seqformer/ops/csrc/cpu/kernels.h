// The CPU kernels: one set of functions per instruction set, selected at run time.
//
// This file and kernels.inl do not depend on PyTorch, so that tests can compile them alone, for other processors and
// with sanitizers.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../call.h"

namespace seqformer::cpu {

struct Kernels {
  const char* name;
  // Computes the outputs of rows begin <= image * Q + query < end. Scratch is the thread's own memory, of
  // forward_scratch bytes.
  void (*forward)(const Call&, int64_t begin, int64_t end, char* scratch);
  size_t (*forward_scratch)(const Call&);
  // Computes the gradients of slices begin <= (image * M + head) * L + level < end. Slices share no gradients, so
  // threads do not race, and results do not depend on the number of threads.
  void (*backward)(const Call&, int64_t begin, int64_t end, char* scratch);
  size_t (*backward_scratch)(const Call&);
};

extern const Kernels kBaseline;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

// Returns the best set that this processor supports, or the one with that name; null if it is not supported.
const Kernels* find_kernels(const char* name = nullptr);

}  // namespace seqformer::cpu
