// Sampling for Python: rows in parallel, each on one thread. Each has a plain torch twin.
#include <atomic>
#include <vector>

#include "interface.h"

namespace {

// What one thread needs for rows of n scores; kept, since every round needs it again.
DsScratch scratch(int n) {
  thread_local std::vector<float> peaks, values;
  thread_local std::vector<int32_t> ids;
  thread_local std::vector<uint32_t> keys, spare;
  thread_local std::vector<double> sums;
  const size_t spans = static_cast<size_t>((n + kSpan - 1) / kSpan);
  const size_t size = spans * kSpan + 16;
  if (values.size() < size) {
    peaks.resize(spans * (kSpan / kTile));
    values.resize(size);
    ids.resize(size);
    keys.resize(size);
    spare.resize(size);
    sums.resize(spans > kBuckets ? spans : kBuckets);
  }
  return {peaks.data(), ids.data(), values.data(), keys.data(), spare.data(), sums.data()};
}

constexpr int64_t kFewScores = 1 << 20;

template <class Body> void each_row(int num_rows, Body&& body) {
  if (num_rows == 1) return body(int64_t{0});
  parallel(num_rows, 1, body);
}

// Whose noise: counters of NoiseKeys and a round or a position.
DsCounter counter(int64_t seed, int64_t sample, int64_t number, int64_t stream) {
  const uint64_t key = static_cast<uint64_t>(seed);
  return {{static_cast<uint32_t>(number), static_cast<uint32_t>(stream), static_cast<uint32_t>(sample)},
          {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}};
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// The largest score of the row at each start, ties to the lowest id; -1 for one that is no distribution.
void ds_points(const float* scores, const int64_t* starts, int num_rows, int n, int64_t* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  // A few are sooner done than other threads are awake.
  if (static_cast<int64_t>(num_rows) * n < kFewScores) {
    DsScratch s = scratch(n);
    for (int64_t row = 0; row < num_rows; ++row) out[row] = kernels.point(scores + starts[row], n, s);
    return;
  }
  each_row(num_rows, [&](int64_t row) {
    DsScratch s = scratch(n);
    out[row] = kernels.point(scores + starts[row], n, s);
  });
}

// The k < n likeliest ids of the row at each start, into rows of k, and what ds_points finds; 0 if a
// row holds NaN.
int ds_points_and_ids(const float* scores, const int64_t* starts, int num_rows, int n, int k, int64_t* points,
                      int64_t* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  std::atomic<int> is_good{1};
  const auto find = [&](int64_t row) {
    DsScratch s = scratch(n);
    const int found = kernels.top_ids(scores + starts[row], n, k, s, out + row * k);
    points[row] = found > 0 ? out[row * k] : -1;
    if (found == 0) is_good = 0;
  };
  if (static_cast<int64_t>(num_rows) * n >= kFewScores) {
    each_row(num_rows, find);
  } else {
    for (int64_t row = 0; row < num_rows; ++row) find(row);
  }
  return is_good;
}

// The law of the row at each start, by its own four numbers, into rows that lie side by side.
void ds_laws(const float* scores, const int64_t* starts, int num_rows, int n, const float* temperatures,
            const int32_t* top_ks, const double* top_ps, const float* min_ps, float* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  each_row(num_rows, [&](int64_t row) {
    DsScratch s = scratch(n);
    const DsLaw rule = {temperatures[row], top_ks[row], top_ps[row], min_ps[row]};
    kernels.law(scores + starts[row], n, rule, s, out + row * n);
  });
}

// Laws [batch, num_rows, n] race at positions[b] + first … in the coupled stream.
void ds_race(const float* laws, int batch, int num_rows, int n, const int64_t* seeds,
             const int64_t* samples, const int64_t* positions, int first, int stream, int64_t* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  each_row(batch * num_rows, [&](int64_t row) {
    const int64_t b = row / num_rows, position = positions[b] + first + row % num_rows;
    out[row] = kernels.race(laws + row * n, n, counter(seeds[b], samples[b], position, stream));
  });
}

void ds_has_mass(const float* laws, int num_rows, int n, uint8_t* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  for (int64_t row = 0; row < num_rows; ++row)
    out[row] = static_cast<uint8_t>(kernels.has_mass(laws + row * n, n));
}

void ds_draw(const float* laws, int num_rows, int n, const double* uniforms, int64_t* out) {
  const DsSampling& kernels = *ds_kernels().sampling;
  each_row(num_rows, [&](int64_t row) {
    DsScratch s = scratch(n);
    out[row] = kernels.draw(laws + row * n, n, uniforms[row], s);
  });
}

// The words of blocks 0 … num_blocks - 1, four each, for every sequence.
void ds_philox(const int64_t* seeds, const int64_t* samples, const int64_t* numbers, int batch,
               int64_t stream, int num_blocks, uint32_t* out) {
  uint32_t words[16 * 4];
  for (int b = 0; b < batch; ++b)
    for (int block = 0; block < num_blocks; ++block) {
      if (block % 16 == 0)
        ds_kernels().sampling->philox(static_cast<uint32_t>(block),
                                      counter(seeds[b], samples[b], numbers[b], stream), words);
      for (int i = 0; i < 4; ++i) *out++ = words[block % 16 * 4 + i];
    }
}

// Draws from [0, 1) with 53 random bits, [batch, count].
void ds_uniforms(const int64_t* seeds, const int64_t* samples, const int64_t* numbers, int batch,
                 int64_t stream, int count, double* out) {
  std::vector<uint32_t> words(static_cast<size_t>(batch) * static_cast<size_t>(count) * 4);
  ds_philox(seeds, samples, numbers, batch, stream, count, words.data());
  for (size_t i = 0; i < words.size() / 4; ++i) {
    const uint64_t high = words[4 * i], low = words[4 * i + 1];
    out[i] = static_cast<double>(high << 21 | low >> 11) * 0x1p-53;
  }
}

}  // extern "C"
#pragma GCC visibility pop
