// Small-row matrix product: each weight is read once for all rows.
//
// The sums of an output run over the inputs in order, in one lane, whatever the number of rows
// and whichever thread computes them: a row's outputs have the same bits in every pass.
#pragma once

#include "formats.h"

namespace DS_ISA {

// The more rows a weight meets, the fewer weights the processor looks ahead by itself, and the later
// they are wanted: with 16 rows what was asked for too early is gone again.
template <int kRows> constexpr int ahead() { return kRows >= 16 ? 2048 : 8192; }  // bytes

// Eight-bit activations: acc += scale * a * (sum of (code - offset) * activation) + minimum * sum.
template <class Format, int kRows>
DS_INLINE void quantised_tile(const uint8_t* tile, int num_groups, const DsRows& in, int first,
                              float* out) {
  Floats acc[kRows];
  const int8_t* codes[kRows];
  for (int m = 0; m < kRows; ++m) {
    acc[m] = splat(0.0f);
    codes[m] = in.codes + (first + m) * in.code_stride;
  }
  const float* scales = in.scales + 2 * first * in.group_stride;
  const float* sums = in.sums + first * in.group_stride;
  const int32_t* negated = in.negated + 2 * first * in.group_stride;
  for (int done = 0; done < num_groups; done += Format::kGroups, tile += Format::kBytes) {
    const typename Format::Head head = Format::head(tile);
#pragma GCC unroll 1  // eight groups of eight rows would not fit the instruction cache
    for (int g = 0; g < Format::kGroups; ++g) {
      constexpr int kGroupBytes = Format::kBytes / Format::kGroups;
      prefetch(tile + ahead<kRows>() + g * kGroupBytes, kGroupBytes);
      Bytes quads[8];
      Scales weight;
      Format::codes(tile, g, quads);
      Format::scales(head, tile, g, weight);
      const int group = done + g;
#pragma GCC unroll 16
      for (int m = 0; m < kRows; ++m) {
        const int64_t at = m * in.group_stride + group;
        const int8_t* row = codes[m] + 32 * group;
        Ints low = splat(0), high = splat(0);
        if constexpr (Format::kOffsetBits >= 0) {
          low = shift_left<(Format::kOffsetBits >= 0 ? Format::kOffsetBits : 0)>(splat(negated[2 * at]));
          high = shift_left<(Format::kOffsetBits >= 0 ? Format::kOffsetBits : 0)>(splat(negated[2 * at + 1]));
        }
        for (int j = 0; j < 4; ++j) {
          low = dot<Format::kWide>(low, quads[j], row + 4 * j);
          high = dot<Format::kWide>(high, quads[j + 4], row + 16 + 4 * j);
        }
        const Floats one = splat(scales[2 * at]), two = splat(scales[2 * at + 1]);
        if constexpr (Format::kHalves) {
          acc[m] = fma(to_floats(low), mul(weight.scale[0], one), acc[m]);
          acc[m] = fma(to_floats(high), mul(weight.scale[1], two), acc[m]);
        } else {
          acc[m] = fma(fma(to_floats(low), one, mul(to_floats(high), two)), weight.scale[0], acc[m]);
        }
        if constexpr (Format::kHasMinimum) acc[m] = fma(weight.minimum, splat(sums[at]), acc[m]);
      }
    }
  }
  for (int m = 0; m < kRows; ++m) store(out + kTile * m, acc[m]);
}

// The weight itself, as the file defines it: no fused product, whose bits would differ.
template <class Format> DS_INLINE Floats dequantised(Bytes quad, int b, int j, const Scales& s) {
  const Floats scale = Format::kHalves && j >= 4 ? s.scale[1] : s.scale[0];
  Ints code = byte_of(quad, b);
  if constexpr (Format::kOffsetBits >= 0) code = add(code, splat(-(1 << (Format::kOffsetBits >= 0 ? Format::kOffsetBits : 0))));
  const Floats product = mul(scale, to_floats(code));
  if constexpr (Format::kHasMinimum) return add(product, s.minimum);
  return product;
}

// Float activations over quantised weights.
template <class Format, int kRows>
DS_INLINE void dequantised_tile(const uint8_t* tile, int num_groups, const DsRows& in, int first,
                                float* out) {
  Floats acc[kRows];
  for (int m = 0; m < kRows; ++m) acc[m] = splat(0.0f);
  const float* values = in.values + first * in.stride;
  for (int done = 0; done < num_groups; done += Format::kGroups, tile += Format::kBytes) {
    const typename Format::Head head = Format::head(tile);
#pragma GCC unroll 1  // eight groups of eight rows would not fit the instruction cache
    for (int g = 0; g < Format::kGroups; ++g) {
      Bytes quads[8];
      Scales weight;
      Format::codes(tile, g, quads);
      Format::scales(head, tile, g, weight);
      const float* x = values + 32 * (done + g);
      for (int j = 0; j < 8; ++j)
        for (int b = 0; b < 4; ++b) {
          const Floats w = dequantised<Format>(quads[j], b, j, weight);
#pragma GCC unroll 16
          for (int m = 0; m < kRows; ++m) acc[m] = fma(w, splat(x[m * in.stride + 4 * j + b]), acc[m]);
        }
    }
  }
  for (int m = 0; m < kRows; ++m) store(out + kTile * m, acc[m]);
}

template <class Format, int kRows>
DS_INLINE void float_tile(const uint8_t* tile, int num_inputs, const DsRows& in, int first,
                          float* out) {
  Floats acc[kRows];
  for (int m = 0; m < kRows; ++m) acc[m] = splat(0.0f);
  const float* values = in.values + first * in.stride;
  for (int k = 0; k < num_inputs; ++k, tile += Format::kBytes) {
    const Floats w = Format::read(tile);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) acc[m] = fma(w, splat(values[m * in.stride + k]), acc[m]);
  }
  for (int m = 0; m < kRows; ++m) store(out + kTile * m, acc[m]);
}

