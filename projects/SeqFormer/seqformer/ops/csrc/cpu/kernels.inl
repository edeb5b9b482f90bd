// The CPU kernels, with vectors of SEQFORMER_VECTOR_BYTES bytes. The file of each instruction set defines that and
// SEQFORMER_KERNELS (the name of its table), enables the instructions in the compiler and includes this file.
//
// Do not call the standard library here. The linker might keep this file's copy of a library function, with
// instructions that the processor does not have, for the whole program.

#include "../arithmetic.h"
#include "vectors.inl"

namespace seqformer::cpu {
namespace {

// ---- samples: their positions and the weights of the cells around them ----

// Several samples, stored as rows of a scratch array. The length of a row is a multiple of the number of lanes.
template <typename E>
struct Samples {
  // Which cells around a position exist.
  static constexpr int kLeft = 1, kRight = 2, kTop = 4, kBottom = 8, kAll = 15;

  // Inputs.
  E *x, *y, *factor;  // normalised location, and a factor of the shares
  E *width, *height;  // of the sample's level
  Int<E>* start;      // of the sample's level
  // Outputs of locate().
  E *fx, *fy;
  E* share[4];
  Int<E>* cell;  // the top left one, which may not exist
  Int<E>* sides;

  static constexpr int64_t kRows = 14;

  Samples(char* memory, int64_t length) {
    E* p = reinterpret_cast<E*>(memory);
    const auto row = [&] { return p += length, p - length; };
    x = row(), y = row(), factor = row(), width = row(), height = row();
    start = reinterpret_cast<Int<E>*>(row());
    fx = row(), fy = row();
    for (E*& s : share) s = row();
    cell = reinterpret_cast<Int<E>*>(row());
    sides = reinterpret_cast<Int<E>*>(row());
  }

  static size_t bytes(int64_t length) { return kRows * length * sizeof(E); }

  SEQFORMER_LOCAL V<E> floor(V<E> v) {  // only for numbers that fit an integer
    const V<E> whole = __builtin_convertvector(__builtin_convertvector(v, V<Int<E>>), V<E>);
    return whole + __builtin_convertvector(whole > v, V<E>);  // true is -1
  }

