// The ids of the largest scores of a row, in order.
#pragma once

#include "sampling.h"

namespace DS_ISA {

constexpr int kMostTop = 16;  // ids that are found without a histogram
constexpr int kGroups = 8;    // of spans, each with a largest score in every lane

// Puts a value into the k largest so far, the largest first; of equals the first that came stays before.
DS_INLINE void insert(float value, int32_t id, int k, float* values, int32_t* ids, int* count) {
  if (*count == k && !(value > values[k - 1])) return;
  int at = *count < k ? (*count)++ : k - 1;
  for (; at > 0 && values[at - 1] < value; --at) {
    values[at] = values[at - 1];
    ids[at] = ids[at - 1];
  }
  values[at] = value;
  ids[at] = id;
}

// A score that k scores reach: the k-th of the largest in each lane of each group of spans.
static float reached_by(int k, const float* peaks, int num_spans) {
  alignas(64) float tops[kGroups * kLanes];
  for (int group = 0; group < kGroups; ++group) {
    Floats top = splat(-INFINITY);
    for (int span = group; span < num_spans; span += kGroups) top = max(top, load(peaks + span * kLanes));
    store(tops + group * kLanes, top);
  }
  float values[kMostTop];
  int32_t ids[kMostTop];
  int count = 0;
  for (int i = 0; i < kGroups * kLanes; ++i) insert(tops[i], 0, k, values, ids, &count);
  return values[k - 1];
}

// The ids of the k < n largest scores, the largest first, ties to the lowest id; 0 if one is NaN, and
// -1 if the largest is infinite.
static int top_ids(const float* scores, int n, int k, DsScratch& s, int64_t* out) {
  const float best = find_peaks(scores, n, s.peaks);
  if (best != best) return 0;
  const int num_spans = (n + kSpan - 1) / kSpan;
  const int num_high = k <= kMostTop ? gather_high(scores, n, reached_by(k, s.peaks, num_spans), s)
                                     : keep_largest(scores, n, k, s);
  int count = 0;
  for (int i = 0; i < num_high; ++i) insert(s.values[i], s.ids[i], k, s.values, s.ids, &count);  // they came by id
  for (int i = 0; i < count; ++i) out[i] = s.ids[i];
  return __builtin_isfinite(best) ? 1 : -1;
}

}  // namespace DS_ISA
