// Autocast rules. Locations and weights become float32, since half precision is too coarse for them. A float32 value
// becomes half precision.

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace seqformer {
namespace {

at::Tensor to_float(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

// Converts a float32 value to the dtype of autocast, as other operators do.
at::Tensor to_autocast(const at::Tensor& value, c10::DeviceType device) {
  return value.scalar_type() == at::kFloat ? value.to(at::autocast::get_autocast_dtype(device)) : value;
}

template <c10::DispatchKey key, c10::DeviceType device>
at::Tensor ms_deform_attn(
    const at::Tensor& value,
    const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index,
    const at::Tensor& sampling_locations,
    const at::Tensor& attention_weights) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("seqformer::ms_deform_attn", "")
                             .typed<decltype(ms_deform_attn<key, device>)>();
  return op.call(
      to_autocast(value, device), spatial_shapes, level_start_index, to_float(sampling_locations),
      to_float(attention_weights));
}

template <c10::DispatchKey key, c10::DeviceType device>
at::Tensor ms_deform_attn_fused(
    const at::Tensor& value,
    const at::Tensor& spatial_shapes,
    const at::Tensor& level_start_index,
    const at::Tensor& reference,
    const at::Tensor& offsets,
    const at::Tensor& logits) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("seqformer::ms_deform_attn_fused", "")
                             .typed<decltype(ms_deform_attn_fused<key, device>)>();
  return op.call(
      to_autocast(value, device), spatial_shapes, level_start_index, to_float(reference), to_float(offsets),
      to_float(logits));
}

}  // namespace

TORCH_LIBRARY_IMPL(seqformer, AutocastCPU, m) {
  m.impl("ms_deform_attn", ms_deform_attn<c10::DispatchKey::AutocastCPU, c10::kCPU>);
  m.impl("ms_deform_attn_fused", ms_deform_attn_fused<c10::DispatchKey::AutocastCPU, c10::kCPU>);
}

TORCH_LIBRARY_IMPL(seqformer, AutocastCUDA, m) {
  m.impl("ms_deform_attn", ms_deform_attn<c10::DispatchKey::AutocastCUDA, c10::kCUDA>);
  m.impl("ms_deform_attn_fused", ms_deform_attn_fused<c10::DispatchKey::AutocastCUDA, c10::kCUDA>);
}

}  // namespace seqformer
