// The operators on CUDA devices. Level sizes are on the device and cannot be checked here, so the kernels treat cells
// outside value as zero.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "kernels.h"

namespace seqformer {
namespace {

using at::Tensor;

Tensor ms_deform_attn(
    const Tensor& value_,
    const Tensor& spatial_shapes_,
    const Tensor& level_start_index_,
    const Tensor& sampling_locations_,
    const Tensor& attention_weights_) {
  const Problem p = check_arguments(
      value_, spatial_shapes_, level_start_index_, sampling_locations_, "sampling_locations", attention_weights_,
      "attention_weights");
  const c10::cuda::CUDAGuard guard(value_.device());
  const Tensor value = value_.contiguous(), spatial_shapes = spatial_shapes_.contiguous(),
               level_start_index = level_start_index_.contiguous(), locations = sampling_locations_.contiguous(),
               weights = attention_weights_.contiguous();
  Tensor output = at::empty({p.images, p.queries, p.heads * p.channels}, value.options());
  Call call = make_call(p, value, spatial_shapes, level_start_index, locations, weights);
  call.output = output.mutable_data_ptr();
  cuda::forward(call, c10::cuda::getCurrentCUDAStream());
  return output;
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad_output_,
    const Tensor& value_,
    const Tensor& spatial_shapes_,
    const Tensor& level_start_index_,
    const Tensor& sampling_locations_,
    const Tensor& attention_weights_) {
  at::globalContext().alertNotDeterministic("seqformer::ms_deform_attn_backward on CUDA");
  const Problem p = check_arguments(
      value_, spatial_shapes_, level_start_index_, sampling_locations_, "sampling_locations", attention_weights_,
      "attention_weights");
  check_grad_output(grad_output_, value_, p);
  const c10::cuda::CUDAGuard guard(value_.device());
  const Tensor grad_output = grad_output_.contiguous(), value = value_.contiguous(),
               spatial_shapes = spatial_shapes_.contiguous(), level_start_index = level_start_index_.contiguous(),
               locations = sampling_locations_.contiguous(), weights = attention_weights_.contiguous();
  // Half precision would lose small terms in long sums.
  const auto sum_type = is_half_precision(value.scalar_type()) ? at::kFloat : value.scalar_type();
  Tensor grad_value = at::zeros(value.sizes(), value.options().dtype(sum_type));
  Tensor grad_locations = at::empty(locations.sizes(), locations.options());
  Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  Call call = make_call(p, value, spatial_shapes, level_start_index, locations, weights);
  call.grad_output = grad_output.const_data_ptr();
  call.grad_value = grad_value.mutable_data_ptr();
  call.grad_locations = grad_locations.mutable_data_ptr();
  call.grad_weights = grad_weights.mutable_data_ptr();
  cuda::backward(call, c10::cuda::getCurrentCUDAStream());
  return {grad_value.to(value.scalar_type()), grad_locations, grad_weights};
}

// Locations and weights are stored first, because otherwise the threads of every channel would recompute them.
// They are float32 or float64, as in the backward pass. In half precision, the two would sample different positions.
Tensor ms_deform_attn_fused(
    const Tensor& value,
    const Tensor& spatial_shapes,
    const Tensor& level_start_index,
    const Tensor& reference_,
    const Tensor& offsets_,
    const Tensor& logits_) {
  const Problem p = check_arguments(value, spatial_shapes, level_start_index, offsets_, "offsets", logits_, "logits");
  check_reference(reference_, offsets_, p);
  const c10::cuda::CUDAGuard guard(value.device());
  const auto type = is_half_precision(offsets_.scalar_type()) ? at::kFloat : offsets_.scalar_type();
  const Tensor reference = reference_.to(type), offsets = offsets_.to(type), logits = logits_.to(type);
  const Tensor places = reference.unsqueeze(2).unsqueeze(4);  // N, Q, 1, L, 1, 2 or 4
  Tensor locations;
  if (reference.size(3) == 2) {
    const Tensor sizes = spatial_shapes.flip(1).to(offsets.scalar_type()).unsqueeze(1);  // L, 1, xy
    locations = places + offsets / sizes;
  } else {
    const double half = p.points ? 0.5 / static_cast<double>(p.points) : 0;
    locations = places.narrow(-1, 0, 2) + offsets * places.narrow(-1, 2, 2) * half;
  }
  const Tensor weights = logits.flatten(3).softmax(-1).view_as(logits);
  return ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights);
}

}  // namespace

TORCH_LIBRARY_IMPL(seqformer, CUDA, m) {
  m.impl("ms_deform_attn", ms_deform_attn);
  m.impl("ms_deform_attn_backward", ms_deform_attn_backward);
  m.impl("ms_deform_attn_fused", ms_deform_attn_fused);
}

}  // namespace seqformer
