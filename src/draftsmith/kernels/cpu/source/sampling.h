// Logits to laws and laws to tokens, a row at a time, in one order whatever the threads.
#pragma once

#include "selection.h"

namespace DS_ISA {

// The largest of every 16th score in each span; returns the row's largest, NaN if it has one.
static float find_peaks(const float* scores, int n, float* peaks) {
  uint32_t nans = 0;
  Floats top = splat(-INFINITY);
  for (int from = 0; from < n; from += kSpan) {
    const int last = n - from < kSpan ? n : from + kSpan;
    Floats one = splat(-INFINITY), two = one;
    int i = from;
    for (; i + 2 * kLanes <= last; i += 2 * kLanes) {
      const Floats a = load(scores + i), b = load(scores + i + kLanes);
      nans |= unordered(a, b);
      one = max(one, a);
      two = max(two, b);
    }
    for (; i < last; i += kLanes) {
      const Floats a = load_or(scores + i, last - i, -INFINITY);
      nans |= unordered(a, a);
      one = max(one, a);
    }
    one = max(one, two);
    store(peaks + from / kLanes, one);
    top = max(top, one);
  }
  return nans != 0 ? NAN : max_lanes(top);
}

static int first_of(const float* scores, int n, float value, const float* peaks) {
  int from = 0;
  while (at_least(load(peaks + from / kLanes), splat(value)) == 0) from += kSpan;
  while (from < n && scores[from] != value) ++from;
  return from;
}

static int point(const float* scores, int n, DsScratch& s) {
  const float best = find_peaks(scores, n, s.peaks);
  return __builtin_isfinite(best) ? first_of(scores, n, best, s.peaks) : -1;
}

// out = e^((scores - best) / temperature), if it is wanted; returns the sum.
template <bool kStores>
static double exponentiate(const float* scores, int n, float best, float temperature, float* out) {
  const Floats top = splat(best), by = splat(temperature);
  double total = 0;
  for (int from = 0; from < n; from += kSpan) {
    const int last = n - from < kSpan ? n : from + kSpan;
    Floats sum = splat(0.0f);
    int i = from;
    for (; i + kLanes <= last; i += kLanes) {
      const Floats weight = exp(div(sub(load(scores + i), top), by));
      if constexpr (kStores) store(out + i, weight);
      sum = add(sum, weight);
    }
    if (i < last) {
      const Floats weight = exp(div(sub(load_or(scores + i, last - i, -INFINITY), top), by));
      if constexpr (kStores) store_some(out + i, weight, last - i);
      sum = add(sum, weight);
    }
    total += static_cast<double>(sum_lanes(sum));
  }
  return total;
}

// The scores from `bound` up; spans without one are not read again.
static int gather_high(const float* scores, int n, float bound, DsScratch& s) {
  int count = 0;
  for (int from = 0; from < n; from += kSpan)
    if (at_least(load(s.peaks + from / kLanes), splat(bound)) != 0)
      count = gather(scores, from, n - from < kSpan ? n : from + kSpan, bound, count, s);
  return count;
}

// Exactly the k largest scores, ties at the cut to the lowest ids, as ids and values in order.
static int keep_largest(const float* scores, int n, int k, DsScratch& s) {
  const int num_peaks = (n + kSpan - 1) / kSpan * kLanes;
  float bound = -INFINITY;
  if (k < num_peaks) {  // each peak is a score of its own, so k scores reach the k-th peak
    for (int i = 0; i < num_peaks; ++i) s.keys[i] = ordered(s.peaks[i]);
    bound = from_ordered(select<false>(s.keys, num_peaks, k, s.spare, s.sums).key);
  }
  const int count = gather_high(scores, n, bound, s);
  for (int i = 0; i < count; ++i) s.keys[i] = ordered(s.values[i]);
  return keep(select<false>(s.keys, count, k, s.spare, s.sums), s, count);
}

// A score below which top-p and min-p keep nothing: what is left out has less than 1 - top_p.
static float lowest_candidate(int n, float best, double total, const DsLaw& rule) {
  constexpr double kMargin = 1e-5;
  const double tail = rule.top_p < 1 ? (1 - rule.top_p) * total / n : 0;
  const double weight = tail > rule.min_p ? tail : rule.min_p;  // the largest weight is 1
  const double depth = -__builtin_log(weight > FLT_MIN ? weight : FLT_MIN) + kMargin;
  const double top = static_cast<double>(best), slack = __builtin_fabs(top) * kMargin;
  return static_cast<float>(top - depth * static_cast<double>(rule.temperature) - slack);
}

// Top-p, then min-p, of `count` weights out of a whole of `total`.
static int cut_tail(int count, double total, const DsLaw& rule, DsScratch& s) {
  const float whole = static_cast<float>(total);
  for (int i = 0; i < count; ++i) s.keys[i] = bits_of(s.values[i] / whole);
  if (rule.top_p < 1)
    count = keep(select<true>(s.keys, count, rule.top_p, s.spare, s.sums), s, count);
  if (rule.min_p <= 0) return count;
  const float bound = rule.min_p * (1.0f / whole);
  int left = 0;
  for (int i = 0; i < count; ++i) {
    s.ids[left] = s.ids[i];
    s.values[left] = s.values[i];
    left += s.values[i] / whole >= bound;
  }
  return left;
}

static void scale(float* values, int n, double total) {
  const float factor = static_cast<float>(1 / total);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) store(values + i, mul(load(values + i), splat(factor)));
  for (; i < n; ++i) values[i] *= factor;
}

