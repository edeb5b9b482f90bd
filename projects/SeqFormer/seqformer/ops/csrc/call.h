// What kernels are called with; nothing here knows of PyTorch.

#pragma once

#include <cstdint>

namespace seqformer {

// Sizes of one call: N images, S cells of all levels, M heads, D channels a head, Q queries, L levels, P points.
// Everything is indexed in 64 bits.
struct Problem {
  int64_t images, cells, heads, channels, queries, levels, points;
};

enum class Type { kFloat, kDouble, kHalf, kBFloat16 };

// Arrays of one call, contiguous. The type of locations (and of all that stands for them) is value's, or float where
// value is half precision.
struct Call {
  Problem problem;
  Type value_type, location_type;
  const void* value;
  const int64_t* shapes;  // (L, 2), height and width
  const int64_t* starts;  // (L,)
  const void* locations;
  const void* weights;

  // The fused form (on CPUs), if reference is set: locations are offsets from it, in cells from points and in halves
  // of the size over P from boxes, and weights are logits, whose softmax over L * P is taken.
  const void* reference;   // (N, Q, L, reference_size)
  int64_t reference_size;  // 2: points xy; 4: boxes cxcywh

  void* output;  // (N, Q, M, D)

  // Backward. On CUDA grad_value is in float where value is half precision, and zero at first.
  const void* grad_output;
  void* grad_value;
  void* grad_locations;
  void* grad_weights;
};

}  // namespace seqformer
