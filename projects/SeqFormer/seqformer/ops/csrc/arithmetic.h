// Multi-scale deformable attention: the arithmetic of one sample, one output element and its gradients.
//
// All kernels share it. The CPU kernels use the formulas, with F a vector of samples. The CUDA kernels (and the
// tests' host build) use the functors, each of which computes the result for one linear index.
//
// Shapes, all contiguous: value (N, S, M, D); locations (N, Q, M, L, P, 2), xy, normalised to each level;
// weights (N, Q, M, L, P); output (N, Q, M, D). Source: Deformable DETR, equation 3.

#pragma once

#include <cmath>
#include <cstdint>

#include "call.h"

#if defined(__CUDACC__)
#define SEQFORMER_INLINE __host__ __device__ __forceinline__
#else
#define SEQFORMER_INLINE inline __attribute__((always_inline))
#endif

namespace seqformer {

// ---- formulas; F is a floating-point type or a vector of its elements E ----

// Position on the grid of a level's cells, whose centres have integer coordinates.
template <typename E, typename F>
SEQFORMER_INLINE F grid_coordinate(F location, F size) {
  return location * size - E(0.5);
}

// Whether a position is less than one cell away from a cell along one axis. False for NaN.
template <typename E, typename F>
SEQFORMER_INLINE auto touches(F coordinate, F size) {
  return (coordinate > E(-1)) & (coordinate < size);
}

// Location from a reference point and an offset in cells.
template <typename F>
SEQFORMER_INLINE F point_location(F reference, F offset, F size) {
  return reference + offset / size;
}

// Location from a reference box and an offset; an offset of P (the number of points) reaches the edge of the box.
template <typename E, typename F>
SEQFORMER_INLINE F box_location(F centre, F extent, F offset, int64_t points) {
  return centre + offset * extent * (E(0.5) / E(points));
}

// Bilinear weights of the four cells (row, column) around a position, from its fractional part, times a factor.
template <typename F>
struct Corners {
  F v00, v01, v10, v11;
};

template <typename F>
SEQFORMER_INLINE Corners<F> corner_shares(F fx, F fy, F factor) {
  const F bottom = fy * factor, top = factor - bottom;
  const F bottom_right = bottom * fx, top_right = top * fx;
  return {top - top_right, top_right, bottom - bottom_right, bottom_right};
}

// Gradients of one sample, from the dot products of the four cells with the output's gradient.
template <typename F>
struct SampleGradient {
  F x, y, weight;
};

template <typename F>
SEQFORMER_INLINE SampleGradient<F> sample_gradient(Corners<F> product, F fx, F fy, F weight, F width, F height) {
  const F top = product.v00 + fx * (product.v01 - product.v00);
  const F bottom = product.v10 + fx * (product.v11 - product.v10);
  const F left = product.v00 + fy * (product.v10 - product.v00);
  const F right = product.v01 + fy * (product.v11 - product.v01);
  return {weight * width * (right - left), weight * height * (bottom - top), top + fy * (bottom - top)};
}

// ---- functors over a linear index; T is the type of value, C of locations and weights, A of sums ----

// Position of one sample, and whether any of its cells exists. I is the type of indices of cells.
template <typename A, typename I = int64_t>
struct Place {
  I row, column;
  A fx, fy;
  bool inside;

  template <typename C>
  SEQFORMER_INLINE static Place at(const C* location, I height, I width) {
    const A x = grid_coordinate<A>(static_cast<A>(location[0]), static_cast<A>(width));
    const A y = grid_coordinate<A>(static_cast<A>(location[1]), static_cast<A>(height));
    if (!(touches<A>(x, static_cast<A>(width)) & touches<A>(y, static_cast<A>(height)))) {
      return {0, 0, A(0), A(0), false};
    }
    const A left = std::floor(x), top = std::floor(y);
    return {static_cast<I>(top), static_cast<I>(left), x - left, y - top, true};
  }
};

// Calls visit(corner, cell, share) for every existing cell around a position; the shares add up to factor.
template <typename A, typename I, typename Visit>
SEQFORMER_INLINE void visit_corners(
    const Place<A, I>& place, A factor, I start, I height, I width, I cells, Visit visit) {
  const Corners<A> share = corner_shares<A>(place.fx, place.fy, factor);
  const A shares[4] = {share.v00, share.v01, share.v10, share.v11};
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int corner = 0; corner < 4; ++corner) {
    const I row = place.row + corner / 2, column = place.column + corner % 2;
    const I cell = start + row * width + column;
    // The last two comparisons prevent reads beyond the image if level starts are wrong.
    if (row >= 0 && row < height && column >= 0 && column < width && cell >= 0 && cell < cells) {
      visit(corner, cell, shares[corner]);
    }
  }
}

