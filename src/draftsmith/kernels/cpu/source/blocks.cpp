// Blocks taken apart into codes and scales, and rows of them read as the file has them.
#include "blocks.h"

#include <cstring>

#include "half.h"
#include "interface.h"

namespace {

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

bool is_finite(uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

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
  for (int k = 0; k < kBlockSizes[format].weights; ++k) {
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
  const BlockSize size = kBlockSizes[w.format];
  const int num_blocks = w.num_inputs / size.weights;
  const uint8_t* p = w.data + static_cast<int64_t>(output) * num_blocks * size.bytes;
  for (int b = 0; b < num_blocks; ++b, p += size.bytes, out += size.weights) {
    if (size.weights == 1) {
      *out = read_float(w.format, p);
      continue;
    }
    Block block;
    take_apart(w.format, p, block);
    dequantise(w.format, block, out);
  }
}

}  // namespace

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

bool has_finite_scales(const Block& block) {
  return is_finite(block.scale) && is_finite(block.minimum);
}

void read_row(const DsMatrix& w, int output, float* out) {
  if (w.layout == kFileRows) read_file_row(w, output, out);
  else ds_kernels().dequantise_row(w, output, out);
}

#pragma GCC visibility push(default)
extern "C" {

// The number of the first block whose scale is not finite, or -1.
int64_t ds_find_corrupt(int format, const uint8_t* raw, int64_t num_blocks) {
  Block block;
  for (int64_t i = 0; i < num_blocks; ++i) {
    take_apart(format, raw + i * kBlockSizes[format].bytes, block);
    if (!has_finite_scales(block)) return i;
  }
  return -1;
}

}  // extern "C"
#pragma GCC visibility pop
