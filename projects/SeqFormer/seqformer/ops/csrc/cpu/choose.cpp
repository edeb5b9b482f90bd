// Selects the kernels for this processor.

#include <cstring>

#include "kernels.h"

namespace seqformer::cpu {

const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const Kernels* const candidates[] = {avx512 ? &kAvx512 : nullptr, avx2 ? &kAvx2 : nullptr, &kBaseline};
#else
  const Kernels* const candidates[] = {&kBaseline};
#endif
  for (const Kernels* kernels : candidates) {
    if (kernels != nullptr && (name == nullptr || std::strcmp(kernels->name, name) == 0)) return kernels;
  }
  return nullptr;
}

}  // namespace seqformer::cpu