// Index (N, Q, M, D): computes one element of the output.
template <typename T, typename C, typename A>
struct ForwardElement {
  Problem problem;
  const T* value;
  const int64_t* shapes;
  const int64_t* starts;
  const C* locations;
  const C* weights;
  T* output;

  SEQFORMER_INLINE void operator()(int64_t index) const {
    const Problem& p = problem;
    const int64_t channel = index % p.channels, query_head = index / p.channels;
    const int64_t head = query_head % p.heads, image = query_head / p.heads / p.queries;
    const T* slice = value + (image * p.cells * p.heads + head) * p.channels + channel;
    A sum = A(0);
    for (int64_t level = 0, sample = query_head * p.levels * p.points; level < p.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      for (int64_t point = 0; point < p.points; ++point, ++sample) {
        const auto place = Place<A>::at(locations + 2 * sample, height, width);
        if (!place.inside) continue;
        visit_corners(
            place, static_cast<A>(weights[sample]), starts[level], height, width, p.cells,
            [&](int, int64_t cell, A share) { sum += share * static_cast<A>(slice[cell * p.heads * p.channels]); });
      }
    }
    output[index] = static_cast<T>(sum);
  }
};

// Index (N, Q, M, D): adds one element of the output's gradient to the cells that it was sampled from.
// Add(pointer, number) must be safe against concurrent additions.
template <typename T, typename C, typename A, typename Add>
struct ValueGradient {
  Problem problem;
  const T* grad_output;
  const int64_t* shapes;
  const int64_t* starts;
  const C* locations;
  const C* weights;
  A* grad_value;

  SEQFORMER_INLINE void operator()(int64_t index) const {
    const Problem& p = problem;
    const int64_t channel = index % p.channels, query_head = index / p.channels;
    const int64_t head = query_head % p.heads, image = query_head / p.heads / p.queries;
    A* slice = grad_value + (image * p.cells * p.heads + head) * p.channels + channel;
    const A gradient = static_cast<A>(grad_output[index]);
    for (int64_t level = 0, sample = query_head * p.levels * p.points; level < p.levels; ++level) {
      const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
      for (int64_t point = 0; point < p.points; ++point, ++sample) {
        const auto place = Place<A>::at(locations + 2 * sample, height, width);
        if (!place.inside) continue;
        visit_corners(
            place, static_cast<A>(weights[sample]) * gradient, starts[level], height, width, p.cells,
            [&](int, int64_t cell, A share) { Add()(slice + cell * p.heads * p.channels, share); });
      }
    }
  }
};

// Index (N, Q, M, L, P): writes the gradients of one sample's location and weight.
template <typename T, typename C, typename A>
struct LocationGradient {
  Problem problem;
  const T* grad_output;
  const T* value;
  const int64_t* shapes;
  const int64_t* starts;
  const C* locations;
  const C* weights;
  C* grad_locations;
  C* grad_weights;

  SEQFORMER_INLINE void operator()(int64_t sample) const {
    const Problem& p = problem;
    const int64_t level = sample / p.points % p.levels, query_head = sample / p.points / p.levels;
    const int64_t head = query_head % p.heads, image = query_head / p.heads / p.queries;
    const int64_t height = shapes[2 * level], width = shapes[2 * level + 1];
    const auto place = Place<A>::at(locations + 2 * sample, height, width);
    SampleGradient<A> gradient = {A(0), A(0), A(0)};
    if (place.inside) {
      A products[4] = {A(0), A(0), A(0), A(0)};
      const T* slice = value + (image * p.cells * p.heads + head) * p.channels;
      const T* output_gradient = grad_output + query_head * p.channels;
      visit_corners(place, A(1), starts[level], height, width, p.cells, [&](int corner, int64_t cell, A) {
        const T* source = slice + cell * p.heads * p.channels;
        for (int64_t channel = 0; channel < p.channels; ++channel) {
          products[corner] += static_cast<A>(source[channel]) * static_cast<A>(output_gradient[channel]);
        }
      });
      gradient = sample_gradient<A>(
          Corners<A>{products[0], products[1], products[2], products[3]}, place.fx, place.fy,
          static_cast<A>(weights[sample]), static_cast<A>(width), static_cast<A>(height));
    }
    grad_locations[2 * sample] = static_cast<C>(gradient.x);
    grad_locations[2 * sample + 1] = static_cast<C>(gradient.y);
    grad_weights[sample] = static_cast<C>(gradient.weight);
  }
};

}  // namespace seqformer
