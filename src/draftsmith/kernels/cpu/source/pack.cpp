// GGUF blocks into the tiles of formats.h, without loss. See ggml's block definitions:
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#include <algorithm>
#include <atomic>
#include <cstring>

#include "half.h"
#include "interface.h"

namespace {

constexpr int kLargestBlock = 256;

// One block of one output, taken apart.
struct Block {
  uint8_t codes[kLargestBlock];
  uint16_t scale, minimum;     // float16, as in the file
  uint8_t scales[16];          // of groups, or of half groups
  uint8_t minimums[8];
};

struct Layout {
  int weights;        // of a block
  int file_bytes;     // of a block
  int tile_bytes;     // of 16 blocks, packed
  int head_bytes;     // before the codes, packed
  int bits;           // of a code
};

constexpr Layout kLayouts[kNumFormats] = {
    {1, 4, 64, 0, 0},        {1, 2, 32, 0, 0},        {1, 2, 32, 0, 0},
    {32, 34, 544, 32, 8},    {32, 18, 288, 32, 4},    {32, 20, 320, 64, 4},
    {32, 22, 352, 32, 5},    {32, 24, 384, 64, 5},    {256, 144, 2368, 320, 4},
    {256, 176, 2880, 320, 5}, {256, 210, 3360, 288, 6},
};

uint16_t read16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

void nibbles(const uint8_t* p, uint8_t* codes) {  // 16 bytes: inputs 0-15 low, 16-31 high
  for (int i = 0; i < 16; ++i) {
    codes[i] = p[i] & 15;
    codes[i + 16] = p[i] >> 4;
  }
}

void fifth_bits(const uint8_t* p, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, p, 4);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((bits >> i) & 1u) << 4);
}

// The 6-bit scales and minimums of Q4_K and Q5_K, which share 12 bytes.
void two_levels(const uint8_t* p, Block& block) {
  for (int g = 0; g < 4; ++g) {
    block.scales[g] = p[g] & 63;
    block.minimums[g] = p[g + 4] & 63;
    block.scales[g + 4] = static_cast<uint8_t>((p[g + 8] & 15) | ((p[g] >> 6) << 4));
    block.minimums[g + 4] = static_cast<uint8_t>((p[g + 8] >> 4) | ((p[g + 4] >> 6) << 4));
  }
}

void take_apart(int format, const uint8_t* p, Block& block) {
  block.scale = block.minimum = 0;
  switch (format) {
    case kQ8_0:
      block.scale = read16(p);
      for (int i = 0; i < 32; ++i) block.codes[i] = p[2 + i] ^ 0x80;
      break;
    case kQ4_0:
      block.scale = read16(p);
      nibbles(p + 2, block.codes);
      break;
    case kQ4_1:
      block.scale = read16(p);
      block.minimum = read16(p + 2);
      nibbles(p + 4, block.codes);
      break;
    case kQ5_0:
      block.scale = read16(p);
      nibbles(p + 6, block.codes);
      fifth_bits(p + 2, block.codes);
      break;
    case kQ5_1:
      block.scale = read16(p);
      block.minimum = read16(p + 2);
      nibbles(p + 8, block.codes);
      fifth_bits(p + 4, block.codes);
      break;
    case kQ4_K:
    case kQ5_K: {
      block.scale = read16(p);
      block.minimum = read16(p + 2);
      two_levels(p + 4, block);
      const uint8_t* low = p + (format == kQ4_K ? 16 : 48);
      for (int chunk = 0; chunk < 4; ++chunk)
        for (int i = 0; i < 32; ++i) {
          uint8_t one = low[32 * chunk + i] & 15, two = low[32 * chunk + i] >> 4;
          if (format == kQ5_K) {
            one |= static_cast<uint8_t>(((p[16 + i] >> (2 * chunk)) & 1) << 4);
            two |= static_cast<uint8_t>(((p[16 + i] >> (2 * chunk + 1)) & 1) << 4);
          }
          block.codes[64 * chunk + i] = one;
          block.codes[64 * chunk + 32 + i] = two;
        }
      break;
    }
    case kQ6_K:
      for (int half = 0; half < 2; ++half) {
        const uint8_t* low = p + 64 * half;
        const uint8_t* high = p + 128 + 32 * half;
        uint8_t* codes = block.codes + 128 * half;
        for (int i = 0; i < 32; ++i) {
          codes[i] = static_cast<uint8_t>((low[i] & 15) | ((high[i] & 3) << 4));
          codes[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4));
          codes[i + 64] = static_cast<uint8_t>((low[i] >> 4) | (((high[i] >> 4) & 3) << 4));
          codes[i + 96] = static_cast<uint8_t>((low[i + 32] >> 4) | ((high[i] >> 6) << 4));
        }
      }
      std::memcpy(block.scales, p + 192, 16);
      block.scale = read16(p + 208);
      break;
    default:
      break;
  }
}

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

