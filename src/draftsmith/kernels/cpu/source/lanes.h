// Sixteen floats, sixteen 32-bit integers, sixty-four bytes: the only place that knows vector
// instructions. The same kernels are compiled once for each instruction set, each time into its
// own namespace (DS_ISA); nothing here may leak out of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "half.h"

namespace DS_ISA {

constexpr int kLanes = 16;

// Ask for `bytes` of memory that will be read soon; harmless past the end of it.
DS_INLINE void prefetch(const uint8_t* p, int bytes) {
  for (int at = 0; at < bytes; at += 64) __builtin_prefetch(p + at, 0, 3);
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
// ---------------------------------------------------------------- AVX-512

struct Floats { __m512 v; };
struct Ints { __m512i v; };
struct Bytes { __m512i v; };

DS_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
DS_INLINE void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
DS_INLINE Floats load_some(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p)};
}
DS_INLINE void store_some(float* p, Floats a, int n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), a.v);
}
DS_INLINE Floats load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
DS_INLINE void store_half(uint16_t* p, Floats a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
DS_INLINE Floats load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
DS_INLINE Floats splat(float a) { return {_mm512_set1_ps(a)}; }
DS_INLINE Floats add(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
DS_INLINE Floats sub(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
DS_INLINE Floats mul(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
DS_INLINE Floats div(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
DS_INLINE Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
DS_INLINE Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
DS_INLINE Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
DS_INLINE Floats abs(Floats a) { return {_mm512_abs_ps(a.v)}; }
DS_INLINE Floats round_even(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
DS_INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
DS_INLINE Ints to_ints(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
DS_INLINE Floats as_floats(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
DS_INLINE Ints as_ints(Floats a) { return {_mm512_castps_si512(a.v)}; }
DS_INLINE Ints splat(int32_t a) { return {_mm512_set1_epi32(a)}; }
DS_INLINE Ints load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
DS_INLINE void store(int32_t* p, Ints a) { _mm512_storeu_si512(p, a.v); }
DS_INLINE Ints add(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
template <int N> DS_INLINE Ints shift_left(Ints a) { return {_mm512_slli_epi32(a.v, N)}; }
DS_INLINE Ints load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
DS_INLINE Ints load_i8(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
DS_INLINE void store_i8(int8_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a.v));
}
DS_INLINE Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
DS_INLINE Bytes mask(Bytes a, uint8_t m) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(m)))};
}
DS_INLINE Bytes either(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
// Shifts cross bytes within 16 bits: mask first, so that nothing is carried over.
template <int N> DS_INLINE Bytes shift_right(Bytes a) { return {_mm512_srli_epi16(a.v, N)}; }
template <int N> DS_INLINE Bytes shift_left(Bytes a) { return {_mm512_slli_epi16(a.v, N)}; }
DS_INLINE Ints byte_of(Bytes a, int which) {  // byte `which` of each 32-bit lane
  return {_mm512_and_si512(_mm512_srli_epi32(a.v, static_cast<unsigned>(8 * which)),
                           _mm512_set1_epi32(255))};
}

// acc[i] += sum over b of unsigned weights[4 i + b] * signed four[b].
template <bool kWide> DS_INLINE Ints dot(Ints acc, Bytes weights, const int8_t* four) {
  int32_t packed;
  std::memcpy(&packed, four, 4);
  const __m512i activations = _mm512_set1_epi32(packed);
#if defined(__AVX512VNNI__)
  return {_mm512_dpbusd_epi32(acc.v, weights.v, activations)};
#else
  const __m512i ones = _mm512_set1_epi16(1);
  if constexpr (kWide) {  // maddubs saturates at 16 bits: take the top bit apart
    const __m512i low = _mm512_and_si512(weights.v, _mm512_set1_epi8(127));
    const __m512i top = _mm512_and_si512(_mm512_srli_epi16(weights.v, 7), _mm512_set1_epi8(1));
    const __m512i pairs = _mm512_maddubs_epi16(low, activations);
    const __m512i tops = _mm512_maddubs_epi16(top, activations);
    acc.v = _mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, ones));
    return {_mm512_add_epi32(acc.v, _mm512_madd_epi16(tops, _mm512_set1_epi16(128)))};
  }
  return {_mm512_add_epi32(acc.v,
                           _mm512_madd_epi16(_mm512_maddubs_epi16(weights.v, activations), ones))};
#endif
}

DS_INLINE Floats zero_below(Floats bound, Floats x, Floats value) {  // value where x >= bound
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_NLT_UQ), value.v)};
}
DS_INLINE float sum_lanes(Floats a) {
  alignas(64) float x[16];
  _mm512_store_ps(x, a.v);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x[i] += x[i + width];
  return x[0];
}
DS_INLINE float max_lanes(Floats a) { return _mm512_reduce_max_ps(a.v); }
DS_INLINE int32_t max_lanes(Ints a) { return _mm512_reduce_max_epi32(a.v); }
DS_INLINE int32_t sum_lanes(Ints a) { return _mm512_reduce_add_epi32(a.v); }

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
// ---------------------------------------------------------------- AVX2: two halves

