// The ids of the largest scores of a row, in order.
#pragma once

#include "sampling.h"

namespace DS_ISA {

// The ids of the k < n largest scores, the largest first, ties to the lowest id; 0 if one is NaN.
static int top_ids(const float* scores, int n, int k, DsScratch& s, int64_t* out) {
  const float best = find_peaks(scores, n, s.peaks);
  if (best != best) return 0;
  const int count = keep_largest(scores, n, k, s);  // by id
  for (int i = 1; i < count; ++i) {
    const float value = s.values[i];
    const int32_t id = s.ids[i];
    int at = i;
    for (; at > 0 && s.values[at - 1] < value; --at) {
      s.values[at] = s.values[at - 1];
      s.ids[at] = s.ids[at - 1];
    }
    s.values[at] = value;
    s.ids[at] = id;
  }
  for (int i = 0; i < count; ++i) out[i] = s.ids[i];
  return 1;
}

}  // namespace DS_ISA
