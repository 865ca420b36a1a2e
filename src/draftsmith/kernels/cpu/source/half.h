// float16 and bfloat16 to float and back, one number at a time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// Static: the instruction sets are compiled apart, and none may run the code of another.
#define DS_INLINE static inline __attribute__((always_inline))

DS_INLINE float float_from_half(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {
    bits = 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + 0x38000000u;
  } else {
    const float small = static_cast<float>(magnitude) * 0x1p-24f;
    std::memcpy(&bits, &small, 4);
  }
  bits |= static_cast<uint32_t>(half & 0x8000u) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

DS_INLINE uint16_t half_from_float(float value) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits >= 0x38800000u) {
    const uint32_t rounded = bits + 0xfffu + ((bits >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
  float magnitude;
  std::memcpy(&magnitude, &bits, 4);
  const float shifted = magnitude * 0x1p24f;
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyintf(shifted)));
}

DS_INLINE float float_from_bfloat(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
