// The CPU kernels: one set of functions for each instruction set, chosen when the program runs.
//
// Nothing here or in kernels.inl knows of PyTorch, so they compile for other processors and under sanitizers alone.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "../problem.h"

namespace seqformer::cpu {

enum class Type { kFloat, kDouble, kHalf, kBFloat16 };

// Arrays of one call. The type of locations (and of all that stands for them) is value's, or float where value
// is half precision.
struct Call {
  Problem problem;
  Type value_type, location_type;
  const void* value;
  const int64_t* shapes;  // (L, 2), height and width
  const int64_t* starts;  // (L,)
  const void* locations;
  const void* weights;

  // The fused form, if reference is set: locations are offsets from it in cells (points) or in halves of the box
  // over P (boxes), and weights are logits, whose softmax over L * P is taken.
  const void* reference;  // (N, Q, L, reference_size)
  int64_t reference_size;  // 2: points xy; 4: boxes cxcywh

  void* output;  // (N, Q, M, D)

  // Backward.
  const void* grad_output;
  void* grad_value;
  void* grad_locations;
  void* grad_weights;
};

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