struct Floats { __m256 a, b; };
struct Ints { __m256i a, b; };
struct Bytes { __m256i a, b; };

DS_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
DS_INLINE void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
DS_INLINE Floats load_some(const float* p, int n) {
  alignas(32) float x[16] = {0};
  std::memcpy(x, p, sizeof(float) * static_cast<size_t>(n));
  return load(x);
}
DS_INLINE void store_some(float* p, Floats x, int n) {
  alignas(32) float y[16];
  store(y, x);
  std::memcpy(p, y, sizeof(float) * static_cast<size_t>(n));
}
DS_INLINE Floats load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
DS_INLINE void store_half(uint16_t* p, Floats x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, 0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, 0));
}
DS_INLINE __m256 eight_bfloats(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
DS_INLINE Floats load_bfloat(const uint16_t* p) { return {eight_bfloats(p), eight_bfloats(p + 8)}; }
DS_INLINE Floats splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
DS_INLINE Floats add(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
DS_INLINE Floats sub(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
DS_INLINE Floats mul(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
DS_INLINE Floats div(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
DS_INLINE Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
DS_INLINE Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
DS_INLINE Floats fma(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
DS_INLINE Floats abs(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
DS_INLINE Floats round_even(Floats x) {
  return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)};
}
DS_INLINE Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
DS_INLINE Ints to_ints(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
DS_INLINE Floats as_floats(Ints x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
DS_INLINE Ints as_ints(Floats x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
DS_INLINE Ints splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
DS_INLINE Ints load_ints(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
DS_INLINE void store(int32_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
DS_INLINE Ints add(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
template <int N> DS_INLINE Ints shift_left(Ints x) {
  return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)};
}
DS_INLINE Ints load_u8(const uint8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
DS_INLINE Ints load_i8(const int8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
DS_INLINE void store_i8(int8_t* p, Ints x) {
  alignas(32) int32_t y[16];
  store(y, x);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(y[i]);
}
DS_INLINE Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
DS_INLINE Bytes mask(Bytes x, uint8_t m) {
  const __m256i bits = _mm256_set1_epi8(static_cast<char>(m));
  return {_mm256_and_si256(x.a, bits), _mm256_and_si256(x.b, bits)};
}
DS_INLINE Bytes either(Bytes x, Bytes y) {
  return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
// Shifts cross bytes within 16 bits: mask first, so that nothing is carried over.
template <int N> DS_INLINE Bytes shift_right(Bytes x) {
  return {_mm256_srli_epi16(x.a, N), _mm256_srli_epi16(x.b, N)};
}
template <int N> DS_INLINE Bytes shift_left(Bytes x) {
  return {_mm256_slli_epi16(x.a, N), _mm256_slli_epi16(x.b, N)};
}
DS_INLINE Ints byte_of(Bytes x, int which) {  // byte `which` of each 32-bit lane
  const __m256i ones = _mm256_set1_epi32(255);
  return {_mm256_and_si256(_mm256_srli_epi32(x.a, 8 * which), ones),
          _mm256_and_si256(_mm256_srli_epi32(x.b, 8 * which), ones)};
}

template <bool kWide> DS_INLINE __m256i dot_half(__m256i acc, __m256i weights, __m256i four) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (kWide) {  // maddubs saturates at 16 bits: take the top bit apart
    const __m256i low = _mm256_and_si256(weights, _mm256_set1_epi8(127));
    const __m256i top = _mm256_and_si256(_mm256_srli_epi16(weights, 7), _mm256_set1_epi8(1));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(low, four), ones));
    return _mm256_add_epi32(
        acc, _mm256_madd_epi16(_mm256_maddubs_epi16(top, four), _mm256_set1_epi16(128)));
  }
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, four), ones));
}
// acc[i] += sum over b of unsigned weights[4 i + b] * signed four[b].
template <bool kWide> DS_INLINE Ints dot(Ints acc, Bytes weights, const int8_t* four) {
  int32_t packed;
  std::memcpy(&packed, four, 4);
  const __m256i activations = _mm256_set1_epi32(packed);
  return {dot_half<kWide>(acc.a, weights.a, activations),
          dot_half<kWide>(acc.b, weights.b, activations)};
}

DS_INLINE Floats zero_below(Floats bound, Floats x, Floats value) {  // value where x >= bound
  return {_mm256_and_ps(_mm256_cmp_ps(x.a, bound.a, _CMP_NLT_UQ), value.a),
          _mm256_and_ps(_mm256_cmp_ps(x.b, bound.b, _CMP_NLT_UQ), value.b)};
}
DS_INLINE float sum_lanes(Floats a) {
  alignas(32) float x[16];
  store(x, a);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x[i] += x[i + width];
  return x[0];
}
DS_INLINE float max_lanes(Floats a) {
  alignas(32) float x[16];
  store(x, a);
  for (int i = 1; i < 16; ++i) x[0] = x[i] > x[0] ? x[i] : x[0];
  return x[0];
}
DS_INLINE int32_t max_lanes(Ints a) {
  const __m256i eight = _mm256_max_epi32(a.a, a.b);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
DS_INLINE int32_t sum_lanes(Ints a) {
  alignas(32) int32_t x[16];
  store(x, a);
  for (int i = 1; i < 16; ++i) x[0] += x[i];
  return x[0];
}

#else
// ---------------------------------------------------------------- plain C++

struct Floats { float x[16]; };
struct Ints { int32_t x[16]; };
struct Bytes { uint8_t x[64]; };

#define DS_EACH(count) for (int i = 0; i < (count); ++i)

DS_INLINE Floats load(const float* p) { Floats r; std::memcpy(r.x, p, 64); return r; }
DS_INLINE void store(float* p, Floats a) { std::memcpy(p, a.x, 64); }
DS_INLINE Floats load_some(const float* p, int n) {
  Floats r;
  DS_EACH(16) r.x[i] = i < n ? p[i] : 0.0f;
  return r;
}
DS_INLINE void store_some(float* p, Floats a, int n) { DS_EACH(n) p[i] = a.x[i]; }
DS_INLINE Floats load_half(const uint16_t* p) { Floats r; DS_EACH(16) r.x[i] = float_from_half(p[i]); return r; }
DS_INLINE void store_half(uint16_t* p, Floats a) { DS_EACH(16) p[i] = half_from_float(a.x[i]); }
DS_INLINE Floats load_bfloat(const uint16_t* p) { Floats r; DS_EACH(16) r.x[i] = float_from_bfloat(p[i]); return r; }
DS_INLINE Floats splat(float a) { Floats r; DS_EACH(16) r.x[i] = a; return r; }
DS_INLINE Floats add(Floats a, Floats b) { DS_EACH(16) a.x[i] += b.x[i]; return a; }
DS_INLINE Floats sub(Floats a, Floats b) { DS_EACH(16) a.x[i] -= b.x[i]; return a; }
DS_INLINE Floats mul(Floats a, Floats b) { DS_EACH(16) a.x[i] *= b.x[i]; return a; }
DS_INLINE Floats div(Floats a, Floats b) { DS_EACH(16) a.x[i] /= b.x[i]; return a; }
DS_INLINE Floats max(Floats a, Floats b) { DS_EACH(16) a.x[i] = a.x[i] > b.x[i] ? a.x[i] : b.x[i]; return a; }
DS_INLINE Floats min(Floats a, Floats b) { DS_EACH(16) a.x[i] = a.x[i] < b.x[i] ? a.x[i] : b.x[i]; return a; }
DS_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__FP_FAST_FMAF)
  DS_EACH(16) c.x[i] = __builtin_fmaf(a.x[i], b.x[i], c.x[i]);
#else  // a fused product without the instruction is a library call
  DS_EACH(16) c.x[i] += a.x[i] * b.x[i];
#endif
  return c;
}
DS_INLINE Floats abs(Floats a) { DS_EACH(16) a.x[i] = __builtin_fabsf(a.x[i]); return a; }
DS_INLINE Floats round_even(Floats a) { DS_EACH(16) a.x[i] = __builtin_nearbyintf(a.x[i]); return a; }
DS_INLINE Floats to_floats(Ints a) { Floats r; DS_EACH(16) r.x[i] = static_cast<float>(a.x[i]); return r; }
DS_INLINE Ints to_ints(Floats a) { Ints r; DS_EACH(16) r.x[i] = static_cast<int32_t>(__builtin_nearbyintf(a.x[i])); return r; }
DS_INLINE Floats as_floats(Ints a) { Floats r; std::memcpy(r.x, a.x, 64); return r; }
DS_INLINE Ints as_ints(Floats a) { Ints r; std::memcpy(r.x, a.x, 64); return r; }
DS_INLINE Ints splat(int32_t a) { Ints r; DS_EACH(16) r.x[i] = a; return r; }
DS_INLINE Ints load_ints(const int32_t* p) { Ints r; std::memcpy(r.x, p, 64); return r; }
DS_INLINE void store(int32_t* p, Ints a) { std::memcpy(p, a.x, 64); }
DS_INLINE Ints add(Ints a, Ints b) { DS_EACH(16) a.x[i] += b.x[i]; return a; }
template <int N> DS_INLINE Ints shift_left(Ints a) {
  DS_EACH(16) a.x[i] = static_cast<int32_t>(static_cast<uint32_t>(a.x[i]) << N);
  return a;
}
DS_INLINE Ints load_u8(const uint8_t* p) { Ints r; DS_EACH(16) r.x[i] = p[i]; return r; }
DS_INLINE Ints load_i8(const int8_t* p) { Ints r; DS_EACH(16) r.x[i] = p[i]; return r; }
DS_INLINE void store_i8(int8_t* p, Ints a) { DS_EACH(16) p[i] = static_cast<int8_t>(a.x[i]); }
DS_INLINE Bytes load_bytes(const uint8_t* p) { Bytes r; std::memcpy(r.x, p, 64); return r; }
DS_INLINE Bytes mask(Bytes a, uint8_t m) { DS_EACH(64) a.x[i] &= m; return a; }
DS_INLINE Bytes either(Bytes a, Bytes b) { DS_EACH(64) a.x[i] |= b.x[i]; return a; }
template <int N> DS_INLINE Bytes shift_right(Bytes a) { DS_EACH(64) a.x[i] = static_cast<uint8_t>(a.x[i] >> N); return a; }
template <int N> DS_INLINE Bytes shift_left(Bytes a) { DS_EACH(64) a.x[i] = static_cast<uint8_t>(a.x[i] << N); return a; }
DS_INLINE Ints byte_of(Bytes a, int which) { Ints r; DS_EACH(16) r.x[i] = a.x[4 * i + which]; return r; }
template <bool kWide> DS_INLINE Ints dot(Ints acc, Bytes weights, const int8_t* four) {
  DS_EACH(16) {
    int32_t total = 0;
    for (int b = 0; b < 4; ++b) total += static_cast<int32_t>(weights.x[4 * i + b]) * four[b];
    acc.x[i] += total;
  }
  return acc;
}
DS_INLINE Floats zero_below(Floats bound, Floats x, Floats value) {  // value where x >= bound
  DS_EACH(16) value.x[i] = x.x[i] < bound.x[i] ? 0.0f : value.x[i];
  return value;
}
DS_INLINE float sum_lanes(Floats a) {
  for (int width = 8; width > 0; width /= 2) DS_EACH(width) a.x[i] += a.x[i + width];
  return a.x[0];
}
DS_INLINE float max_lanes(Floats a) {
  DS_EACH(16) a.x[0] = a.x[i] > a.x[0] ? a.x[i] : a.x[0];
  return a.x[0];
}
DS_INLINE int32_t max_lanes(Ints a) {
  int32_t most = a.x[0];
  DS_EACH(16) most = a.x[i] > most ? a.x[i] : most;
  return most;
}
DS_INLINE int32_t sum_lanes(Ints a) {
  int32_t total = 0;
  DS_EACH(16) total += a.x[i];
  return total;
}
#endif

// e^x to within 2 units in the last place for x in [-87, 88]; 0 below, the same bits everywhere.
// NaN stays NaN: max and min return their second argument where either is NaN.
DS_INLINE Floats exp(Floats x) {
  const Floats lowest = splat(-87.0f);
  const Floats clamped = min(splat(88.0f), max(lowest, x));
  const Floats n = round_even(mul(clamped, splat(1.44269504088896341f)));
  Floats r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  Floats p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), splat(1.0f));
  const Ints power = shift_left<23>(add(to_ints(n), splat(127)));
  // Below the range the true value is under 2e-38: an exact zero keeps masked scores out of sums.
  return zero_below(lowest, x, mul(p, as_floats(power)));
}

}  // namespace DS_ISA
