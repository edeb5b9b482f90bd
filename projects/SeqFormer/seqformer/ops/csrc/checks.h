// Checks of the arguments, shared by all implementations. Messages name the argument.

#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

#include "call.h"

namespace seqformer {

inline bool is_half_precision(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

// Checks the arguments common to all forms and returns the sizes. ``locations`` is (N, Q, M, L, P, 2) and
// ``weights`` (N, Q, M, L, P); messages use the names given for them.
inline Problem check_arguments(
    const at::Tensor& value,
    const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index,
    const at::Tensor& locations,
    const char* locations_name,
    const at::Tensor& weights,
    const char* weights_name) {
  const at::ScalarType type = value.scalar_type();
  TORCH_CHECK(
      type == at::kFloat || type == at::kDouble || is_half_precision(type),
      "value must be float32, float64, float16 or bfloat16, not ", type);
  TORCH_CHECK(value.dim() == 4, "value must be (N, S, M, D), not of shape ", value.sizes());
  TORCH_CHECK(
      spatial_shapes.dim() == 2 && spatial_shapes.size(1) == 2, "spatial_shapes must be (L, 2), not of shape ",
      spatial_shapes.sizes());
  const int64_t levels = spatial_shapes.size(0);
  TORCH_CHECK(
      level_start_index.dim() == 1 && level_start_index.size(0) == levels, "level_start_index must be (L,) = (",
      levels, ",), not of shape ", level_start_index.sizes());
  for (const auto& [tensor, name] :
       {std::pair<const at::Tensor&, const char*>{spatial_shapes, "spatial_shapes"},
        {level_start_index, "level_start_index"}}) {
    TORCH_CHECK(tensor.scalar_type() == at::kLong, name, " must be int64, not ", tensor.scalar_type());
  }
  for (const auto& [tensor, name] :
       {std::pair<const at::Tensor&, const char*>{locations, locations_name}, {weights, weights_name}}) {
    TORCH_CHECK(
        tensor.scalar_type() == type || (is_half_precision(type) && tensor.scalar_type() == at::kFloat), name,
        " must be ", type, " like value", is_half_precision(type) ? ", or float32" : "", ", not ",
        tensor.scalar_type());
  }
  TORCH_CHECK(
      locations.scalar_type() == weights.scalar_type(), weights_name, " must be ", locations.scalar_type(), " like ",
      locations_name, ", not ", weights.scalar_type());
  TORCH_CHECK(
      locations.dim() == 6 && locations.size(0) == value.size(0) && locations.size(2) == value.size(2) &&
          locations.size(3) == levels && locations.size(5) == 2,
      locations_name, " must be (N, Q, M, L, P, 2) with N = ", value.size(0), ", M = ", value.size(2),
      ", L = ", levels, "; not of shape ", locations.sizes());
  TORCH_CHECK(
      weights.dim() == 5 && weights.sizes() == locations.sizes().slice(0, 5), weights_name,
      " must be (N, Q, M, L, P) = ", locations.sizes().slice(0, 5), ", not of shape ", weights.sizes());
  for (const auto& [tensor, name] :
       {std::pair<const at::Tensor&, const char*>{spatial_shapes, "spatial_shapes"},
        {level_start_index, "level_start_index"},
        {locations, locations_name},
        {weights, weights_name}}) {
    TORCH_CHECK(
        tensor.device() == value.device(), name, " must be on ", value.device(), " like value, not on ",
        tensor.device());
  }
  TORCH_CHECK(value.size(1) < std::numeric_limits<int32_t>::max(), "value has too many cells: ", value.size(1));
  return {value.size(0), value.size(1), value.size(2), value.size(3), locations.size(1), levels, locations.size(4)};
}

inline Type type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return Type::kDouble;
    case at::kHalf: return Type::kHalf;
    case at::kBFloat16: return Type::kBFloat16;
    default: return Type::kFloat;
  }
}

// Returns a call of checked, contiguous arguments. Outputs and gradients are left empty.
inline Call make_call(
    const Problem& problem,
    const at::Tensor& value,
    const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index,
    const at::Tensor& locations,
    const at::Tensor& weights) {
  Call call{};
  call.problem = problem;
  call.value_type = type_of(value);
  call.location_type = type_of(locations);
  call.value = value.const_data_ptr();
  call.shapes = spatial_shapes.const_data_ptr<int64_t>();
  call.starts = level_start_index.const_data_ptr<int64_t>();
  call.locations = locations.const_data_ptr();
  call.weights = weights.const_data_ptr();
  return call;
}

// Checks the gradient that the backward pass starts from.
inline void check_grad_output(const at::Tensor& grad_output, const at::Tensor& value, const Problem& p) {
  const int64_t channels = p.heads * p.channels;
  TORCH_CHECK(
      grad_output.dim() == 3 && grad_output.size(0) == p.images && grad_output.size(1) == p.queries &&
          grad_output.size(2) == channels,
      "grad_output must be (N, Q, M * D) = (", p.images, ", ", p.queries, ", ", channels, "), not of shape ",
      grad_output.sizes());
  TORCH_CHECK(
      grad_output.scalar_type() == value.scalar_type() && grad_output.device() == value.device(),
      "grad_output must be ", value.scalar_type(), " on ", value.device(), " like value, not ",
      grad_output.scalar_type(), " on ", grad_output.device());
}

// Checks the reference points or boxes of the fused form.
inline void check_reference(const at::Tensor& reference, const at::Tensor& offsets, const Problem& p) {
  TORCH_CHECK(
      reference.dim() == 4 && reference.size(0) == p.images && reference.size(1) == p.queries &&
          reference.size(2) == p.levels && (reference.size(3) == 2 || reference.size(3) == 4),
      "reference must be (N, Q, L, 2) points or (N, Q, L, 4) boxes with N = ", p.images, ", Q = ", p.queries,
      ", L = ", p.levels, "; not of shape ", reference.sizes());
  TORCH_CHECK(
      reference.scalar_type() == offsets.scalar_type() && reference.device() == offsets.device(),
      "reference must be ", offsets.scalar_type(), " on ", offsets.device(), " like offsets, not ",
      reference.scalar_type(), " on ", reference.device());
}

}  // namespace seqformer
