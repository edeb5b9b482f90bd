// Kernels for any processor: vectors of 16 bytes, which SSE2 and NEON have.

#include "kernels.h"

#define SEQFORMER_VECTOR_BYTES 16
#define SEQFORMER_KERNELS kBaseline
#define SEQFORMER_NAME "baseline"
#include "kernels.inl"
