// Rows of activations, in float and in 8 bits.
#pragma once

#include <vector>

#include "interface.h"

class Activations {
 public:
  void resize(int rows, int size) {
    rows_ = rows;
    groups_ = (size + kGroup - 1) / kGroup;
    stride_ = groups_ * kGroup;
    values_.resize(static_cast<size_t>(rows * stride_));
    codes_.resize(static_cast<size_t>(rows * stride_));
    scales_.resize(static_cast<size_t>(2 * rows * groups_));
    sums_.resize(static_cast<size_t>(rows * groups_));
    negated_.resize(static_cast<size_t>(2 * rows * groups_));
  }
  float* row(int m) { return values_.data() + m * stride_; }
  // Groups [first, last) of a row, from its floats.
  void quantise(const DsKernels& kernels, int m, int64_t first, int64_t last) {
    const int64_t group = m * groups_ + first;
    kernels.quantise(row(m) + kGroup * first, static_cast<int>(last - first),
                     codes_.data() + m * stride_ + kGroup * first, scales_.data() + 2 * group,
                     sums_.data() + group, negated_.data() + 2 * group);
  }
  void quantise(const DsKernels& kernels, int m) { quantise(kernels, m, 0, groups_); }
  DsRows rows(bool with_codes) const {
    return {rows_, values_.data(), stride_, with_codes ? codes_.data() : nullptr, stride_,
            scales_.data(), sums_.data(), negated_.data(), groups_};
  }

 private:
  int rows_ = 0;
  int64_t stride_ = 0, groups_ = 0;
  std::vector<float> values_, scales_, sums_;
  std::vector<int8_t> codes_;
  std::vector<int32_t> negated_;
};
