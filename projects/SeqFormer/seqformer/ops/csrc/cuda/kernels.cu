// The CUDA kernels, which loop over the functors of arithmetic.h.

#include <c10/cuda/CUDAException.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>

#include "../arithmetic.h"
#include "kernels.h"

namespace seqformer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;  // above it, each thread handles several indices

template <typename Functor>
__global__ void __launch_bounds__(kThreads) for_each_index(Functor functor, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) functor(i);
}

template <typename Functor>
void launch(const Functor& functor, int64_t count, cudaStream_t stream) {
  if (count == 0) return;
  const int64_t blocks = std::min((count + kThreads - 1) / kThreads, kMostBlocks);
  for_each_index<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(functor, count);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

struct AtomicAdd {
  template <typename A>
  __device__ void operator()(A* target, A term) const {
    atomicAdd(target, term);
  }
};

// Calls function(T(), C(), A()) with the types of value, of locations and of sums.
template <typename Function>
void by_type(const Call& call, const Function& function) {
  const bool same = call.location_type == call.value_type;
  switch (call.value_type) {
    case Type::kFloat: return function(float(), float(), float());
    case Type::kDouble: return function(double(), double(), double());
    case Type::kHalf:
      return same ? function(c10::Half(), c10::Half(), float()) : function(c10::Half(), float(), float());
    case Type::kBFloat16:
      return same ? function(c10::BFloat16(), c10::BFloat16(), float()) : function(c10::BFloat16(), float(), float());
  }
}

}  // namespace

void forward(const Call& call, cudaStream_t stream) {
  const Problem& p = call.problem;
  by_type(call, [&](auto value, auto location, auto sum) {
    using T = decltype(value);
    using C = decltype(location);
    using A = decltype(sum);
    const ForwardElement<T, C, A> element{
        p,
        static_cast<const T*>(call.value),
        call.shapes,
        call.starts,
        static_cast<const C*>(call.locations),
        static_cast<const C*>(call.weights),
        static_cast<T*>(call.output)};
    launch(element, p.images * p.queries * p.heads * p.channels, stream);
  });
}

void backward(const Call& call, cudaStream_t stream) {
  const Problem& p = call.problem;
  by_type(call, [&](auto value, auto location, auto sum) {
    using T = decltype(value);
    using C = decltype(location);
    using A = decltype(sum);
    const ValueGradient<T, C, A, AtomicAdd> value_gradient{
        p,
        static_cast<const T*>(call.grad_output),
        call.shapes,
        call.starts,
        static_cast<const C*>(call.locations),
        static_cast<const C*>(call.weights),
        static_cast<A*>(call.grad_value)};
    launch(value_gradient, p.images * p.queries * p.heads * p.channels, stream);
    const LocationGradient<T, C, A> location_gradient{
        p,
        static_cast<const T*>(call.grad_output),
        static_cast<const T*>(call.value),
        call.shapes,
        call.starts,
        static_cast<const C*>(call.locations),
        static_cast<const C*>(call.weights),
        static_cast<C*>(call.grad_locations),
        static_cast<C*>(call.grad_weights)};
    launch(location_gradient, p.images * p.queries * p.heads * p.levels * p.points, stream);
  });
}

}  // namespace seqformer::cuda
