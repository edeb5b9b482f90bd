// The CUDA kernels; like those for CPUs they know nothing of tensors.

#pragma once

#include <cuda_runtime_api.h>

#include "../call.h"

namespace seqformer::cuda {

// Both run on the stream and return at once; the current device is the arrays'.
void forward(const Call& call, cudaStream_t stream);
void backward(const Call& call, cudaStream_t stream);

}  // namespace seqformer::cuda
