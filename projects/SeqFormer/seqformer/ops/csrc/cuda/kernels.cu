// The CUDA kernels. Those for any shape and type loop over the functors of arithmetic.h. Faster ones handle float,
// half and bfloat16 values with 4 channels per thread, if the channels of a head are 4, 8, 16, 32, 64 or 128.

#include <c10/cuda/CUDAException.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
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

// ---- 4 channels per thread; the threads of a query and head are a group of lanes of one warp ----

constexpr int kVector = 4;

template <typename T>
struct alignas(kVector * sizeof(T)) Vector {
  T element[kVector];
};

// One thread's part of a query and head.
template <typename T, typename C>
struct Lane {
  int lanes, lane;     // size of the group, and index in it
  int64_t query_head;  // (N, Q, M)
  int64_t first;       // of the value's first cell, for this image, head and channels
  int stride;          // from one cell to the next
};

template <typename T, typename C>
__device__ __forceinline__ Lane<T, C> lane_of(const Problem& p, int64_t thread) {
  const int lanes = static_cast<int>(p.channels) / kVector;
  const int64_t query_head = thread / lanes;
  const int lane = static_cast<int>(thread - query_head * lanes);
  const int64_t image = query_head / p.heads / p.queries;
  const int head = static_cast<int>(query_head % p.heads);
  const int64_t first = (image * p.cells * p.heads + head) * p.channels + lane * kVector;
  return {lanes, lane, query_head, first, static_cast<int>(p.heads * p.channels)};
}

template <typename T>
__device__ __forceinline__ Vector<T> load(const T* source) {
  return *reinterpret_cast<const Vector<T>*>(source);
}

template <typename T, typename C>
__global__ void __launch_bounds__(kThreads) forward_vectors(
    Problem p,
    const T* __restrict__ value,
    const int64_t* __restrict__ shapes,
    const int64_t* __restrict__ starts,
    const C* __restrict__ locations,
    const C* __restrict__ weights,
    T* __restrict__ output,
    int64_t count) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= count) return;
  const auto self = lane_of<T, C>(p, thread);
  const T* slice = value + self.first;
  float sum[kVector] = {0, 0, 0, 0};
  int64_t sample = self.query_head * p.levels * p.points;
  for (int level = 0; level < p.levels; ++level) {
    const int height = static_cast<int>(shapes[2 * level]), width = static_cast<int>(shapes[2 * level + 1]);
    const int start = static_cast<int>(starts[level]);
    for (int point = 0; point < p.points; ++point, ++sample) {
      const auto place = Place<float, int>::at(locations + 2 * sample, height, width);
      if (!place.inside) continue;
      visit_corners(
          place, static_cast<float>(weights[sample]), start, height, width, static_cast<int>(p.cells),
          [&](int, int cell, float share) {
            const Vector<T> source = load(slice + static_cast<int64_t>(cell) * self.stride);
#pragma unroll
            for (int k = 0; k < kVector; ++k) sum[k] += share * static_cast<float>(source.element[k]);
          });
    }
  }
  Vector<T> result;
#pragma unroll
  for (int k = 0; k < kVector; ++k) result.element[k] = static_cast<T>(sum[k]);
  *reinterpret_cast<Vector<T>*>(output + self.query_head * p.channels + self.lane * kVector) = result;
}

__device__ __forceinline__ void add(float* target, const float (&term)[kVector]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(target), make_float4(term[0], term[1], term[2], term[3]));
#else
  for (int k = 0; k < kVector; ++k) atomicAdd(target + k, term[k]);
#endif
}

// The sum of a number over a group of lanes, which all call it.
__device__ __forceinline__ float sum_over(unsigned group, int lanes, float number) {
  for (int other = lanes / 2; other > 0; other /= 2) number += __shfl_xor_sync(group, number, other);
  return number;
}

// All gradients at once: every cell around a sample is read once.
template <typename T, typename C>
__global__ void __launch_bounds__(kThreads) backward_vectors(
    Problem p,
    const T* __restrict__ grad_output,
    const T* __restrict__ value,
    const int64_t* __restrict__ shapes,
    const int64_t* __restrict__ starts,
    const C* __restrict__ locations,
    const C* __restrict__ weights,
    float* __restrict__ grad_value,
    C* __restrict__ grad_locations,
    C* __restrict__ grad_weights,
    int64_t count) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= count) return;  // count is a multiple of lanes, so a group stays or leaves together
  const auto self = lane_of<T, C>(p, thread);
  const unsigned lanes = self.lanes == 32 ? ~0u : (1u << self.lanes) - 1;
  const unsigned group = lanes << (threadIdx.x % 32 - self.lane);
  const Vector<T> packed = load(grad_output + self.query_head * p.channels + self.lane * kVector);
  float gradient[kVector];