  inline __attribute__((always_inline)) void locate(int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes<E>) {
      const V<E> w = load_vector(width + i), h = load_vector(height + i), zero{};
      V<E> px = grid_coordinate<E>(load_vector(x + i), w), py = grid_coordinate<E>(load_vector(y + i), h);
      const auto inside = touches<E>(px, w) & touches<E>(py, h);
      px = inside ? px : zero;
      py = inside ? py : zero;
      const V<E> left = floor(px), top = floor(py);
      store_vector(fx + i, px - left);
      store_vector(fy + i, py - top);
      const auto shares = corner_shares(px - left, py - top, load_vector(factor + i));
      store_vector(share[0] + i, shares.v00);
      store_vector(share[1] + i, shares.v01);
      store_vector(share[2] + i, shares.v10);
      store_vector(share[3] + i, shares.v11);
      const auto column = __builtin_convertvector(left, V<Int<E>>), row = __builtin_convertvector(top, V<Int<E>>);
      const auto iw = __builtin_convertvector(w, V<Int<E>>);
      store_vector(cell + i, load_vector(start + i) + row * iw + column);
      const auto there =
          ((left >= zero) & kLeft) | ((left + 1 < w) & kRight) | ((top >= zero) & kTop) | ((top + 1 < h) & kBottom);
      store_vector(sides + i, (V<Int<E>>)(there & inside));
    }
  }
};

// exp(x) for x <= 0, accurate to about one unit in the last place. Nearly zero below -87; NaN stays NaN.
SEQFORMER_LOCAL V<float> exp_negative(V<float> x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  const V<float> n = Samples<float>::floor(x * 1.44269504f + 0.5f);
  V<float> r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  V<float> y = splat(1.9875691500e-4f);  // minimax polynomial from Cephes
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const auto exponent = (__builtin_convertvector(n, V<int32_t>) + 127) << 23;
  return y * (V<float>)exponent;
}
SEQFORMER_LOCAL V<double> exp_negative(V<double> x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// Computes the softmax of the first count numbers in place.
template <typename E>
SEQFORMER_LOCAL void softmax(E* p, int64_t count) {
  E greatest = p[0];
  for (int64_t i = 1; i < count; ++i) greatest = p[i] > greatest ? p[i] : greatest;
  for (int64_t i = count; i < round_up<E>(count); ++i) p[i] = greatest;
  for (int64_t i = 0; i < count; i += kLanes<E>) store_vector(p + i, exp_negative(load_vector(p + i) - greatest));
  E sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += p[i];
  const E factor = 1 / sum;
  for (int64_t i = 0; i < count; ++i) p[i] *= factor;
}

// ---- forward ----

// Sums the channels of kSums vectors over all samples. T is the storage type of value.
template <typename Sums, int kSums, typename E, typename T>
SEQFORMER_LOCAL void gather_sums(
    const Samples<E>& samples, int64_t count, const T* slice, int64_t stride, T* output) {
  using S = Samples<E>;
  Sums upper[kSums] = {}, lower[kSums] = {};
  for (int64_t i = 0; i < count; ++i) {
    const int sides = static_cast<int>(samples.sides[i]);
    if (!sides) continue;
    const int64_t first = static_cast<int64_t>(samples.cell[i]) * stride;
    const int64_t second = first + static_cast<int64_t>(samples.width[i]) * stride;
    const E s00 = samples.share[0][i], s01 = samples.share[1][i];
    const E s10 = samples.share[2][i], s11 = samples.share[3][i];
    if (__builtin_expect(sides == S::kAll, 1)) {
#pragma GCC unroll 8
      for (int k = 0; k < kSums; ++k) {
        const T* p = slice + k * Sums::kNumbers;
        upper[k].add(s00, p + first);
        lower[k].add(s10, p + second);
        upper[k].add(s01, p + first + stride);
        lower[k].add(s11, p + second + stride);
      }
      continue;
    }
    const auto add_if = [&](int needed, int64_t place, E share) __attribute__((always_inline)) {
      if ((sides & needed) != needed) return;
#pragma GCC unroll 8
      for (int k = 0; k < kSums; ++k) upper[k].add(share, slice + place + k * Sums::kNumbers);
    };
    add_if(S::kTop | S::kLeft, first, s00);
    add_if(S::kTop | S::kRight, first + stride, s01);
    add_if(S::kBottom | S::kLeft, second, s10);
    add_if(S::kBottom | S::kRight, second + stride, s11);
  }
#pragma GCC unroll 8
  for (int k = 0; k < kSums; ++k) {
    upper[k].add(lower[k]);
    upper[k].store(output + k * Sums::kNumbers);
  }
}

template <typename E, typename T>
SEQFORMER_LOCAL void gather_channel(
    const Samples<E>& samples, int64_t count, const T* slice, int64_t stride, T* output) {
  using S = Samples<E>;
  E sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int sides = static_cast<int>(samples.sides[i]);
    if (!sides) continue;
    const int64_t first = static_cast<int64_t>(samples.cell[i]) * stride;
    const int64_t second = first + static_cast<int64_t>(samples.width[i]) * stride;
    if (sides & S::kTop && sides & S::kLeft) sum += samples.share[0][i] * load_one(slice + first);
    if (sides & S::kTop && sides & S::kRight) sum += samples.share[1][i] * load_one(slice + first + stride);
    if (sides & S::kBottom && sides & S::kLeft) sum += samples.share[2][i] * load_one(slice + second);
    if (sides & S::kBottom && sides & S::kRight) sum += samples.share[3][i] * load_one(slice + second + stride);
  }
  store_one(output, sum);
}

template <typename E, typename T>
SEQFORMER_LOCAL void gather(
    const Samples<E>& samples, int64_t count, const T* slice, int64_t stride, int64_t channels, T* output) {
  using Wide = typename WideSums<E, T>::type;
  constexpr int64_t n = kLanes<E>;
  int64_t c = 0;
  for (; c + 32 <= channels; c += 32) {
    gather_sums<Wide, 32 / Wide::kNumbers>(samples, count, slice + c, stride, output + c);
  }
  for (; c + n <= channels; c += n) gather_sums<Sums<E, T>, 1>(samples, count, slice + c, stride, output + c);
  for (; c < channels; ++c) gather_channel<E, T>(samples, count, slice + c, stride, output + c);
}

// T is the storage type of value, C that of locations and weights; E is the type of the arithmetic.
template <typename E, typename T, typename C>
void forward_rows(const Call& call, int64_t begin, int64_t end, char* scratch) {
  const Problem& p = call.problem;
  const int64_t count = p.levels * p.points, length = round_up<E>(count);
  Samples<E> samples(scratch, length);
  for (int64_t i = 0; i < length; ++i) {
    const bool used = i < count;
    samples.x[i] = samples.y[i] = samples.factor[i] = 0;
    samples.height[i] = used ? static_cast<E>(call.shapes[2 * (i / p.points)]) : 0;
    samples.width[i] = used ? static_cast<E>(call.shapes[2 * (i / p.points) + 1]) : 0;
    samples.start[i] = used ? static_cast<Int<E>>(call.starts[i / p.points]) : 0;
  }
  const C* locations = static_cast<const C*>(call.locations);
  const C* weights = static_cast<const C*>(call.weights);
  const C* reference = static_cast<const C*>(call.reference);
  const int64_t stride = p.heads * p.channels;
  for (int64_t row = begin; row < end; ++row) {
    const T* image = static_cast<const T*>(call.value) + row / p.queries * p.cells * stride;
    for (int64_t head = 0; head < p.heads; ++head) {
      const int64_t query_head = row * p.heads + head;
      const C* location = locations + query_head * count * 2;
      const C* weight = weights + query_head * count;
      for (int64_t i = 0; i < count; ++i) {
        samples.x[i] = load_one(location + 2 * i);
        samples.y[i] = load_one(location + 2 * i + 1);
        samples.factor[i] = load_one(weight + i);
      }
      if (reference != nullptr) {
        softmax(samples.factor, count);
        for (int64_t level = 0, i = 0; level < p.levels; ++level) {
          const C* r = reference + (row * p.levels + level) * call.reference_size;
          const E rx = load_one(r), ry = load_one(r + 1);
          const E width = samples.width[i], height = samples.height[i];
          if (call.reference_size == 2) {
            for (int64_t point = 0; point < p.points; ++point, ++i) {
              samples.x[i] = point_location(rx, samples.x[i], width);
              samples.y[i] = point_location(ry, samples.y[i], height);
            }
          } else {
            const E rw = load_one(r + 2), rh = load_one(r + 3);
            for (int64_t point = 0; point < p.points; ++point, ++i) {
              samples.x[i] = box_location<E>(rx, rw, samples.x[i], p.points);
              samples.y[i] = box_location<E>(ry, rh, samples.y[i], p.points);
            }
          }
        }
      }
      samples.locate(count);
      T* output = static_cast<T*>(call.output) + query_head * p.channels;
      gather<E, T>(samples, count, image + head * p.channels, stride, p.channels, output);
    }
  }
}

// ---- backward ----

// Sizes of one slice's scratch memory: value and its gradient as (cells, channels) arrays of E with padded rows.
template <typename E>
struct Slice {
  static constexpr int64_t kSamples = 64;  // at least this many are located together

