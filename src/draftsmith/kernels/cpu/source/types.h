// The plain C structures that Python fills in and every kernel reads.
#pragma once

#include <cstdint>

extern "C" {

// Codes of the weight formats; the order of FORMATS in matrix.py.
enum DsFormat : int32_t {
  kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K, kNumFormats
};

// Weights [num_outputs, num_inputs].
enum DsLayout : int32_t { kTiles, kFileRows };  // packed by 16 outputs, or as the file has them

struct DsMatrix {
  int32_t format;
  int32_t num_outputs;
  int32_t num_inputs;
  int32_t layout;  // products want tiles; single rows can be read from either
  const uint8_t* data;
};

struct DsProjection {
  DsMatrix matrix;
  const float* bias;  // null for none
};

}  // extern "C"

// Rows of activations, in float and, for the integer kernels, in 8 bits by half groups of 16.
struct DsRows {
  int num_rows;
  const float* values;      // [num_rows, stride]
  int64_t stride;
  const int8_t* codes;      // [num_rows, code_stride]; null where only floats are wanted
  int64_t code_stride;
  const float* scales;      // of each half group: [num_rows, 2 * group_stride]
  const float* sums;        // of the rounded values of each group: [num_rows, group_stride]
  const int32_t* negated;   // minus the sum of codes, of each half group: [num_rows, 2 * group_stride]
  int64_t group_stride;
};

constexpr int kTile = 16;    // outputs of a tile
constexpr int kGroup = 32;   // inputs of a group
