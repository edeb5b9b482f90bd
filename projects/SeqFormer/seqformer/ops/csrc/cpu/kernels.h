// The CPU kernels: one set of functions for each instruction set, chosen when the program runs.
//
// Nothing here or in kernels.inl knows of PyTorch, so that they compile for other processors and under sanitizers alone.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../call.h"

namespace seqformer::cpu {

struct Kernels {
  const char* name;
  // Outputs of rows begin <= image * Q + query < end. Scratch is memory for the thread, of forward_scratch bytes.
  void (*forward)(const Call&, int64_t begin, int64_t end, char* scratch);
  size_t (*forward_scratch)(const Call&);
  // Gradients that belong to slices begin <= (image * M + head) * L + level < end. No two slices share any of
  // them, so threads do not race and results do not depend on their number.
  void (*backward)(const Call&, int64_t begin, int64_t end, char* scratch);
  size_t (*backward_scratch)(const Call&);
};

extern const Kernels kBaseline;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

// The best set that this processor runs, or the one of that name; null if there is none of that name here.
const Kernels* find_kernels(const char* name = nullptr);

}  // namespace seqformer::cpu
