// The blocks of a GGUF file. See ggml's definitions:
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "types.h"

constexpr int kLargestBlock = 256;

struct BlockSize {
  int weights, bytes;
};

constexpr BlockSize kBlockSizes[kNumFormats] = {
    {1, 4},   {1, 2},   {1, 2},     {32, 34},   {32, 18},   {32, 20},
    {32, 22}, {32, 24}, {256, 144}, {256, 176}, {256, 210},
};

// One block of one output, taken apart.
struct Block {
  uint8_t codes[kLargestBlock];
  uint16_t scale, minimum;     // float16, as in the file
  uint8_t scales[16];          // of groups, or of half groups
  uint8_t minimums[8];
};

void take_apart(int format, const uint8_t* p, Block& block);

// Whether its scale and minimum are finite.
bool has_finite_scales(const Block& block);
