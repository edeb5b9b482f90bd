// Runs the functors of the CUDA kernels on the CPU; called by the tests.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "arithmetic.h"

using namespace seqformer;

namespace {

struct Add {
  template <typename A>
  void operator()(A* target, A term) const {
    *target += term;
  }
};

template <typename T, typename C, typename A>
void forward(const Call& call) {
  const Problem& p = call.problem;
  const ForwardElement<T, C, A> element{
      p, (const T*)call.value, call.shapes, call.starts, (const C*)call.locations, (const C*)call.weights,
      (T*)call.output};
  for (int64_t i = 0; i < p.images * p.queries * p.heads * p.channels; ++i) element(i);
}

template <typename T, typename C, typename A>
void backward(const Call& call) {
  const Problem& p = call.problem;
  const ValueGradient<T, C, A, Add> value{
      p, (const T*)call.grad_output, call.shapes, call.starts, (const C*)call.locations, (const C*)call.weights,
      (A*)call.grad_value};
  for (int64_t i = 0; i < p.images * p.queries * p.heads * p.channels; ++i) value(i);
  const LocationGradient<T, C, A> locations{
      p,           (const T*)call.grad_output, (const T*)call.value,     call.shapes,
      call.starts, (const C*)call.locations,   (const C*)call.weights,   (C*)call.grad_locations,
      (C*)call.grad_weights};
  for (int64_t i = 0; i < p.images * p.queries * p.heads * p.levels * p.points; ++i) locations(i);
}

template <typename Half>
void run_half(const Call& call, bool is_backward) {
  const bool same = call.location_type == call.value_type;
  if (is_backward) return same ? backward<Half, Half, float>(call) : backward<Half, float, float>(call);
  return same ? forward<Half, Half, float>(call) : forward<Half, float, float>(call);
}

}  // namespace

extern "C" void run(const Call* call, bool is_backward) {
  switch (call->value_type) {
    case Type::kFloat: return is_backward ? backward<float, float, float>(*call) : forward<float, float, float>(*call);
    case Type::kDouble:
      return is_backward ? backward<double, double, double>(*call) : forward<double, double, double>(*call);
    case Type::kHalf: return run_half<c10::Half>(*call, is_backward);
    case Type::kBFloat16: return run_half<c10::BFloat16>(*call, is_backward);
  }
}
