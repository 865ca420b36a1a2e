// Selection without sorting: where to cut a row so that the largest values make a count or a mass.
#pragma once

#include "sampling_lanes.h"

namespace DS_ISA {

// Keeps every key above `key`, and the first `ties` of those equal to it.
struct Cut {
  uint32_t key;
  int ties;
};

constexpr int kFew = 64;  // keys that are sorted rather than counted

DS_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
DS_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
// Unsigned integers in the order of the floats; -0 is 0.
DS_INLINE uint32_t ordered(float value) {
  const uint32_t bits = bits_of(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DS_INLINE float from_ordered(uint32_t key) {
  return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// What a key counts for: one, or the mass whose bits it is.
template <bool kByMass> DS_INLINE double worth(uint32_t key) {
  return kByMass ? static_cast<double>(float_of(key)) : 1.0;
}

static void sort_descending(uint32_t* keys, int count) {
  for (int i = 1; i < count; ++i) {
    const uint32_t key = keys[i];
    int at = i;
    for (; at > 0 && keys[at - 1] < key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
  }
}

// The bucket in which the running sum from the top, `above` included, comes to `wanted`; the last
// one in use if it never does. `above` becomes the sum before it.
static int crossing(const double* sums, double wanted, double* above) {
  int bucket = kBuckets - 1;
  double before = *above, running = *above;
  for (int b = kBuckets - 1; b >= 0; --b) {
    if (sums[b] == 0) continue;
    bucket = b;
    before = running;
    running += sums[b];
    if (running >= wanted) break;
  }
  *above = before;
  return bucket;
}

// The fewest of `most` equal worths that, with `above`, come to `wanted`; `most` if all are short.
static int ties_needed(double above, double worth, int most, double wanted) {
  const double estimate = __builtin_ceil((wanted - above) / worth);
  int ties = estimate < 1 ? 1 : estimate > most ? most : static_cast<int>(estimate);
  while (ties > 1 && above + (ties - 1) * worth >= wanted) --ties;
  while (ties < most && above + ties * worth < wanted) ++ties;
  return ties;
}

// Where to cut so that the largest keys are the fewest that come to `wanted`, by count or by mass.
// Digit by digit: a histogram of the keys that share the digits so far.
template <bool kByMass>
static Cut select(const uint32_t* keys, int count, double wanted, uint32_t* spare, double* sums) {
  double above = 0;
  for (int shift = 21; count > kFew && shift >= -1; shift -= 11) {
    const int by = shift < 0 ? 0 : shift;
    std::memset(sums, 0, sizeof(double) * kBuckets);
    for (int i = 0; i < count; ++i) sums[(keys[i] >> by) % kBuckets] += worth<kByMass>(keys[i]);
    const uint32_t bucket = static_cast<uint32_t>(crossing(sums, wanted, &above));
    int left = 0;
    for (int i = 0; i < count; ++i) {
      const uint32_t key = keys[i];
      spare[left] = key;
      left += (key >> by) % kBuckets == bucket;
    }
    keys = spare;
    count = left;
  }
  if (keys != spare) std::memcpy(spare, keys, sizeof(uint32_t) * static_cast<size_t>(count));
  if (count <= kFew) sort_descending(spare, count);  // else all are equal
  Cut cut = {0, count};
  for (int i = 0, size; i < count; i += size) {
    for (size = 1; i + size < count && spare[i + size] == spare[i];) ++size;
    const double each = worth<kByMass>(spare[i]);
    cut = {spare[i], ties_needed(above, each, size, wanted)};
    if (above + size * each >= wanted) break;
    above += size * each;
  }
  return cut;
}

// Drops what the cut does not keep, in place; returns how many are left.
static int keep(const Cut& cut, DsScratch& s, int count) {
  int left = 0, ties = cut.ties;
  for (int i = 0; i < count; ++i) {
    const bool is_tie = s.keys[i] == cut.key;
    s.ids[left] = s.ids[i];
    s.values[left] = s.values[i];
    left += s.keys[i] > cut.key || (is_tie && ties > 0);
    ties -= is_tie;
  }
  return left;
}

// Appends the values from `first` to `last` that are at least `bound`, in order.
static int gather(const float* values, int first, int last, float bound, int count, DsScratch& s) {
  for (int i = first; i < last; i += kLanes) {
    const Floats x = load_or(values + i, last - i, 0.0f);
    const uint32_t valid = last - i < kLanes ? (1u << (last - i)) - 1u : 0xffffu;
    const uint32_t chosen = at_least(x, splat(bound)) & valid;
    if (chosen != 0) count += compress(chosen, x, i, s.values + count, s.ids + count);
  }
  return count;
}

}  // namespace DS_ISA
