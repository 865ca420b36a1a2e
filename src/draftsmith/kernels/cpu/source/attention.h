// A few queries over one head's cached keys and values.
//
// Scores: 16 positions a vector, each summed over the head's elements in order. Output: 16
// elements a vector, each summed over the positions in order. So a query's result does not
// depend on the queries beside it, nor on what lies beyond its last visible position: that is
// skipped, not weighed with 0, since it may be the infinity of a wrong draft.
//
// In a tree a query's newest positions lie in the slots of its path. Slots are scored as they lie,
// and then each query's scores are put in the order of its positions: from there on, sums are those
// of a chain, bit for bit. Slots of other branches are neither weighed nor read.
#pragma once

#include "lanes.h"
#include "interface.h"

namespace DS_ISA {

template <bool kHalf> DS_INLINE Floats read_cached(const void* base, int64_t at) {
  if constexpr (kHalf) return load_half(static_cast<const uint16_t*>(base) + at);
  else return load(static_cast<const float*>(base) + at);
}

// Some blocks of 16 positions at once: sums that do not wait for each other.
template <bool kHalf, int kQueries, int kBlocks>
DS_INLINE void score_blocks(const DsAttention& task, int block) {
  const int64_t size = task.head_size, block_size = size * kLanes;
  Floats acc[kQueries][kBlocks];
  for (int q = 0; q < kQueries; ++q)
    for (int b = 0; b < kBlocks; ++b) acc[q][b] = splat(0.0f);
  const int64_t keys = block * block_size;
  for (int64_t d = 0; d < size; ++d) {
    Floats key[kBlocks];
    for (int b = 0; b < kBlocks; ++b)
      key[b] = read_cached<kHalf>(task.keys, keys + b * block_size + d * kLanes);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      const Floats x = splat(task.queries[q][d]);
      for (int b = 0; b < kBlocks; ++b) acc[q][b] = fma(key[b], x, acc[q][b]);
    }
  }
  for (int q = 0; q < kQueries; ++q)
    for (int b = 0; b < kBlocks; ++b)
      store(task.scores + q * task.score_stride + (block + b) * kLanes, mul(acc[q][b], splat(task.scale)));
}

template <bool kHalf, int kQueries> static void score(const DsAttention& task, int begin, int end) {
  constexpr int kBlocks = kQueries <= 3 ? 4 : kQueries <= 6 ? 2 : 1;
  int block = begin / kLanes;
  const int last = (end + kLanes - 1) / kLanes;
  for (; block + kBlocks <= last; block += kBlocks) score_blocks<kHalf, kQueries, kBlocks>(task, block);
  for (; block < last; ++block) score_blocks<kHalf, kQueries, 1>(task, block);
}

// Scores of one query into weights that sum to 1, in place; 0 where it must not look.
static void softmax(float* scores, int begin, int first, int last, int end) {
  const float nothing = -__builtin_inff();
  for (int i = begin; i < first; ++i) scores[i] = nothing;
  for (int i = last; i < end; ++i) scores[i] = nothing;
  Floats best = splat(nothing);
  for (int i = begin; i < end; i += kLanes) best = max(best, load(scores + i));
  const Floats top = splat(max_lanes(best));
  Floats total = splat(0.0f);
  for (int i = begin; i < end; i += kLanes) {
    const Floats weight = exp(sub(load(scores + i), top));
    store(scores + i, weight);
    total = add(total, weight);
  }
  const Floats share = splat(1.0f / sum_lanes(total));
  for (int i = begin; i < end; i += kLanes) store(scores + i, mul(load(scores + i), share));
}

// Positions that some query sees, and among them those that every query sees.
struct Span {
  int begin, common_begin, common_end, end;
};

template <int kQueries> static Span span_of(const DsAttention& task) {
  Span span = {task.first[0], task.first[0], task.last[0], task.last[0]};
  for (int q = 1; q < kQueries; ++q) {
    const int first = task.first[q], last = task.last[q];
    if (first < span.begin) span.begin = first;
    if (first > span.common_begin) span.common_begin = first;
    if (last < span.common_end) span.common_end = last;
    if (last > span.end) span.end = last;
  }
  if (span.common_begin > span.common_end) span.common_begin = span.common_end = span.end;
  return span;
}

// Positions [from, to), for the queries that see them.
template <bool kAllSee, bool kHalf, int kQueries, int kVectors>
DS_INLINE void add_values(const DsAttention& task, int from, int to, int d, Floats (&acc)[kQueries][kVectors]) {
  for (int position = from; position < to; ++position) {
    const int64_t at = static_cast<int64_t>(position) * task.value_stride + d;
    Floats value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = read_cached<kHalf>(task.values, at + v * kLanes);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      if (!kAllSee && (position < task.first[q] || position >= task.last[q])) continue;
      const Floats weight = splat(task.scores[q * task.score_stride + position]);
      for (int v = 0; v < kVectors; ++v) acc[q][v] = fma(value[v], weight, acc[q][v]);
    }
  }
}

// Positions from `past` on, each query's in the slots of its own path.
template <bool kHalf, int kQueries, int kVectors>
DS_INLINE void add_paths(const DsAttention& task, int d, Floats (&acc)[kQueries][kVectors]) {
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
    const int from = task.first[q] > task.past ? task.first[q] : task.past;
    for (int position = from; position < task.last[q]; ++position) {
      const int64_t slot = task.paths[q][position - task.past];
      const Floats weight = splat(task.scores[q * task.score_stride + position]);
      for (int v = 0; v < kVectors; ++v)
        acc[q][v] = fma(read_cached<kHalf>(task.values, slot * task.value_stride + d + v * kLanes), weight, acc[q][v]);
    }
  }
}

