// Norm, rotary embedding, gated activation: sums in one order, a row at a time.
#pragma once

#include "matmul.h"

namespace DS_ISA {

static void quantise(const float* x, int num_groups, int8_t* codes, float* scales, float* sums,
                     int32_t* negated) {
  for (int g = 0; g < num_groups; ++g)
    quantise_group(x + 32 * g, codes + 32 * g, scales + 2 * g, sums + g, negated + 2 * g);
}

static void rms_norm(const float* x, const float* weight, int size, float epsilon, float* out) {
  const int whole = size / kLanes * kLanes;
  Floats a = splat(0.0f), b = a;
  int i = 0;
  for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
    const Floats one = load(x + i), two = load(x + i + kLanes);
    a = fma(one, one, a);
    b = fma(two, two, b);
  }
  for (; i < whole; i += kLanes) a = fma(load(x + i), load(x + i), a);
  if (i < size) {
    const Floats rest = load_some(x + i, size - i);
    b = fma(rest, rest, b);
  }
  const float mean = sum_lanes(add(a, b)) / static_cast<float>(size);
  const Floats factor = splat(1.0f / __builtin_sqrtf(mean + epsilon));
  for (i = 0; i < whole; i += kLanes) store(out + i, mul(mul(load(x + i), factor), load(weight + i)));
  if (i < size) {
    const Floats rest = mul(load_some(x + i, size - i), factor);
    store_some(out + i, mul(rest, load_some(weight + i, size - i)), size - i);
  }
}

static void rotate(float* x, const float* cosines, const float* sines, int half) {
  for (int i = 0; i < half; i += kLanes) {
    const int n = half - i < kLanes ? half - i : kLanes;
    const Floats one = load_some(x + i, n), two = load_some(x + half + i, n);
    const Floats c = load_some(cosines + i, n), s = load_some(sines + i, n);
    store_some(x + i, sub(mul(one, c), mul(two, s)), n);
    store_some(x + half + i, add(mul(two, c), mul(one, s)), n);
  }
}

static void swiglu(const float* gate, const float* up, int size, float* out) {
  for (int i = 0; i < size; i += kLanes) {
    const int n = size - i < kLanes ? size - i : kLanes;
    const Floats g = load_some(gate + i, n);
    const Floats bottom = add(splat(1.0f), exp(sub(splat(0.0f), g)));
    store_some(out + i, mul(div(g, bottom), load_some(up + i, n)), n);
  }
}

template <class Format> static void dequantise_lane(const uint8_t* tile, int num_inputs, int lane, float* out) {
  alignas(64) float weights[kLanes];
  for (int done = 0; done < num_inputs / 32; done += Format::kGroups, tile += Format::kBytes) {
    const typename Format::Head head = Format::head(tile);
    for (int g = 0; g < Format::kGroups; ++g) {
      Bytes quads[8];
      Scales scales;
      Format::codes(tile, g, quads);
      Format::scales(head, tile, g, scales);
      for (int k = 0; k < 32; ++k) {
        store(weights, dequantised<Format>(quads[k / 4], k % 4, k / 4, scales));
        *out++ = weights[lane];
      }
    }
  }
}
template <class Format> static void read_lane(const uint8_t* tile, int num_inputs, int lane, float* out) {
  alignas(64) float weights[kLanes];
  for (int k = 0; k < num_inputs; ++k, tile += Format::kBytes) {
    store(weights, Format::read(tile));
    out[k] = weights[lane];
  }
}

template <class Path> static const uint8_t* tile_at(const DsMatrix& w, int tile) {
  return w.data + static_cast<int64_t>(tile) * (w.num_inputs / Path::kInputsPerUnit) * Path::kTileUnit;
}

static void dequantise_row(const DsMatrix& w, int output, float* out) {
  const int tile = output / kTile, lane = output % kTile, n = w.num_inputs;
  switch (w.format) {
    case kF32: return read_lane<F32>(tile_at<Float<F32>>(w, tile), n, lane, out);
    case kF16: return read_lane<F16>(tile_at<Float<F16>>(w, tile), n, lane, out);
    case kBF16: return read_lane<BF16>(tile_at<Float<BF16>>(w, tile), n, lane, out);
    case kQ8_0: return dequantise_lane<Q8_0>(tile_at<Quantised<Q8_0>>(w, tile), n, lane, out);
    case kQ4_0: return dequantise_lane<Q4_0>(tile_at<Quantised<Q4_0>>(w, tile), n, lane, out);
    case kQ4_1: return dequantise_lane<Q4_1>(tile_at<Quantised<Q4_1>>(w, tile), n, lane, out);
    case kQ5_0: return dequantise_lane<Q5_0>(tile_at<Quantised<Q5_0>>(w, tile), n, lane, out);
    case kQ5_1: return dequantise_lane<Q5_1>(tile_at<Quantised<Q5_1>>(w, tile), n, lane, out);
    case kQ4_K: return dequantise_lane<Q4_K>(tile_at<Quantised<Q4_K>>(w, tile), n, lane, out);
    case kQ5_K: return dequantise_lane<Q5_K>(tile_at<Quantised<Q5_K>>(w, tile), n, lane, out);
    case kQ6_K: return dequantise_lane<Q6_K>(tile_at<Quantised<Q6_K>>(w, tile), n, lane, out);
    default: break;
  }
}

}  // namespace DS_ISA
