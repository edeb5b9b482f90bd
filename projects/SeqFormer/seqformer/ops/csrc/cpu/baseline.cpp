// Kernels for any processor, with vectors of 16 bytes as in SSE2 and NEON.

#include "kernels.h"

#define SEQFORMER_VECTOR_BYTES 16
#define SEQFORMER_KERNELS kBaseline
#define SEQFORMER_NAME "baseline"
#include "kernels.inl"
