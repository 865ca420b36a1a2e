// What one instruction set offers, and the choice among them.
#pragma once

#include <cstdint>

#include "pool.h"
#include "sampling_interface.h"
#include "types.h"

// Keys of one head of one sequence lie in blocks of 16 positions, [block][head_size][16]; values
// in rows, [position][value_stride]. Both are float or float16.
struct DsAttention {
  const float* const* queries;  // [num_queries] of [head_size]
  float* const* outputs;        // [num_queries] of [head_size]
  const int* first;             // first visible position of each query
  const int* last;              // one past the last visible position
  int num_queries;              // at most kMostQueries
  int head_size;
  int value_stride;
  float scale;
  const void* keys;
  const void* values;
  float* scores;                // scratch: num_queries * (slots, or last, rounded up to 16)
  int64_t score_stride;
  const int* const* paths;      // of a tree: for each query the slots of its positions from `past`
                                // on; null where position and slot are the same
  int past;
};

constexpr int kMostQueries = 8;

struct DsKernels {
  const char* name;
  // 16 outputs of every row, [num_rows, 16].
  void (*multiply_tile)(const DsMatrix&, int tile, const DsRows&, float* out);
  void (*dequantise_row)(const DsMatrix&, int output, float* out);  // of tiles
  void (*quantise)(const float* x, int num_groups, int8_t* codes, float* scales, float* sums,
                   int32_t* negated);
  // out = weight * x / sqrt(mean(x^2) + epsilon)
  void (*rms_norm)(const float* x, const float* weight, int size, float epsilon, float* out);
  // Element i with element i + half.
  void (*rotate)(float* x, const float* cosines, const float* sines, int half);
  // out = up * gate / (1 + e^-gate)
  void (*swiglu)(const float* gate, const float* up, int size, float* out);
  void (*store_key)(const float* key, int head_size, int position, int is_half, void* keys);
  void (*store_value)(const float* value, int head_size, int value_stride, int position,
                      int is_half, void* values);
  void (*attend)(const DsAttention&, int is_half);
  const DsSampling* sampling;
};

// One row of weights in float, whatever the layout.
void read_row(const DsMatrix& w, int output, float* out);

// The best that this processor runs, unless another was asked for.
const DsKernels& ds_kernels();
