// Arguments of the kernels, independent of PyTorch.

#pragma once

#include <cstdint>

namespace seqformer {

// Sizes: N images, S cells of all levels, M heads, D channels per head, Q queries, L levels, P points.
// All indices have 64 bits.
struct Problem {
  int64_t images, cells, heads, channels, queries, levels, points;
};

enum class Type { kFloat, kDouble, kHalf, kBFloat16 };

// Contiguous arrays of one call. Locations, weights, and in the fused form reference, have the type of value, or float
// if value is half precision.
struct Call {
  Problem problem;
  Type value_type, location_type;
  const void* value;
  const int64_t* shapes;  // (L, 2), height and width
  const int64_t* starts;  // (L,)
  const void* locations;
  const void* weights;

  // Fused form (CPUs only), used if reference is set: locations are offsets, in cells from points, or in units of half
  // the size divided by P from boxes. Weights are logits; their softmax over L * P is computed.
  const void* reference;   // (N, Q, L, reference_size)
  int64_t reference_size;  // 2: points xy; 4: boxes cxcywh

  void* output;  // (N, Q, M, D)

  // Backward. On CUDA grad_value must be zeroed, and it is float if value is half precision.
  const void* grad_output;
  void* grad_value;
  void* grad_locations;
  void* grad_weights;
};

}  // namespace seqformer
