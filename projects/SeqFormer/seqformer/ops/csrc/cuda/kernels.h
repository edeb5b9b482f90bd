// The CUDA kernels. Like the CPU kernels they do not depend on PyTorch's tensors.

#pragma once

#include <cuda_runtime_api.h>

#include "../call.h"

namespace seqformer::cuda {

// Both only enqueue work on the stream. The current device must be that of the arrays.
void forward(const Call& call, cudaStream_t stream);
void backward(const Call& call, cudaStream_t stream);

}  // namespace seqformer::cuda
