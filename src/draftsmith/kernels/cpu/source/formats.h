// The packed layout of each weight format, and how 16 outputs of it are read.
//
// A tile holds 16 outputs, one a lane. Inputs come in groups of 32, as eight "quads" of four:
// byte b of lane i in quad j is the code of output i, input 4 j + b. Four-bit codes of quads j
// and j + 4 share bytes; fifth and sixth bits lie in planes of their own. Scales and minimums
// are those of the file, 16 side by side. So a block takes 16 times its bytes in the file, but
// for Q4_K and Q5_K, whose 6-bit scales are widened to bytes (2.8 % and 2.3 % more).
#pragma once

#include "lanes.h"
#include "types.h"

namespace DS_ISA {

// What all quantised formats come to: weight = scale * (code - kOffset) + minimum.
struct Scales {
  Floats scale[2];  // of the first and second 16 inputs; [1] is read where kHalves is set
  Floats minimum;   // where kHasMinimum is set
};

DS_INLINE void unpack_nibbles(const uint8_t* p, Bytes quads[8]) {
  for (int j = 0; j < 4; ++j) {
    const Bytes both = load_bytes(p + 64 * j);
    quads[j] = mask(both, 0x0f);
    quads[j + 4] = mask(shift_right<4>(both), 0x0f);
  }
}
template <int J> DS_INLINE Bytes fifth_bit(Bytes plane) {
  const Bytes bit = mask(plane, static_cast<uint8_t>(1u << J));
  if constexpr (J <= 4) return shift_left<4 - J>(bit);
  else return shift_right<J - 4>(bit);
}
DS_INLINE void unpack_five(const uint8_t* nibbles, const uint8_t* high, Bytes quads[8]) {
  unpack_nibbles(nibbles, quads);
  const Bytes plane = load_bytes(high);
  quads[0] = either(quads[0], fifth_bit<0>(plane));
  quads[1] = either(quads[1], fifth_bit<1>(plane));
  quads[2] = either(quads[2], fifth_bit<2>(plane));
  quads[3] = either(quads[3], fifth_bit<3>(plane));
  quads[4] = either(quads[4], fifth_bit<4>(plane));
  quads[5] = either(quads[5], fifth_bit<5>(plane));
  quads[6] = either(quads[6], fifth_bit<6>(plane));
  quads[7] = either(quads[7], fifth_bit<7>(plane));
}
DS_INLINE void add_two_bits(const uint8_t* high, Bytes quads[4]) {
  const Bytes plane = load_bytes(high);
  quads[0] = either(quads[0], shift_left<4>(mask(plane, 0x03)));
  quads[1] = either(quads[1], shift_left<2>(mask(plane, 0x0c)));
  quads[2] = either(quads[2], mask(plane, 0x30));
  quads[3] = either(quads[3], shift_right<2>(mask(plane, 0xc0)));
}

DS_INLINE const uint16_t* halves(const uint8_t* p) { return reinterpret_cast<const uint16_t*>(p); }

// Block heads: what is read once for all the groups of a block.
struct NoHead {};
struct TwoHead { Floats scale, minimum; };

struct Q8_0 {
  static constexpr int kGroups = 1, kBytes = 544, kOffsetBits = 7;
  static constexpr bool kHalves = false, kHasMinimum = false, kWide = true;
  using Head = NoHead;
  DS_INLINE Head head(const uint8_t*) { return {}; }
  DS_INLINE void codes(const uint8_t* p, int, Bytes quads[8]) {
    for (int j = 0; j < 8; ++j) quads[j] = load_bytes(p + 32 + 64 * j);
  }
  DS_INLINE void scales(const Head&, const uint8_t* p, int, Scales& s) {
    s.scale[0] = load_half(halves(p));
  }
};

struct Q4_0 {
  static constexpr int kGroups = 1, kBytes = 288, kOffsetBits = 3;
  static constexpr bool kHalves = false, kHasMinimum = false, kWide = false;
  using Head = NoHead;
  DS_INLINE Head head(const uint8_t*) { return {}; }
  DS_INLINE void codes(const uint8_t* p, int, Bytes quads[8]) { unpack_nibbles(p + 32, quads); }
  DS_INLINE void scales(const Head&, const uint8_t* p, int, Scales& s) {
    s.scale[0] = load_half(halves(p));
  }
};

struct Q4_1 {
  static constexpr int kGroups = 1, kBytes = 320, kOffsetBits = -1;
  static constexpr bool kHalves = false, kHasMinimum = true, kWide = false;
  using Head = NoHead;
  DS_INLINE Head head(const uint8_t*) { return {}; }
  DS_INLINE void codes(const uint8_t* p, int, Bytes quads[8]) { unpack_nibbles(p + 64, quads); }
  DS_INLINE void scales(const Head&, const uint8_t* p, int, Scales& s) {
    s.scale[0] = load_half(halves(p));
    s.minimum = load_half(halves(p + 32));
  }
};

struct Q5_0 {
  static constexpr int kGroups = 1, kBytes = 352, kOffsetBits = 4;
  static constexpr bool kHalves = false, kHasMinimum = false, kWide = false;
  using Head = NoHead;
  DS_INLINE Head head(const uint8_t*) { return {}; }
  DS_INLINE void codes(const uint8_t* p, int, Bytes quads[8]) {
    unpack_five(p + 32, p + 288, quads);
  }
  DS_INLINE void scales(const Head&, const uint8_t* p, int, Scales& s) {
    s.scale[0] = load_half(halves(p));
  }
};

struct Q5_1 {
  static constexpr int kGroups = 1, kBytes = 384, kOffsetBits = -1;
  static constexpr bool kHalves = false, kHasMinimum = true, kWide = false;
  using Head = NoHead;
  DS_INLINE Head head(const uint8_t*) { return {}; }
  DS_INLINE void codes(const uint8_t* p, int, Bytes quads[8]) {
    unpack_five(p + 64, p + 320, quads);
  }
  DS_INLINE void scales(const Head&, const uint8_t* p, int, Scales& s) {
    s.scale[0] = load_half(halves(p));
    s.minimum = load_half(halves(p + 32));
  }
};

// Q4_K and Q5_K: [scale 32][minimum 32][8 x (16 scales, 16 minimums)] then the groups' codes.
template <int kGroupBytes> struct TwoLevels {
  static constexpr int kGroups = 8, kBytes = 320 + 8 * kGroupBytes, kOffsetBits = -1;
  static constexpr bool kHalves = false, kHasMinimum = true, kWide = false;
  using Head = TwoHead;
  DS_INLINE Head head(const uint8_t* p) {
    // Negated here, so that adding it is subtracting, signed zeros included.
    return {load_half(halves(p)), mul(load_half(halves(p + 32)), splat(-1.0f))};
  }
  DS_INLINE void scales(const Head& head, const uint8_t* p, int g, Scales& s) {
    s.scale[0] = mul(head.scale, to_floats(load_u8(p + 64 + 32 * g)));
    s.minimum = mul(head.minimum, to_floats(load_u8(p + 80 + 32 * g)));
  }
};
struct Q4_K : TwoLevels<256> {
  DS_INLINE void codes(const uint8_t* p, int g, Bytes quads[8]) {
    unpack_nibbles(p + 320 + 256 * g, quads);
  }
};
struct Q5_K : TwoLevels<320> {
  DS_INLINE void codes(const uint8_t* p, int g, Bytes quads[8]) {
    unpack_five(p + 320 + 320 * g, p + 576 + 320 * g, quads);
  }
};

// [scale 32][16 x 16 signed scales] then the groups' codes.
struct Q6_K {
  static constexpr int kGroups = 8, kBytes = 288 + 8 * 384, kOffsetBits = 5;
  static constexpr bool kHalves = true, kHasMinimum = false, kWide = false;
  using Head = TwoHead;
  DS_INLINE Head head(const uint8_t* p) { return {load_half(halves(p)), splat(0.0f)}; }
  DS_INLINE void codes(const uint8_t* p, int g, Bytes quads[8]) {
    const uint8_t* group = p + 288 + 384 * g;
    unpack_nibbles(group, quads);
    add_two_bits(group + 256, quads);
    add_two_bits(group + 320, quads + 4);
  }
  DS_INLINE void scales(const Head& head, const uint8_t* p, int g, Scales& s) {
    const int8_t* signed_scales = reinterpret_cast<const int8_t*>(p + 32 + 32 * g);
    s.scale[0] = mul(head.scale, to_floats(load_i8(signed_scales)));
    s.scale[1] = mul(head.scale, to_floats(load_i8(signed_scales + 16)));
  }
};

// Float formats: one input after another, 16 outputs side by side.
struct F32 {
  static constexpr int kBytes = 64;
  DS_INLINE Floats read(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
};
struct F16 {
  static constexpr int kBytes = 32;
  DS_INLINE Floats read(const uint8_t* p) { return load_half(halves(p)); }
};
struct BF16 {
  static constexpr int kBytes = 32;
  DS_INLINE Floats read(const uint8_t* p) { return load_bfloat(halves(p)); }
};

}  // namespace DS_ISA
