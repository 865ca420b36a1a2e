// The vector instructions that only sampling needs: comparisons, compression, Philox4x32-10.
#pragma once

#include <cfloat>

#include "lanes.h"
#include "sampling_interface.h"

namespace DS_ISA {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

DS_INLINE uint32_t at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
DS_INLINE uint32_t unordered(Floats a, Floats b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q); }
DS_INLINE Ints exclusive_or(Ints a, Ints b) { return {_mm512_xor_si512(a.v, b.v)}; }
DS_INLINE Floats to_floats_unsigned(Ints a) { return {_mm512_cvtepu32_ps(a.v)}; }
DS_INLINE void multiply_wide(Ints a, uint32_t factor, Ints* high, Ints* low) {
  const __m512i f = _mm512_set1_epi32(static_cast<int>(factor));
  const __m512i even = _mm512_mul_epu32(a.v, f);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), f);
  *high = {_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd)};
  *low = {_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32))};
}
// Writes the chosen lanes to the front, and anything behind them: 16 lanes in all.
DS_INLINE int compress(uint32_t chosen, Floats values, int first, float* to, int32_t* ids) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __mmask16 k = static_cast<__mmask16>(chosen);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(k, values.v));
  _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(k, _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
  return __builtin_popcount(chosen);
}
// Four vectors, each of one word of 16 blocks, to 64 words in order; see kBlockOfLane.
DS_INLINE void interleave(Ints* w) {
  const __m512i a = _mm512_unpacklo_epi32(w[0].v, w[1].v), b = _mm512_unpackhi_epi32(w[0].v, w[1].v);
  const __m512i c = _mm512_unpacklo_epi32(w[2].v, w[3].v), d = _mm512_unpackhi_epi32(w[2].v, w[3].v);
  w[0] = {_mm512_unpacklo_epi64(a, c)};
  w[1] = {_mm512_unpackhi_epi64(a, c)};
  w[2] = {_mm512_unpacklo_epi64(b, d)};
  w[3] = {_mm512_unpackhi_epi64(b, d)};
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

DS_INLINE uint32_t signs(__m256 a, __m256 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a)) |
         static_cast<uint32_t>(_mm256_movemask_ps(b)) << 8;
}
DS_INLINE uint32_t at_least(Floats x, Floats y) {
  return signs(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ));
}
DS_INLINE uint32_t unordered(Floats x, Floats y) {
  return signs(_mm256_cmp_ps(x.a, y.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, y.b, _CMP_UNORD_Q));
}
DS_INLINE Ints exclusive_or(Ints x, Ints y) {
  return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
DS_INLINE __m256 half_to_floats(__m256i x) {  // two exact parts: the sum rounds once
  const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
  const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)));
  return _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
}
DS_INLINE Floats to_floats_unsigned(Ints x) { return {half_to_floats(x.a), half_to_floats(x.b)}; }
DS_INLINE void half_multiply_wide(__m256i x, __m256i f, __m256i* high, __m256i* low) {
  const __m256i even = _mm256_mul_epu32(x, f);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), f);
  *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
DS_INLINE void multiply_wide(Ints x, uint32_t factor, Ints* high, Ints* low) {
  const __m256i f = _mm256_set1_epi32(static_cast<int>(factor));
  half_multiply_wide(x.a, f, &high->a, &low->a);
  half_multiply_wide(x.b, f, &high->b, &low->b);
}
DS_INLINE void interleave_half(__m256i* w) {
  const __m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]);
  const __m256i c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
  w[0] = _mm256_unpacklo_epi64(a, c);
  w[1] = _mm256_unpackhi_epi64(a, c);
  w[2] = _mm256_unpacklo_epi64(b, d);
  w[3] = _mm256_unpackhi_epi64(b, d);
}
// Four vectors, each of one word of 16 blocks, to 64 words in order; see kBlockOfLane.
DS_INLINE void interleave(Ints* w) {
  __m256i a[4] = {w[0].a, w[1].a, w[2].a, w[3].a}, b[4] = {w[0].b, w[1].b, w[2].b, w[3].b};
  interleave_half(a);
  interleave_half(b);
  for (int i = 0; i < 4; ++i) w[i] = {a[i], b[i]};
}

