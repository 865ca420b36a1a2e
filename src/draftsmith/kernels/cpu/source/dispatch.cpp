// Which instruction set runs.
#include <atomic>
#include <cstring>

#include "interface.h"

extern const DsKernels ds_kernels_portable;
#if defined(DS_X86)
extern const DsKernels ds_kernels_avx2;
extern const DsKernels ds_kernels_avx512;
extern const DsKernels ds_kernels_avx512vnni;
#endif

namespace {

struct Choice {
  const DsKernels* kernels;
  bool runs_here;
};

const Choice* choices(int* count) {
#if defined(DS_X86)
  __builtin_cpu_init();
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                               __builtin_cpu_supports("f16c");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                                 __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  static const bool has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
  static const Choice list[] = {
      {&ds_kernels_avx512vnni, has_vnni},
      {&ds_kernels_avx512, has_avx512},
      {&ds_kernels_avx2, has_avx2},
      {&ds_kernels_portable, true},
  };
#else
  static const Choice list[] = {{&ds_kernels_portable, true}};
#endif
  *count = static_cast<int>(sizeof list / sizeof *list);
  return list;
}

const DsKernels* best() {
  int count;
  const Choice* list = choices(&count);
  for (int i = 0; i < count; ++i)
    if (list[i].runs_here) return list[i].kernels;
  return &ds_kernels_portable;
}

std::atomic<const DsKernels*> chosen{nullptr};

}  // namespace

const DsKernels& ds_kernels() {
  const DsKernels* kernels = chosen.load(std::memory_order_relaxed);
  if (kernels == nullptr) chosen = kernels = best();
  return *kernels;
}

#pragma GCC visibility push(default)
extern "C" {

// The name of the i-th instruction set that runs here, best first; null past the last.
const char* ds_isa_name(int which) {
  int count;
  const Choice* list = choices(&count);
  for (int i = 0; i < count; ++i)
    if (list[i].runs_here && which-- == 0) return list[i].kernels->name;
  return nullptr;
}

const char* ds_isa() { return ds_kernels().name; }

// Null chooses the best. Returns 0 if this processor does not run it.
int ds_select_isa(const char* name) {
  if (name == nullptr) {
    chosen = best();
    return 1;
  }
  int count;
  const Choice* list = choices(&count);
  for (int i = 0; i < count; ++i)
    if (list[i].runs_here && std::strcmp(list[i].kernels->name, name) == 0) {
      chosen = list[i].kernels;
      return 1;
    }
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