bool is_finite(uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

void pack_floats(int format, const uint8_t* raw, int outputs, int inputs, int tile, uint8_t* out) {
  const int size = kLayouts[format].file_bytes;
  std::memset(out, 0, static_cast<size_t>(inputs) * kTile * size);
  for (int i = 0; i < std::min(kTile, outputs - tile * kTile); ++i) {
    const uint8_t* row = raw + static_cast<int64_t>(tile * kTile + i) * inputs * size;
    for (int k = 0; k < inputs; ++k)
      std::memcpy(out + (static_cast<int64_t>(k) * kTile + i) * size, row + static_cast<int64_t>(k) * size, size);
  }
}

// The number of the first bad block, or -1.
int64_t pack_blocks(int format, const uint8_t* raw, int outputs, int inputs, int tile, uint8_t* out) {
  const Layout& layout = kLayouts[format];
  const int num_blocks = inputs / layout.weights;
  Block blocks[kTile];
  for (int b = 0; b < num_blocks; ++b, out += layout.tile_bytes) {
    for (int i = 0; i < kTile; ++i) {
      const int output = tile * kTile + i;
      if (output >= outputs) {
        std::memset(&blocks[i], 0, sizeof(Block));
        continue;
      }
      const int64_t number = static_cast<int64_t>(output) * num_blocks + b;
      take_apart(format, raw + number * layout.file_bytes, blocks[i]);
      if (!is_finite(blocks[i].scale) || !is_finite(blocks[i].minimum)) return number;
    }
    put_head(blocks, format, out);
    const int group_bytes = (layout.tile_bytes - layout.head_bytes) / (layout.weights / 32);
    for (int g = 0; g < layout.weights / 32; ++g)
      put_group(blocks, g, layout.bits, out + layout.head_bytes + g * group_bytes);
  }
  return -1;
}

float read_float(int format, const uint8_t* p) {
  if (format == kF16) return float_from_half(read16(p));
  if (format == kBF16) return float_from_bfloat(read16(p));
  float value;
  std::memcpy(&value, p, 4);
  return value;
}

// The weights of a block, as the format defines them.
void dequantise(int format, const Block& block, float* out) {
  const int offset = format == kQ8_0 ? 128 : format == kQ4_0 ? 8 : format == kQ5_0 ? 16 : format == kQ6_K ? 32 : 0;
  const float scale = float_from_half(block.scale), minimum = float_from_half(block.minimum);
  for (int k = 0; k < kLayouts[format].weights; ++k) {
    const float code = static_cast<float>(block.codes[k] - offset);
    switch (format) {
      case kQ4_1:
      case kQ5_1:
        out[k] = scale * code + minimum;
        break;
      case kQ4_K:
      case kQ5_K:
        out[k] = scale * static_cast<float>(block.scales[k / 32]) * code -
                 minimum * static_cast<float>(block.minimums[k / 32]);
        break;
      case kQ6_K:
        out[k] = scale * static_cast<float>(static_cast<int8_t>(block.scales[k / 16])) * code;
        break;
      default:
        out[k] = scale * code;
    }
  }
}

void read_file_row(const DsMatrix& w, int output, float* out) {
  const Layout& layout = kLayouts[w.format];
  const int num_blocks = w.num_inputs / layout.weights;
  const uint8_t* p = w.data + static_cast<int64_t>(output) * num_blocks * layout.file_bytes;
  for (int b = 0; b < num_blocks; ++b, p += layout.file_bytes, out += layout.weights) {
    if (layout.weights == 1) {
      *out = read_float(w.format, p);
      continue;
    }
    Block block;
    take_apart(w.format, p, block);
    dequantise(w.format, block, out);
  }
}

int64_t tile_bytes(int format, int inputs) {
  return static_cast<int64_t>(inputs / kLayouts[format].weights) * kLayouts[format].tile_bytes;
}

}  // namespace

void read_row(const DsMatrix& w, int output, float* out) {
  if (w.layout == kFileRows) read_file_row(w, output, out);
  else ds_kernels().dequantise_row(w, output, out);
}

#pragma GCC visibility push(default)
extern "C" {

int ds_block_weights(int format) { return kLayouts[format].weights; }
int ds_block_bytes(int format) { return kLayouts[format].file_bytes; }

int64_t ds_packed_bytes(int format, int outputs, int inputs) {
  return (outputs + kTile - 1) / kTile * tile_bytes(format, inputs);
}

// The number of the first block whose scale is not finite, or -1.
int64_t ds_find_corrupt(int format, const uint8_t* raw, int64_t num_blocks) {
  Block block;
  for (int64_t i = 0; i < num_blocks; ++i) {
    take_apart(format, raw + i * kLayouts[format].file_bytes, block);
    if (!is_finite(block.scale) || !is_finite(block.minimum)) return i;
  }
  return -1;
}

int64_t ds_pack(int format, const uint8_t* raw, int outputs, int inputs, uint8_t* out) {
  const int64_t stride = tile_bytes(format, inputs);
  std::atomic<int64_t> bad{-1};
  parallel((outputs + kTile - 1) / kTile, 4, [&](int64_t tile) {
    if (kLayouts[format].weights == 1) {
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