// In 16 parts, in double: the same sum whatever the instruction set.
static double sum_of(const float* values, int n) {
  double parts[kLanes] = {0};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) parts[lane] += static_cast<double>(values[i + lane]);
  for (; i < n; ++i) parts[i % kLanes] += static_cast<double>(values[i]);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) parts[lane] += parts[lane + width];
  return parts[0];
}

static void law(const float* scores, int n, const DsLaw& rule, DsScratch& s, float* out) {
  const size_t bytes = sizeof(float) * static_cast<size_t>(n);
  const float best = find_peaks(scores, n, s.peaks);
  if (!__builtin_isfinite(best)) {
    std::memset(out, 0, bytes);
    return;
  }
  const bool with_tail = rule.top_p < 1 || rule.min_p > 0;
  int count;
  double total;
  if (rule.top_k > 0 && rule.top_k < n) {
    count = keep_largest(scores, n, rule.top_k, s);
    total = exponentiate<true>(s.values, count, best, rule.temperature, s.values);
  } else if (with_tail) {
    total = exponentiate<false>(scores, n, best, rule.temperature, nullptr);
    count = gather_high(scores, n, lowest_candidate(n, best, total, rule), s);
    exponentiate<true>(s.values, count, best, rule.temperature, s.values);
  } else {
    return scale(out, n, exponentiate<true>(scores, n, best, rule.temperature, out));
  }
  if (with_tail) {
    count = cut_tail(count, total, rule, s);
    total = sum_of(s.values, count);
  }
  scale(s.values, count, total);
  std::memset(out, 0, bytes);
  for (int i = 0; i < count; ++i) out[s.ids[i]] = s.values[i];
}

static void philox(uint32_t first_block, const DsCounter& counter, uint32_t* words) {
  Ints w[4];
  philox_blocks(first_block, counter, w);
  for (int i = 0; i < 4; ++i) store(reinterpret_cast<int32_t*>(words) + kLanes * i, w[i]);
}

// The exponential of a 32-bit word: -log(1 - u), u in steps of 2^-32 and never 0 or 1.
DS_INLINE float exponential(uint32_t word) {
  const float fraction = static_cast<float>(word) * 0x1p-32f + 0x1p-33f;
  const float below_one = fraction < 1 - 0x1p-24f ? fraction : 1 - 0x1p-24f;
  return static_cast<float>(-__builtin_log1p(-static_cast<double>(below_one)));
}

// No logarithm unless a token can win: the noise of u is at least u, and u at least 2^-33.
static int race(const float* law, int n, const DsCounter& counter) {
  constexpr float kMargin = 1 + 1e-5f, kLeast = 0x1p-33f;
  float best = INFINITY, reach = INFINITY;
  int winner = 0;
  for (int from = 0; from < n; from += 4 * kLanes) {
    Floats limits[4];
    uint32_t can_win = 0;
    for (int j = 0; j < 4; ++j) {
      const int first = from + j * kLanes;
      limits[j] = first < n ? mul(load_or(law + first, n - first, 0.0f), splat(reach)) : splat(0.0f);
      can_win |= at_least(limits[j], splat(kLeast));
    }
    if (can_win == 0) continue;
    Ints words[4];
    philox_blocks(static_cast<uint32_t>(from / 4), counter, words);
    for (int j = 0; j < 4; ++j) {
      const Floats fraction = mul(to_floats_unsigned(words[j]), splat(0x1p-32f));
      uint32_t open = at_least(limits[j], fraction) & at_least(limits[j], splat(kLeast));
      if (open == 0) continue;
      alignas(64) int32_t word[kLanes];
      store(word, words[j]);
      for (; open != 0; open &= open - 1) {
        const int lane = __builtin_ctz(open), token = from + j * kLanes + lane;
        const float arrival = exponential(static_cast<uint32_t>(word[lane])) / law[token];
        if (arrival < best) {
          best = arrival;
          winner = token;
        }
      }
      reach = best * kMargin;
    }
  }
  return winner;
}

static int has_mass(const float* law, int n) {
  const Floats least = splat(FLT_TRUE_MIN);
  for (int from = 0; from < n; from += kSpan) {
    const int last = n - from < kSpan ? n : from + kSpan;
    uint32_t found = 0;
    for (int i = from; i < last; i += kLanes) found |= at_least(load_or(law + i, last - i, 0.0f), least);
    if (found != 0) return 1;
  }
  return 0;
}

// Span by span, then token by token in the span that decides; n without mass.
static int draw(const float* law, int n, double uniform, DsScratch& s) {
  double total = 0;
  for (int from = 0; from < n; from += kSpan)
    s.sums[from / kSpan] = total += sum_of(law + from, n - from < kSpan ? n - from : kSpan);
  // The product may round up to the total, past the last token.
  const double product = uniform * total, below_total = __builtin_nextafter(total, 0.0);
  const double threshold = product < below_total ? product : below_total;
  int from = 0;
  while (from < n && !(s.sums[from / kSpan] > threshold)) from += kSpan;
  double cumulative = from == 0 ? 0 : s.sums[from / kSpan - 1];
  int last = n;  // the span's last token with mass: rounding may leave the running sum short
  for (int i = from; i < n && i < from + kSpan; ++i) {
    if (law[i] > 0) last = i;
    cumulative += static_cast<double>(law[i]);
    if (cumulative > threshold) return i;
  }
  return last;
}

}  // namespace DS_ISA