#else

DS_INLINE uint32_t at_least(Floats a, Floats b) {
  uint32_t bits = 0;
  DS_EACH(16) bits |= static_cast<uint32_t>(a.x[i] >= b.x[i]) << i;
  return bits;
}
DS_INLINE uint32_t unordered(Floats a, Floats b) {
  uint32_t bits = 0;
  DS_EACH(16) bits |= static_cast<uint32_t>(a.x[i] != a.x[i] || b.x[i] != b.x[i]) << i;
  return bits;
}
DS_INLINE Ints exclusive_or(Ints a, Ints b) { DS_EACH(16) a.x[i] ^= b.x[i]; return a; }
DS_INLINE Floats to_floats_unsigned(Ints a) {
  Floats r;
  DS_EACH(16) r.x[i] = static_cast<float>(static_cast<uint32_t>(a.x[i]));
  return r;
}
DS_INLINE void multiply_wide(Ints a, uint32_t factor, Ints* high, Ints* low) {
  DS_EACH(16) {
    const uint64_t product = static_cast<uint64_t>(static_cast<uint32_t>(a.x[i])) * factor;
    high->x[i] = static_cast<int32_t>(product >> 32);
    low->x[i] = static_cast<int32_t>(product);
  }
}
// Four vectors, each of one word of 16 blocks, to 64 words in order; see kBlockOfLane.
DS_INLINE void interleave(Ints* w) {
  Ints r[4];
  for (int j = 0; j < 4; ++j) DS_EACH(16) r[j].x[i] = w[i % 4].x[i / 4 * 4 + j];
  std::memcpy(w, r, sizeof r);
}

#endif

#if !defined(__AVX512F__)
// Writes the chosen lanes to the front.
DS_INLINE int compress(uint32_t chosen, Floats values, int first, float* to, int32_t* ids) {
  alignas(64) float x[kLanes];
  store(x, values);
  int count = 0;
  for (; chosen != 0; chosen &= chosen - 1, ++count) {
    const int lane = __builtin_ctz(chosen);
    to[count] = x[lane];
    ids[count] = first + lane;
  }
  return count;
}
#endif

DS_INLINE Floats load_or(const float* p, int n, float filler) {
  if (n >= kLanes) return load(p);
  alignas(64) float x[kLanes];
  for (int i = 0; i < kLanes; ++i) x[i] = i < n ? p[i] : filler;
  return load(x);
}

// Transposing fours of lanes then puts all 64 words in order.
alignas(64) constexpr int32_t kBlockOfLane[kLanes] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

// Philox4x32-10 (Salmon et al., SC 2011): the words of blocks first … first + 15, in order.
DS_INLINE void philox_blocks(uint32_t first, const DsCounter& counter, Ints* w) {
  w[0] = add(load_ints(kBlockOfLane), splat(static_cast<int32_t>(first)));
  for (int i = 0; i < 3; ++i) w[i + 1] = splat(static_cast<int32_t>(counter.words[i]));
  uint32_t key_0 = counter.key[0], key_1 = counter.key[1];
  for (int round = 0; round < 10; ++round) {
    Ints high_0, low_0, high_1, low_1;
    multiply_wide(w[0], 0xD2511F53u, &high_0, &low_0);
    multiply_wide(w[2], 0xCD9E8D57u, &high_1, &low_1);
    w[0] = exclusive_or(exclusive_or(high_1, w[1]), splat(static_cast<int32_t>(key_0)));
    w[2] = exclusive_or(exclusive_or(high_0, w[3]), splat(static_cast<int32_t>(key_1)));
    w[1] = low_1;
    w[3] = low_0;
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  interleave(w);
}

}  // namespace DS_ISA
