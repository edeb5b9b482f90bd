// The operators' schemas, shared by all implementations, and the module that Python imports to register them.

#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(seqformer, m) {
  m.def(
      "ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, "
      "Tensor attention_weights) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "ms_deform_attn_fused(Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor reference, "
      "Tensor offsets, Tensor logits) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def("cpu_capability() -> str");
}

extern "C" PyObject* PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
