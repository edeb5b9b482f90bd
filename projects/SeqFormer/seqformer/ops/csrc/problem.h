#pragma once

#include <cstdint>

namespace seqformer {

// Sizes of one call: N images, S cells of all levels, M heads, D channels a head, Q queries, L levels, P points.
// Everything is indexed in 64 bits.
struct Problem {
  int64_t images, cells, heads, channels, queries, levels, points;
};

}  // namespace seqformer