// Some vectors of 16 elements of the output, from element `d` on.
template <bool kHalf, bool kTree, int kQueries, int kVectors>
DS_INLINE void gather_vectors(const DsAttention& task, const Span& span, int d) {
  Floats acc[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q)
    for (int v = 0; v < kVectors; ++v) acc[q][v] = splat(0.0f);
  if constexpr (kTree) {
    add_values<false, kHalf>(task, span.begin, span.common_begin, d, acc);
    add_values<true, kHalf>(task, span.common_begin, span.common_end, d, acc);
    add_paths<kHalf>(task, d, acc);
  } else if constexpr (kQueries == 1) {
    add_values<true, kHalf>(task, span.begin, span.end, d, acc);
  } else {
    add_values<false, kHalf>(task, span.begin, span.common_begin, d, acc);
    add_values<true, kHalf>(task, span.common_begin, span.common_end, d, acc);
    add_values<false, kHalf>(task, span.common_end, span.end, d, acc);
  }
  for (int q = 0; q < kQueries; ++q)
    for (int v = 0; v < kVectors; ++v) {
      const int left = task.head_size - d - v * kLanes;
      store_some(task.outputs[q] + d + v * kLanes, acc[q][v], left < kLanes ? left : kLanes);
    }
}

template <bool kHalf, bool kTree, int kQueries>
static void gather(const DsAttention& task, const Span& span) {
  constexpr int kVectors = kQueries <= 4 ? 4 : 2;
  int d = 0;
  for (; d + kVectors * kLanes <= task.value_stride; d += kVectors * kLanes)
    gather_vectors<kHalf, kTree, kQueries, kVectors>(task, span, d);
  for (; d < task.value_stride; d += kLanes) gather_vectors<kHalf, kTree, kQueries, 1>(task, span, d);
}

template <bool kHalf, int kQueries> static void attend_chain(const DsAttention& task) {
  const Span span = span_of<kQueries>(task);
  const int begin = span.begin / kLanes * kLanes;
  const int padded = (span.end + kLanes - 1) / kLanes * kLanes;
  score<kHalf, kQueries>(task, begin, span.end);
  for (int q = 0; q < kQueries; ++q)
    softmax(task.scores + q * task.score_stride, begin, task.first[q], task.last[q], padded);
  gather<kHalf, false, kQueries>(task, span);
}

// The same for queries of a tree.
template <bool kHalf, int kQueries> static void attend_tree(const DsAttention& task) {
  Span span = span_of<kQueries>(task);
  const int begin = span.begin / kLanes * kLanes;
  const int padded = (span.end + kLanes - 1) / kLanes * kLanes;
  int slots = 0;
  for (int q = 0; q < kQueries; ++q) {
    const int own = task.paths[q][task.last[q] - task.past - 1];
    if (own >= slots) slots = own + 1;
  }
  score<kHalf, kQueries>(task, begin, slots);
  for (int q = 0; q < kQueries; ++q) {
    float* scores = task.scores + q * task.score_stride;
    // In place: a slot is never before its position, and slots rise along a path.
    for (int position = begin > task.past ? begin : task.past; position < task.last[q]; ++position)
      scores[position] = scores[task.paths[q][position - task.past]];
    softmax(scores, begin, task.first[q], task.last[q], padded);
  }
  if (span.begin > task.past) span.begin = task.past;
  if (span.common_begin > task.past) span.common_begin = task.past;
  span.common_end = task.past;
  gather<kHalf, true, kQueries>(task, span);
}

template <bool kHalf, int kQueries> static void attend_some(const DsAttention& task) {
  if (task.paths == nullptr) attend_chain<kHalf, kQueries>(task);
  else attend_tree<kHalf, kQueries>(task);
}

template <bool kHalf> static void attend_all(const DsAttention& task) {
  switch (task.num_queries) {
    case 1: return attend_some<kHalf, 1>(task);
    case 2: return attend_some<kHalf, 2>(task);
    case 3: return attend_some<kHalf, 3>(task);
    case 4: return attend_some<kHalf, 4>(task);
    case 5: return attend_some<kHalf, 5>(task);
    case 6: return attend_some<kHalf, 6>(task);
    case 7: return attend_some<kHalf, 7>(task);
    case 8: return attend_some<kHalf, 8>(task);
    default: return;
  }
}

static void attend(const DsAttention& task, int is_half) {
  if (is_half) attend_all<true>(task);
  else attend_all<false>(task);
}

static void store_key(const float* key, int head_size, int position, int is_half, void* keys) {
  const int64_t start = static_cast<int64_t>(position / kLanes) * kLanes * head_size + position % kLanes;
  if (!is_half) {
    float* to = static_cast<float*>(keys) + start;
    for (int d = 0; d < head_size; ++d) to[static_cast<int64_t>(d) * kLanes] = key[d];
    return;
  }
  uint16_t* to = static_cast<uint16_t*>(keys) + start;
  alignas(64) uint16_t halves_of[kLanes];
  for (int d = 0; d < head_size; d += kLanes) {
    const int n = head_size - d < kLanes ? head_size - d : kLanes;
    store_half(halves_of, load_some(key + d, n));
    for (int i = 0; i < n; ++i) to[static_cast<int64_t>(d + i) * kLanes] = halves_of[i];
  }
}

static void store_value(const float* value, int head_size, int value_stride, int position,
                        int is_half, void* values) {
  const int64_t start = static_cast<int64_t>(position) * value_stride;
  for (int d = 0; d < head_size; d += kLanes) {
    const int n = head_size - d < kLanes ? head_size - d : kLanes;
    const Floats part = load_some(value + d, n);  // the padding of the last vector is zero
    if (is_half) store_half(static_cast<uint16_t*>(values) + start + d, part);
    else store(static_cast<float*>(values) + start + d, part);
  }
}

}  // namespace DS_ISA