  int64_t queries, samples, row, cells;  // samples is a multiple of the number of lanes
  size_t samples_bytes, bytes;

  explicit Slice(const Call& call) {
    const Problem& p = call.problem;
    queries = p.points ? (kSamples + p.points - 1) / p.points : 1;
    samples = round_up<E>(queries * p.points);
    row = round_up<E>(p.channels);
    cells = 0;
    for (int64_t level = 0; level < p.levels; ++level) {
      const int64_t n = call.shapes[2 * level] * call.shapes[2 * level + 1];
      cells = n > cells ? n : cells;
    }
    samples_bytes = Samples<E>::bytes(samples);
    bytes = samples_bytes + (2 * cells + 1) * row * sizeof(E);
  }
};

template <typename E>
SEQFORMER_LOCAL E scatter_corner(const E* value, E* grad, const E* output_gradient, int64_t channels, E share) {
  V<E> product{};
  for (int64_t c = 0; c < channels; c += kLanes<E>) {
    const V<E> g = load_vector(output_gradient + c);
    product += g * load_vector(value + c);
    store_vector(grad + c, load_vector(grad + c) + share * g);
  }
  return sum_lanes<E>(product);
}

template <typename E, typename T, typename C>
void backward_slices(const Call& call, int64_t begin, int64_t end, char* scratch) {
  using S = Samples<E>;
  const Problem& p = call.problem;
  const Slice<E> sizes(call);
  S samples(scratch, sizes.samples);
  E* const value = reinterpret_cast<E*>(scratch + sizes.samples_bytes);
  const int64_t stride = p.heads * p.channels;
  for (int64_t slice = begin; slice < end; ++slice) {
    const int64_t level = slice % p.levels, head = slice / p.levels % p.heads, image = slice / p.levels / p.heads;
    const int64_t height = call.shapes[2 * level], width = call.shapes[2 * level + 1], cells = height * width;
    E* const grad = value + cells * sizes.row;
    E* const output_gradient = grad + cells * sizes.row;
    const int64_t first_cell = ((image * p.cells + call.starts[level]) * p.heads + head) * p.channels;
    const T* source = static_cast<const T*>(call.value) + first_cell;
    __builtin_memset(value, 0, (2 * cells + 1) * sizes.row * sizeof(E));
    for (int64_t cell = 0; cell < cells; ++cell) {
      for (int64_t c = 0; c < p.channels; ++c) value[cell * sizes.row + c] = load_one(source + cell * stride + c);
    }
    for (int64_t i = 0; i < sizes.samples; ++i) {
      samples.x[i] = samples.y[i] = samples.factor[i] = 0;
      samples.height[i] = static_cast<E>(height);
      samples.width[i] = static_cast<E>(width);
      samples.start[i] = 0;
    }
    for (int64_t chunk = 0; chunk < p.queries; chunk += sizes.queries) {
      const int64_t queries = p.queries - chunk < sizes.queries ? p.queries - chunk : sizes.queries;
      const auto first_sample = [&](int64_t query) {
        return (((image * p.queries + chunk + query) * p.heads + head) * p.levels + level) * p.points;
      };
      for (int64_t query = 0, i = 0; query < queries; ++query) {
        const C* location = static_cast<const C*>(call.locations) + 2 * first_sample(query);
        const C* weight = static_cast<const C*>(call.weights) + first_sample(query);
        for (int64_t point = 0; point < p.points; ++point, ++i) {
          samples.x[i] = load_one(location + 2 * point);
          samples.y[i] = load_one(location + 2 * point + 1);
          samples.factor[i] = load_one(weight + point);
        }
      }
      samples.locate(queries * p.points);
      for (int64_t query = 0, i = 0; query < queries; ++query) {
        const T* gradient = static_cast<const T*>(call.grad_output) +
                            ((image * p.queries + chunk + query) * p.heads + head) * p.channels;
        for (int64_t c = 0; c < p.channels; ++c) output_gradient[c] = load_one(gradient + c);
        C* grad_location = static_cast<C*>(call.grad_locations) + 2 * first_sample(query);
        C* grad_weight = static_cast<C*>(call.grad_weights) + first_sample(query);
        for (int64_t point = 0; point < p.points; ++point, ++i) {
          const int sides = static_cast<int>(samples.sides[i]);
          const int64_t at = static_cast<int64_t>(samples.cell[i]) * sizes.row, below = at + width * sizes.row;
          const auto corner = [&](int needed, int64_t place, E share) __attribute__((always_inline)) {
            if ((sides & needed) != needed) return E(0);
            return scatter_corner<E>(value + place, grad + place, output_gradient, p.channels, share);
          };
          Corners<E> product = {};
          if (sides) {
            product.v00 = corner(S::kTop | S::kLeft, at, samples.share[0][i]);
            product.v01 = corner(S::kTop | S::kRight, at + sizes.row, samples.share[1][i]);
            product.v10 = corner(S::kBottom | S::kLeft, below, samples.share[2][i]);
            product.v11 = corner(S::kBottom | S::kRight, below + sizes.row, samples.share[3][i]);
          }
          const auto g = sample_gradient<E>(
              product, samples.fx[i], samples.fy[i], samples.factor[i], static_cast<E>(width),
              static_cast<E>(height));
          store_one(grad_location + 2 * point, sides ? g.x : 0);
          store_one(grad_location + 2 * point + 1, sides ? g.y : 0);
          store_one(grad_weight + point, sides ? g.weight : 0);
        }
      }
    }
    T* target = static_cast<T*>(call.grad_value) + first_cell;
    for (int64_t cell = 0; cell < cells; ++cell) {
      for (int64_t c = 0; c < p.channels; ++c) store_one(target + cell * stride + c, grad[cell * sizes.row + c]);
    }
  }
}

// ---- by type ----

void forward(const Call& call, int64_t begin, int64_t end, char* scratch) {
  const bool same = call.location_type == call.value_type;
  switch (call.value_type) {
    case Type::kFloat: return forward_rows<float, float, float>(call, begin, end, scratch);
    case Type::kDouble: return forward_rows<double, double, double>(call, begin, end, scratch);
    case Type::kHalf:
      return same ? forward_rows<float, Half, Half>(call, begin, end, scratch)
                  : forward_rows<float, Half, float>(call, begin, end, scratch);
    case Type::kBFloat16:
      return same ? forward_rows<float, BFloat16, BFloat16>(call, begin, end, scratch)
                  : forward_rows<float, BFloat16, float>(call, begin, end, scratch);
  }
}

void backward(const Call& call, int64_t begin, int64_t end, char* scratch) {
  const bool same = call.location_type == call.value_type;
  switch (call.value_type) {
    case Type::kFloat: return backward_slices<float, float, float>(call, begin, end, scratch);
    case Type::kDouble: return backward_slices<double, double, double>(call, begin, end, scratch);
    case Type::kHalf:
      return same ? backward_slices<float, Half, Half>(call, begin, end, scratch)
                  : backward_slices<float, Half, float>(call, begin, end, scratch);
    case Type::kBFloat16:
      return same ? backward_slices<float, BFloat16, BFloat16>(call, begin, end, scratch)
                  : backward_slices<float, BFloat16, float>(call, begin, end, scratch);
  }
}

size_t forward_scratch(const Call& call) {
  const int64_t count = call.problem.levels * call.problem.points;
  return call.value_type == Type::kDouble ? Samples<double>::bytes(round_up<double>(count))
                                          : Samples<float>::bytes(round_up<float>(count));
}

size_t backward_scratch(const Call& call) {
  return call.value_type == Type::kDouble ? Slice<double>(call).bytes : Slice<float>(call).bytes;
}

}  // namespace

const Kernels SEQFORMER_KERNELS = {SEQFORMER_NAME, forward, forward_scratch, backward, backward_scratch};

}  // namespace seqformer::cpu
