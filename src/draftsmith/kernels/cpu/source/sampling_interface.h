// What one instruction set offers for sampling: logits to laws, and laws to tokens.
#pragma once

#include <cstdint>

// The sampling transform of one row, as SamplingParams has it.
struct DsLaw {
  float temperature;  // above 0
  int32_t top_k;      // 0 keeps all
  double top_p;
  float min_p;
};

// The counter of Philox4x32-10, but for its first word (the block), and the key.
struct DsCounter {
  uint32_t words[3];
  uint32_t key[2];
};

// Memory of one thread for rows of up to n scores.
struct DsScratch {
  float* peaks;     // n rounded up to whole spans, / 16
  int32_t* ids;     // n + 16, like the next three
  float* values;
  uint32_t* keys;
  uint32_t* spare;
  double* sums;     // kBuckets, or a number for each span
};

constexpr int kSpan = 256;      // scores that are looked at together
constexpr int kBuckets = 2048;  // of a histogram

struct DsSampling {
  // The largest score, ties to the lowest id; -1 if the row is no distribution.
  int (*point)(const float* scores, int n, DsScratch&);
  // Zeros if the row is no distribution.
  void (*law)(const float* scores, int n, const DsLaw&, DsScratch&, float* out);
  // argmin of noise(token) / law(token), ties to the lowest id; 0 without mass.
  int (*race)(const float* law, int n, const DsCounter&);
  // The four words of each of 16 blocks, in order.
  void (*philox)(uint32_t first_block, const DsCounter&, uint32_t* words);
  int (*has_mass)(const float* law, int n);
  // The first token whose cumulative mass exceeds `uniform` times the whole; n without mass.
  int (*draw)(const float* law, int n, double uniform, DsScratch&);
  // The ids of the k < n largest scores, the largest first, ties to the lowest id; 0 for a row with NaN,
  // and -1 where the largest is infinite.
  int (*top_ids)(const float* scores, int n, int k, DsScratch&, int64_t* out);
};
