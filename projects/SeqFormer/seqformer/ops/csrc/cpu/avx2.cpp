// Kernels for x86-64 processors with AVX2. Only this file is compiled with these instructions.

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define SEQFORMER_VECTOR_BYTES 32
#define SEQFORMER_KERNELS kAvx2
#define SEQFORMER_NAME "avx2"
#include "kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
