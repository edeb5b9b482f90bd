// Runs every set of CPU kernels that this processor supports on random calls and compares the results with the
// functors of arithmetic.h. Compile it with sanitizers: arrays have exactly the size that a call needs.
//
//   fuzz CALLS SEED

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "arithmetic.h"
#include "cpu/kernels.h"

using namespace seqformer;

namespace {

#if defined(__aarch64__)
using Half = __fp16;
#else
using Half = _Float16;
#endif

struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  explicit BFloat16(float x) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, 4);
    bits = std::isnan(x) ? 0x7fc0 : static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
  explicit operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float x;
    __builtin_memcpy(&x, &wide, 4);
    return x;
  }
};

struct Add {
  template <typename A>
  void operator()(A* target, A term) const {
    *target += term;
  }
};

std::mt19937_64 engine;

int64_t between(int64_t least, int64_t most) { return std::uniform_int_distribution<int64_t>(least, most)(engine); }

template <typename T>
std::vector<T> numbers(int64_t count, double least, double most) {
  std::vector<T> result(count);
  for (T& x : result) x = T(static_cast<float>(std::uniform_real_distribution<double>(least, most)(engine)));
  return result;
}

// Locations inside and around the levels, including absurd ones.
template <typename C>
std::vector<C> places(int64_t count) {
  std::vector<C> result = numbers<C>(count, -0.5, 1.5);
  const float odd[] = {
      std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e30f, 3e9f, 0.f, 1.f};
  for (C& x : result) {
    if (between(0, 15) == 0) x = C(odd[between(0, 5)]);
  }
  return result;
}

template <typename T, typename A>
void compare(
    const char* kernels,
    const char* what,
    const std::vector<T>& actual,
    const std::vector<A>& expected,
    double precision) {
  double scale = 1;
  for (A w : expected) scale = std::fmax(scale, std::fabs(static_cast<double>(w)));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double f = static_cast<double>(static_cast<A>(actual[i])), w = static_cast<double>(expected[i]);
    if (!(std::fabs(f - w) <= precision * scale)) {
      std::fprintf(stderr, "%s, %s[%zu]: %g, not %g\n", kernels, what, i, f, w);
      std::exit(1);
    }
  }
}