#pragma unroll
  for (int k = 0; k < kVector; ++k) gradient[k] = static_cast<float>(packed.element[k]);
  int64_t sample = self.query_head * p.levels * p.points;
  for (int level = 0; level < p.levels; ++level) {
    const int height = static_cast<int>(shapes[2 * level]), width = static_cast<int>(shapes[2 * level + 1]);
    const int start = static_cast<int>(starts[level]);
    for (int point = 0; point < p.points; ++point, ++sample) {
      const auto place = Place<float, int>::at(locations + 2 * sample, height, width);
      SampleGradient<float> of_sample = {0, 0, 0};
      if (place.inside) {
        const float weight = static_cast<float>(weights[sample]);
        float products[4] = {0, 0, 0, 0};
        visit_corners(
            place, weight, start, height, width, static_cast<int>(p.cells), [&](int corner, int cell, float share) {
              const int64_t offset = self.first + static_cast<int64_t>(cell) * self.stride;
              const Vector<T> source = load(value + offset);
              float terms[kVector];
#pragma unroll
              for (int k = 0; k < kVector; ++k) {
                products[corner] += static_cast<float>(source.element[k]) * gradient[k];
                terms[k] = share * gradient[k];
              }
              add(grad_value + offset, terms);
            });
        // Linear in the products, so sums over the channels can be taken afterwards.
        of_sample = sample_gradient<float>(
            Corners<float>{products[0], products[1], products[2], products[3]}, place.fx, place.fy, weight,
            static_cast<float>(width), static_cast<float>(height));
        of_sample.x = sum_over(group, self.lanes, of_sample.x);
        of_sample.y = sum_over(group, self.lanes, of_sample.y);
        of_sample.weight = sum_over(group, self.lanes, of_sample.weight);
      }
      if (self.lane == 0) {
        grad_locations[2 * sample] = static_cast<C>(of_sample.x);
        grad_locations[2 * sample + 1] = static_cast<C>(of_sample.y);
        grad_weights[sample] = static_cast<C>(of_sample.weight);
      }
    }
  }
}

// Whether the kernels above can be used: lanes fill a warp or a power-of-two part of it, cells have 32-bit indices,
// and arrays are aligned.
bool by_vectors(const Call& call) {
  const Problem& p = call.problem;
  const int64_t lanes = p.channels / kVector;
  const bool aligned = std::ranges::all_of(
      std::initializer_list<const void*>{call.value, call.output, call.grad_output, call.grad_value},
      [](const void* array) { return reinterpret_cast<uintptr_t>(array) % 16 == 0; });
  return call.value_type != Type::kDouble && p.channels % kVector == 0 && lanes >= 1 && lanes <= 32 &&
         (lanes & (lanes - 1)) == 0 && p.cells < (int64_t{1} << 31) && p.heads * p.channels < (int64_t{1} << 31) &&
         p.images * p.queries * p.heads * lanes < kMostBlocks * kThreads && aligned;
}

int64_t blocks_for(int64_t count) { return (count + kThreads - 1) / kThreads; }

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
    if constexpr (!std::is_same_v<T, double>) {
      if (by_vectors(call)) {
        const int64_t count = p.images * p.queries * p.heads * p.channels / kVector;
        if (count == 0) return;
        forward_vectors<T, C><<<static_cast<unsigned>(blocks_for(count)), kThreads, 0, stream>>>(
            p, element.value, element.shapes, element.starts, element.locations, element.weights, element.output,
            count);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
        return;
      }
    }
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
    if constexpr (!std::is_same_v<T, double>) {
      if (by_vectors(call)) {
        const int64_t count = p.images * p.queries * p.heads * p.channels / kVector;
        if (count == 0) return;
        backward_vectors<T, C><<<static_cast<unsigned>(blocks_for(count)), kThreads, 0, stream>>>(
            p, value_gradient.grad_output, static_cast<const T*>(call.value), call.shapes, call.starts,
            value_gradient.locations, value_gradient.weights, value_gradient.grad_value,
            static_cast<C*>(call.grad_locations), static_cast<C*>(call.grad_weights), count);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
        return;
      }
    }
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
