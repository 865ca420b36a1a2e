// GGUF blocks into the tiles of formats.h, without loss.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "blocks.h"
#include "interface.h"

namespace {

// 16 blocks, one of each output of a tile.
struct Packed {
  int bytes;
  int head_bytes;  // before the codes
  int bits;        // of a code
};

constexpr Packed kPacked[kNumFormats] = {
    {64, 0, 0},   {32, 0, 0},   {32, 0, 0},     {544, 32, 8},   {288, 32, 4},   {320, 64, 4},
    {352, 32, 5}, {384, 64, 5}, {2368, 320, 4}, {2880, 320, 5}, {3360, 288, 6},
};

// Four codes of each of 16 outputs.
void read_quad(const Block* blocks, int group, int quad, uint32_t* words) {
  for (int i = 0; i < kTile; ++i) std::memcpy(&words[i], blocks[i].codes + 32 * group + 4 * quad, 4);
}

void put_group(const Block* blocks, int group, int bits, uint8_t* out) {
  uint32_t quads[8][kTile], words[kTile];
  for (int j = 0; j < 8; ++j) read_quad(blocks, group, j, quads[j]);
  if (bits == 8) {
    std::memcpy(out, quads, sizeof quads);
    return;
  }
  for (int j = 0; j < 4; ++j, out += 64) {
    for (int i = 0; i < kTile; ++i)
      words[i] = (quads[j][i] & 0x0f0f0f0fu) | ((quads[j + 4][i] & 0x0f0f0f0fu) << 4);
    std::memcpy(out, words, 64);
  }
  if (bits == 5) {
    std::memset(words, 0, sizeof words);
    for (int j = 0; j < 8; ++j)
      for (int i = 0; i < kTile; ++i) words[i] |= ((quads[j][i] >> 4) & 0x01010101u) << j;
    std::memcpy(out, words, 64);
  }
  if (bits == 6)
    for (int plane = 0; plane < 2; ++plane, out += 64) {
      std::memset(words, 0, sizeof words);
      for (int j = 0; j < 4; ++j)
        for (int i = 0; i < kTile; ++i)
          words[i] |= ((quads[4 * plane + j][i] >> 4) & 0x03030303u) << (2 * j);
      std::memcpy(out, words, 64);
    }
}

void put_head(const Block* blocks, int format, uint8_t* out) {
  uint16_t* numbers = reinterpret_cast<uint16_t*>(out);
  for (int i = 0; i < kTile; ++i) numbers[i] = blocks[i].scale;
  if (format == kQ6_K) {
    for (int h = 0; h < 16; ++h)
      for (int i = 0; i < kTile; ++i) out[32 + 16 * h + i] = blocks[i].scales[h];
    return;
  }
  if (format == kQ8_0 || format == kQ4_0 || format == kQ5_0) return;
  for (int i = 0; i < kTile; ++i) numbers[16 + i] = blocks[i].minimum;
  if (format != kQ4_K && format != kQ5_K) return;
  for (int g = 0; g < 8; ++g)
    for (int i = 0; i < kTile; ++i) {
      out[64 + 32 * g + i] = blocks[i].scales[g];
      out[80 + 32 * g + i] = blocks[i].minimums[g];
    }
}

void pack_floats(int format, const uint8_t* raw, int outputs, int inputs, int tile, uint8_t* out) {
  const int size = kBlockSizes[format].bytes;
  std::memset(out, 0, static_cast<size_t>(inputs) * kTile * size);
  for (int i = 0; i < std::min(kTile, outputs - tile * kTile); ++i) {
    const uint8_t* row = raw + static_cast<int64_t>(tile * kTile + i) * inputs * size;
    for (int k = 0; k < inputs; ++k)
      std::memcpy(out + (static_cast<int64_t>(k) * kTile + i) * size, row + static_cast<int64_t>(k) * size, size);
  }
}

// The number of the first bad block, or -1.
int64_t pack_blocks(int format, const uint8_t* raw, int outputs, int inputs, int tile, uint8_t* out) {
  const BlockSize block = kBlockSizes[format];
  const Packed& packed = kPacked[format];
  const int num_blocks = inputs / block.weights, num_groups = block.weights / kGroup;
  const int group_bytes = (packed.bytes - packed.head_bytes) / num_groups;
  Block blocks[kTile];
  for (int b = 0; b < num_blocks; ++b, out += packed.bytes) {
    for (int i = 0; i < kTile; ++i) {
      const int output = tile * kTile + i;
      if (output >= outputs) {
        std::memset(&blocks[i], 0, sizeof(Block));
        continue;
      }
      const int64_t number = static_cast<int64_t>(output) * num_blocks + b;
      take_apart(format, raw + number * block.bytes, blocks[i]);
      if (!has_finite_scales(blocks[i])) return number;
    }
    put_head(blocks, format, out);
    for (int g = 0; g < num_groups; ++g)
      put_group(blocks, g, packed.bits, out + packed.head_bytes + g * group_bytes);
  }
  return -1;
}

int64_t tile_bytes(int format, int inputs) {
  return static_cast<int64_t>(inputs / kBlockSizes[format].weights) * kPacked[format].bytes;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int64_t ds_packed_bytes(int format, int outputs, int inputs) {
  return (outputs + kTile - 1) / kTile * tile_bytes(format, inputs);
}

int64_t ds_pack(int format, const uint8_t* raw, int outputs, int inputs, uint8_t* out) {
  const int64_t stride = tile_bytes(format, inputs);
  std::atomic<int64_t> bad{-1};
  parallel((outputs + kTile - 1) / kTile, 4, [&](int64_t tile) {
    if (kBlockSizes[format].weights == 1) {
      pack_floats(format, raw, outputs, inputs, static_cast<int>(tile), out + tile * stride);
      return;
    }
    const int64_t found =
        pack_blocks(format, raw, outputs, inputs, static_cast<int>(tile), out + tile * stride);
    if (found >= 0) bad = found;
  });
  return bad;
}

}  // extern "C"
#pragma GCC visibility pop
