// Single kernels for Python: each has a plain torch twin.
#include <vector>

#include "interface.h"

#pragma GCC visibility push(default)
extern "C" {

// y[m, n] = sum over k of x[m, k] w[n, k]; x is [rows, num_inputs], y [rows, num_outputs].
void ds_multiply(const DsMatrix* w, const float* x, int num_rows, float* y, int exact) {
  const DsKernels& kernels = ds_kernels();
  const int64_t size = w->num_inputs, groups = size / kGroup;
  const bool with_codes = w->format > kBF16 && !exact;
  std::vector<int8_t> codes;
  std::vector<float> scales, sums;
  std::vector<int32_t> negated;
  if (with_codes) {
    codes.resize(static_cast<size_t>(num_rows * size));
    sums.resize(static_cast<size_t>(num_rows * groups));
    scales.resize(2 * sums.size());
    negated.resize(2 * sums.size());
    parallel(num_rows, 1, [&](int64_t m) {
      kernels.quantise(x + m * size, static_cast<int>(groups), codes.data() + m * size,
                       scales.data() + 2 * m * groups, sums.data() + m * groups,
                       negated.data() + 2 * m * groups);
    });
  }
  const DsRows in = {num_rows, x, size, with_codes ? codes.data() : nullptr, size, scales.data(),
                     sums.data(), negated.data(), groups};
  const int64_t tiles = (w->num_outputs + kTile - 1) / kTile;
  Crew crew;
  std::vector<float> scratch(static_cast<size_t>(kTile * num_rows * crew.size()));
  crew.run([&](Team& team, int thread) {
    float* out = scratch.data() + static_cast<int64_t>(kTile) * num_rows * thread;
    team.loop(tiles, tiles / (8 * team.size()) + 1, [&](int64_t tile) {
      kernels.multiply_tile(*w, static_cast<int>(tile), in, out);
      const int64_t first = tile * kTile;
      for (int m = 0; m < num_rows; ++m)
        for (int64_t i = 0; i < kTile && first + i < w->num_outputs; ++i)
          y[m * w->num_outputs + first + i] = out[kTile * m + i];
    });
  });
}

void ds_dequantise_rows(const DsMatrix* w, const int64_t* ids, int64_t count, float* out) {
  parallel(count, 4, [&](int64_t i) {
    read_row(*w, static_cast<int>(ids[i]), out + i * w->num_inputs);
  });
}

void ds_rms_norm(const float* x, const float* weight, int rows, int size, float epsilon, float* out) {
  for (int m = 0; m < rows; ++m)
    ds_kernels().rms_norm(x + static_cast<int64_t>(m) * size, weight, size, epsilon,
                          out + static_cast<int64_t>(m) * size);
}

void ds_rotate(float* x, const float* cosines, const float* sines, int rows, int head_size) {
  const int half = head_size / 2;
  for (int m = 0; m < rows; ++m)
    ds_kernels().rotate(x + static_cast<int64_t>(m) * head_size, cosines + static_cast<int64_t>(m) * half,
                        sines + static_cast<int64_t>(m) * half, half);
}

void ds_swiglu(const float* gate, const float* up, int64_t size, float* out) {
  ds_kernels().swiglu(gate, up, static_cast<int>(size), out);
}

void ds_store(const float* key, const float* value, int head_size, int value_stride, int position,
              int is_half, void* keys, void* values) {
  ds_kernels().store_key(key, head_size, position, is_half, keys);
  ds_kernels().store_value(value, head_size, value_stride, position, is_half, values);
}

// Queries [num_queries, head_size] of one head, each with its visible positions.
void ds_attend(const float* queries, const int* first, const int* last, int num_queries,
               int head_size, int value_stride, float scale, int is_half, const void* keys,
               const void* values, float* out) {
  int longest = 0;
  for (int q = 0; q < num_queries; ++q) longest = last[q] > longest ? last[q] : longest;
  const int64_t stride = (longest + 15) / 16 * 16;
  std::vector<float> scores(static_cast<size_t>(kMostQueries * stride));
  for (int from = 0; from < num_queries; from += kMostQueries) {
    const int count = num_queries - from < kMostQueries ? num_queries - from : kMostQueries;
    const float* rows[kMostQueries];
    float* outputs[kMostQueries];
    for (int q = 0; q < count; ++q) {
      rows[q] = queries + static_cast<int64_t>(from + q) * head_size;
      outputs[q] = out + static_cast<int64_t>(from + q) * head_size;
    }
    ds_kernels().attend({rows, outputs, first + from, last + from, count, head_size, value_stride,
                         scale, keys, values, scores.data(), stride, nullptr, 0},
                        is_half);
  }
}

}  // extern "C"
#pragma GCC visibility pop