// A check of 8 drafts must not pay for two sweeps; the other paths save on compiled code.
#if defined(__AVX512VNNI__)
constexpr int kMostAtOnce = 12;
#else
constexpr int kMostAtOnce = 8;
#endif

template <class Format> struct Quantised {
  static constexpr int kMost = kMostAtOnce;
  static constexpr bool kIsHot = true;
  static constexpr int kTileUnit = Format::kBytes, kInputsPerUnit = 32 * Format::kGroups;
  template <int kRows>
  static void run(const uint8_t* tile, int num_inputs, const DsRows& in, int first, float* out) {
    quantised_tile<Format, kRows>(tile, num_inputs / 32, in, first, out);
  }
};
template <class Format> struct Dequantised {
  static constexpr int kMost = 8;
  static constexpr bool kIsHot = false;
  static constexpr int kTileUnit = Format::kBytes, kInputsPerUnit = 32 * Format::kGroups;
  template <int kRows>
  static void run(const uint8_t* tile, int num_inputs, const DsRows& in, int first, float* out) {
    dequantised_tile<Format, kRows>(tile, num_inputs / 32, in, first, out);
  }
};
template <class Format> struct Float {
  static constexpr int kMost = 8;
  static constexpr bool kIsHot = false;
  static constexpr int kTileUnit = Format::kBytes, kInputsPerUnit = 1;
  template <int kRows>
  static void run(const uint8_t* tile, int num_inputs, const DsRows& in, int first, float* out) {
    float_tile<Format, kRows>(tile, num_inputs, in, first, out);
  }
};

// One sweep over a tile for what is left: any number of rows, or powers of 2 off the hot path.
template <class Path, int kRows>
static void sweep_rest(const uint8_t* tile, int num_inputs, const DsRows& in, int first, float* out) {
  if constexpr (kRows > 0) {
    constexpr int kNext = Path::kIsHot ? kRows - 1 : kRows / 2;
    if (in.num_rows - first < kRows) return sweep_rest<Path, kNext>(tile, num_inputs, in, first, out);
    Path::template run<kRows>(tile, num_inputs, in, first, out + kTile * first);
    sweep_rest<Path, kNext>(tile, num_inputs, in, first + kRows, out);
  }
}

template <class Path>
static void sweep(const uint8_t* tile, int num_inputs, const DsRows& in, float* out) {
  int first = 0;
  if constexpr (Path::kIsHot)
    for (; in.num_rows - first >= 16; first += 16)
      Path::template run<16>(tile, num_inputs, in, first, out + kTile * first);
  for (; in.num_rows - first > Path::kMost; first += 8)
    Path::template run<8>(tile, num_inputs, in, first, out + kTile * first);
  sweep_rest<Path, Path::kMost>(tile, num_inputs, in, first, out);
}