template <typename T, typename C, typename A>
void one_call(Type value_type, Type location_type, double precision) {
  Problem p{between(0, 3), 0, between(1, 3), between(1, 70), between(0, 9), between(0, 4), between(1, 5)};
  std::vector<int64_t> shapes, starts;
  for (int64_t level = 0; level < p.levels; ++level) {
    const int64_t height = between(0, 6), width = between(1, 7);
    shapes.insert(shapes.end(), {height, width});
    starts.push_back(p.cells);
    p.cells += height * width;
  }
  const int64_t samples = p.images * p.queries * p.heads * p.levels * p.points;
  const int64_t outputs = p.images * p.queries * p.heads * p.channels;
  const auto value = numbers<T>(p.images * p.cells * p.heads * p.channels, -2, 2);
  auto locations = places<C>(2 * samples);
  // Gradients jump at cells' centres, and some kernels round where others multiply and add at once.
  for (int64_t i = 0; i < 2 * samples; ++i) {
    const double size = static_cast<double>(shapes[2 * (i / 2 / p.points % p.levels) + (i % 2 == 0)]);
    const double place = static_cast<double>(static_cast<float>(locations[i])) * size;
    if (std::fabs(place - std::floor(place) - 0.5) < 0.01) locations[i] = C(static_cast<float>((place + 0.25) / size));
  }
  const auto weights = numbers<C>(samples, -1, 1);
  const auto grad_output = numbers<T>(outputs, -1, 1);

  Call call{};
  call.problem = p;
  call.value_type = value_type;
  call.location_type = location_type;
  call.value = value.data();
  call.shapes = shapes.data();
  call.starts = starts.data();
  call.locations = locations.data();
  call.weights = weights.data();
  call.grad_output = grad_output.data();

  std::vector<T> expected(outputs);
  const ForwardElement<T, C, A> element{
      p, value.data(), shapes.data(), starts.data(), locations.data(), weights.data(), expected.data()};
  for (int64_t i = 0; i < outputs; ++i) element(i);
  std::vector<A> expected_grad(value.size(), A(0));
  const ValueGradient<T, C, A, Add> value_gradient{
      p, grad_output.data(), shapes.data(), starts.data(), locations.data(), weights.data(), expected_grad.data()};
  for (int64_t i = 0; i < outputs; ++i) value_gradient(i);
  std::vector<C> expected_locations(2 * samples), expected_weights(samples);
  const LocationGradient<T, C, A> location_gradient{
      p,
      grad_output.data(),
      value.data(),
      shapes.data(),
      starts.data(),
      locations.data(),
      weights.data(),
      expected_locations.data(),
      expected_weights.data()};
  for (int64_t i = 0; i < samples; ++i) location_gradient(i);
  const auto in_sum_type = [](const auto& stored) {
    std::vector<A> result;
    for (const auto& x : stored) result.push_back(static_cast<A>(x));
    return result;
  };

  for (const char* name : {"baseline", "avx2", "avx512"}) {
    const cpu::Kernels* kernels = cpu::find_kernels(name);
    if (kernels == nullptr) continue;
    // Like the operator, do not call the kernels if there is nothing to sum.
    if (p.levels > 0) {
      std::vector<T> output(outputs);
      call.output = output.data();
      std::vector<char> scratch(kernels->forward_scratch(call));
      const int64_t rows = p.images * p.queries, middle = rows / 2;
      kernels->forward(call, 0, middle, scratch.data());
      kernels->forward(call, middle, rows, scratch.data());
      compare(name, "output", output, in_sum_type(expected), precision);

      // The fused form uses the same numbers as offsets from boxes and as logits. This only checks that it stays
      // within its arrays.
      for (int64_t size : {2, 4}) {
        const auto reference = numbers<C>(p.images * p.queries * p.levels * size, 0, 1);
        Call fused = call;
        fused.reference = reference.data();
        fused.reference_size = size;
        kernels->forward(fused, 0, rows, scratch.data());
      }
    }
    std::vector<T> grad_value(value.size());
    std::vector<C> grad_locations(2 * samples), grad_weights(samples);
    call.grad_value = grad_value.data();
    call.grad_locations = grad_locations.data();
    call.grad_weights = grad_weights.data();
    std::vector<char> scratch(kernels->backward_scratch(call));
    kernels->backward(call, 0, p.images * p.heads * p.levels, scratch.data());
    compare(name, "grad_value", grad_value, expected_grad, precision);
    compare(name, "grad_locations", grad_locations, in_sum_type(expected_locations), precision);
    compare(name, "grad_weights", grad_weights, in_sum_type(expected_weights), precision);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int calls = argc > 1 ? std::atoi(argv[1]) : 200;
  engine.seed(argc > 2 ? std::atoll(argv[2]) : 0);
  for (int i = 0; i < calls; ++i) {
    one_call<float, float, float>(Type::kFloat, Type::kFloat, 1e-4);
    one_call<double, double, double>(Type::kDouble, Type::kDouble, 1e-12);
    one_call<Half, Half, float>(Type::kHalf, Type::kHalf, 4e-3);
    one_call<Half, float, float>(Type::kHalf, Type::kFloat, 4e-3);
    one_call<BFloat16, BFloat16, float>(Type::kBFloat16, Type::kBFloat16, 3e-2);
    one_call<BFloat16, float, float>(Type::kBFloat16, Type::kFloat, 3e-2);
  }
  std::printf("%d calls of each type agree; the best kernels here are %s\n", calls, cpu::find_kernels()->name);
}
