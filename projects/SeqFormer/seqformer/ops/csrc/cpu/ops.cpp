// The operators on CPUs.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <tuple>
#include <vector>

#include "../checks.h"
#include "kernels.h"

namespace seqformer {
namespace {

using at::Tensor;

// The variable SEQFORMER_CPU_CAPABILITY selects another set than the best, for tests and comparisons.
const cpu::Kernels& kernels() {
  static const cpu::Kernels* const chosen = [] {
    const char* name = std::getenv("SEQFORMER_CPU_CAPABILITY");
    const cpu::Kernels* found = cpu::find_kernels(name);
    TORCH_CHECK(found != nullptr, "SEQFORMER_CPU_CAPABILITY: no kernels for this processor are called '", name, "'");
    return found;
  }();
  return *chosen;
}

// Checks that the levels follow each other without gaps and fill the image.
void check_levels(const Problem& p, const int64_t* shapes, const int64_t* starts) {
  int64_t cells = 0;
  for (int64_t level = 0; level < p.levels; ++level) {
    const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
    TORCH_CHECK(
        height >= 0 && width >= 0 && height <= p.cells && width <= p.cells, "spatial_shapes: level ", level, " is ",
        height, "x", width, ", but value has ", p.cells, " cells");
    TORCH_CHECK(
        starts[level] == cells, "level_start_index: level ", level, " starts at ", starts[level], ", not at ", cells,
        ", the end of the levels before it");
    cells += height * width;
    TORCH_CHECK(cells <= p.cells, "spatial_shapes has more cells than value, which has ", p.cells);
  }
  TORCH_CHECK(
      cells == p.cells || p.levels == 0, "spatial_shapes has ", cells, " cells in total, but value has ", p.cells);
}

// Least amount of arithmetic per thread.
int64_t grain(int64_t work_per_item) { return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work_per_item)); }

template <typename Function>
void run(int64_t items, int64_t work_per_item, size_t scratch_bytes, const Function& function) {
  at::parallel_for(0, items, grain(work_per_item), [&](int64_t begin, int64_t end) {
    std::vector<char> scratch(scratch_bytes);
    function(begin, end, scratch.data());
  });
}

Tensor forward(
    const Tensor& value_,
    const Tensor& spatial_shapes_,
    const Tensor& level_start_index_,
    const Tensor& reference_,
    const Tensor& locations_,
    const Tensor& weights_,
    const Problem& p) {
  const Tensor value = value_.contiguous(), spatial_shapes = spatial_shapes_.contiguous(),
               level_start_index = level_start_index_.contiguous(), locations = locations_.contiguous(),
               weights = weights_.contiguous();
  const Tensor reference = reference_.defined() ? reference_.contiguous() : reference_;
  Call call = make_call(p, value, spatial_shapes, level_start_index, locations, weights);
  if (reference.defined()) {
    call.reference = reference.const_data_ptr();
    call.reference_size = reference.size(3);
  }
  check_levels(p, call.shapes, call.starts);
  Tensor output = at::empty({p.images, p.queries, p.heads * p.channels}, value.options());
  if (output.numel() == 0) return output;
  if (p.levels * p.points == 0) return output.zero_();
  call.output = output.mutable_data_ptr();
  const auto& chosen = kernels();
  run(p.images * p.queries, p.heads * p.channels * p.levels * p.points * 4, chosen.forward_scratch(call),
      [&](int64_t begin, int64_t end, char* scratch) { chosen.forward(call, begin, end, scratch); });
  return output;
}

Tensor ms_deform_attn(
    const Tensor& value,
    const Tensor& spatial_shapes,
    const Tensor& level_start_index,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const Problem p = check_arguments(
      value, spatial_shapes, level_start_index, sampling_locations, "sampling_locations", attention_weights,
      "attention_weights");
  return forward(value, spatial_shapes, level_start_index, Tensor(), sampling_locations, attention_weights, p);
}

Tensor ms_deform_attn_fused(
    const Tensor& value,
    const Tensor& spatial_shapes,
    const Tensor& level_start_index,
    const Tensor& reference,
    const Tensor& offsets,
    const Tensor& logits) {
  const Problem p = check_arguments(value, spatial_shapes, level_start_index, offsets, "offsets", logits, "logits");
  check_reference(reference, offsets, p);
  return forward(value, spatial_shapes, level_start_index, reference, offsets, logits, p);
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad_output_,
    const Tensor& value_,
    const Tensor& spatial_shapes_,
    const Tensor& level_start_index_,
    const Tensor& sampling_locations_,
    const Tensor& attention_weights_) {
  const Problem p = check_arguments(
      value_, spatial_shapes_, level_start_index_, sampling_locations_, "sampling_locations", attention_weights_,
      "attention_weights");
  check_grad_output(grad_output_, value_, p);
  const Tensor grad_output = grad_output_.contiguous(), value = value_.contiguous(),
               spatial_shapes = spatial_shapes_.contiguous(), level_start_index = level_start_index_.contiguous(),
               sampling_locations = sampling_locations_.contiguous(),
               attention_weights = attention_weights_.contiguous();
  Tensor grad_value = at::empty(value.sizes(), value.options());
  Tensor grad_locations = at::empty(sampling_locations.sizes(), sampling_locations.options());
  Tensor grad_weights = at::empty(attention_weights.sizes(), attention_weights.options());
  Call call = make_call(p, value, spatial_shapes, level_start_index, sampling_locations, attention_weights);
  call.grad_output = grad_output.const_data_ptr();
  check_levels(p, call.shapes, call.starts);
  if (p.levels == 0) grad_value.zero_();
  call.grad_value = grad_value.mutable_data_ptr();
  call.grad_locations = grad_locations.mutable_data_ptr();
  call.grad_weights = grad_weights.mutable_data_ptr();
  const auto& chosen = kernels();
  run(p.images * p.heads * p.levels, p.queries * p.points * p.channels * 16, chosen.backward_scratch(call),
      [&](int64_t begin, int64_t end, char* scratch) { chosen.backward(call, begin, end, scratch); });
  return {grad_value, grad_locations, grad_weights};
}

std::string cpu_capability() { return kernels().name; }

}  // namespace

TORCH_LIBRARY_IMPL(seqformer, CPU, m) {
  m.impl("ms_deform_attn", ms_deform_attn);
  m.impl("ms_deform_attn_backward", ms_deform_attn_backward);
  m.impl("ms_deform_attn_fused", ms_deform_attn_fused);
}

TORCH_LIBRARY_IMPL(seqformer, CompositeExplicitAutograd, m) { m.impl("cpu_capability", cpu_capability); }

}  // namespace seqformer