template <class Path>
static void sweep_at(const DsMatrix& w, int tile, const DsRows& in, float* out) {
  const int64_t tile_bytes = static_cast<int64_t>(w.num_inputs / Path::kInputsPerUnit) * Path::kTileUnit;
  sweep<Path>(w.data + tile * tile_bytes, w.num_inputs, in, out);
}

// 16 outputs of every row: out is [num_rows, 16]. Eight-bit activations where `in` has codes.
static void multiply_tile(const DsMatrix& w, int tile, const DsRows& in, float* out) {
  if (in.codes != nullptr) {
    switch (w.format) {
      case kQ8_0: return sweep_at<Quantised<Q8_0>>(w, tile, in, out);
      case kQ4_0: return sweep_at<Quantised<Q4_0>>(w, tile, in, out);
      case kQ4_1: return sweep_at<Quantised<Q4_1>>(w, tile, in, out);
      case kQ5_0: return sweep_at<Quantised<Q5_0>>(w, tile, in, out);
      case kQ5_1: return sweep_at<Quantised<Q5_1>>(w, tile, in, out);
      case kQ4_K: return sweep_at<Quantised<Q4_K>>(w, tile, in, out);
      case kQ5_K: return sweep_at<Quantised<Q5_K>>(w, tile, in, out);
      case kQ6_K: return sweep_at<Quantised<Q6_K>>(w, tile, in, out);
      default: break;
    }
  }
  switch (w.format) {
    case kF32: return sweep_at<Float<F32>>(w, tile, in, out);
    case kF16: return sweep_at<Float<F16>>(w, tile, in, out);
    case kBF16: return sweep_at<Float<BF16>>(w, tile, in, out);
    case kQ8_0: return sweep_at<Dequantised<Q8_0>>(w, tile, in, out);
    case kQ4_0: return sweep_at<Dequantised<Q4_0>>(w, tile, in, out);
    case kQ4_1: return sweep_at<Dequantised<Q4_1>>(w, tile, in, out);
    case kQ5_0: return sweep_at<Dequantised<Q5_0>>(w, tile, in, out);
    case kQ5_1: return sweep_at<Dequantised<Q5_1>>(w, tile, in, out);
    case kQ4_K: return sweep_at<Dequantised<Q4_K>>(w, tile, in, out);
    case kQ5_K: return sweep_at<Dequantised<Q5_K>>(w, tile, in, out);
    case kQ6_K: return sweep_at<Dequantised<Q6_K>>(w, tile, in, out);
    default: break;
  }
}

// Round 16 activations to 8 bits; the scale, and the sum of their codes. The scale of a group that
// holds a NaN or an infinity is NaN, and so is every output that it enters: codes know no such thing.
DS_INLINE int32_t quantise_half(const float* x, int8_t* codes, float* scale) {
  constexpr int32_t kInfinity = 0x7f800000;
  const Floats values = load(x);
  // As integers magnitudes have their order, with infinity and NaN on top.
  const int32_t bits = max_lanes(as_ints(abs(values)));
  if (bits >= kInfinity) {
    std::memset(codes, 0, kLanes);
    *scale = __builtin_nanf("");
    return 0;
  }
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  const float step = largest / 127.0f;
  // A subnormal step has no reciprocal; such a group is nothing beside the others.
  const float inverse = step >= 0x1p-120f ? 1.0f / step : 0.0f;
  const Ints rounded = to_ints(mul(values, splat(inverse)));
  store_i8(codes, rounded);
  *scale = step;
  return sum_lanes(rounded);
}

// A group of 32 activations: two halves with a scale each, and the sums that offsets need.
DS_INLINE void quantise_group(const float* x, int8_t* codes, float* scales, float* sum,
                              int32_t* negated) {
  const int32_t first = quantise_half(x, codes, scales);
  const int32_t second = quantise_half(x + 16, codes + 16, scales + 1);
  *sum = scales[0] * static_cast<float>(first) + scales[1] * static_cast<float>(second);
  negated[0] = -first;
  negated[1] = -second;
}

}  // namespace DS_ISA
