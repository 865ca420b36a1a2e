// What the target held likely after a token and after two: the twin of drafters/token_recycling.py.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>

namespace guessing {

constexpr int kSuccessors = 8;  // ids that are kept of each row

struct Successors {
  int64_t key = 0;
  int32_t count = 0;
  int32_t ids[kSuccessors] = {};
};

// Rows by key; those that were seen longest ago go first.
class SuccessorRows {
 public:
  explicit SuccessorRows(int64_t most) : most_(most) {}

  const std::list<Successors>& by_age() const { return by_age_; }

  const Successors& find(int64_t key) const {
    static const Successors none;
    const auto found = places_.find(key);
    return found == places_.end() ? none : *found->second;
  }

  void put(int64_t key, const int32_t* ids, int count) {
    const auto [place, is_new] = places_.try_emplace(key);
    if (is_new) {
      by_age_.emplace_back();
      place->second = std::prev(by_age_.end());
    } else {
      by_age_.splice(by_age_.end(), by_age_, place->second);
    }
    Successors& row = by_age_.back();
    row.key = key;
    row.count = count < kSuccessors ? count : kSuccessors;
    for (int i = 0; i < row.count; ++i) row.ids[i] = ids[i];
    if (static_cast<int64_t>(by_age_.size()) <= most_) return;
    while (static_cast<int64_t>(by_age_.size()) > most_ / 2) {
      places_.erase(by_age_.front().key);
      by_age_.pop_front();
    }
  }

 private:
  int64_t most_;
  std::list<Successors> by_age_;
  std::unordered_map<int64_t, std::list<Successors>::iterator> places_;
};

// After one token and after two.
struct SuccessorTable {
  explicit SuccessorTable(int64_t most) : pairs(most), tokens(most) {}

  static int64_t key_of(int32_t before, int32_t token) {
    return static_cast<int64_t>(before) << 32 | token;
  }

  void note(int32_t before, int32_t token, const int32_t* ids, int count) {
    tokens.put(token, ids, count);
    if (before >= 0) pairs.put(key_of(before, token), ids, count);
  }

  SuccessorRows pairs, tokens;
};

}  // namespace guessing
