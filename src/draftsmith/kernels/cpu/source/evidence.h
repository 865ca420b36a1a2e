// What may come next at a place, and how likely: the twins of drafters/evidence.py and odds.py.
#pragma once

#include <cmath>

#include "successors.h"
#include "suffix_automaton.h"

namespace guessing {

constexpr int kStrengths[] = {0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6, 6, 7};
constexpr int kLongest = 12;  // the last of the table
constexpr int kNumStrengths = 8;
// Absent is 0: it did not follow.
constexpr int kShorter = 1, kRare = 2, kOften = 3, kNewest = 4, kAlways = 5, kNumClasses = 6;
constexpr int kMostOfMatch = 4, kMostOfShorter = 2;
constexpr int kUnknown = 0, kUnseen = 1, kNumRanks = 7;
constexpr int kRanks[kSuccessors] = {2, 3, 4, 5, 6, 6, 6, 6};
constexpr int kCopyLengths[] = {12, 16, 24, 32, 64};

constexpr int kOwn = 0;
constexpr int kShared = kOwn + kNumStrengths * kNumClasses;
constexpr int kRows = kShared + kNumStrengths * kNumClasses;
constexpr int kCopies = kRows + kNumRanks * kNumRanks;
constexpr int kNumWeights = kCopies + 5;

// The classes of a guess: indices of weights.
struct Known {
  int count = 0;
  int classes[3] = {};
};

inline double chance_of(double log_odds) {
  const double chance = 1 / (1 + std::exp(-log_odds));
  return chance < 1e-3 ? 1e-3 : chance > 1 - 1e-3 ? 1 - 1e-3 : chance;
}

struct Odds {
  double weights[kNumWeights];
  double squares[kNumWeights];

  double log_odds(const Known& known, double shift) const {
    for (int i = 0; i < known.count; ++i) shift += weights[known.classes[i]];
    return shift;
  }

  // Learns whether a guess was right; returns the sequence's shift from then on.
  double learn(const Known& known, bool is_right, double shift) {
    const double error = chance_of(log_odds(known, shift)) - (is_right ? 1 : 0);
    for (int i = 0; i < known.count; ++i) {
      const int index = known.classes[i];
      squares[index] += error * error;
      weights[index] -= 0.5 * error / std::sqrt(squares[index]);
    }
    return shift - 0.06 * error;
  }
};

// Where a text stands, drafted tokens included.
struct Place {
  int32_t before, token;  // before is -1 for none
  Cursor own, shared;
};

// Guesses of one source in the order in which it has them, and the class of everything else.
template <int kMost> struct Source {
  struct One {
    int32_t token;
    int kind;
  };
  One items[kMost];
  int count = 0, absent = 0;

  void put(int32_t token, int kind) { items[count++] = {token, kind}; }

  One* find(int32_t token) {
    for (int i = 0; i < count; ++i)
      if (items[i].token == token) return items + i;
    return nullptr;
  }

  int kind_of(int32_t token) {
    const One* found = find(token);
    return found == nullptr ? absent : found->kind;
  }
};

using Matched = Source<kMostOfMatch + kMostOfShorter>;
using Ranked = Source<2 * kSuccessors>;

inline Matched classify(const SuffixAutomaton& automaton, Cursor cursor, int first) {
  Matched found;
  found.absent = first;
  Followers followers;
  while (cursor.length != 0 && (followers = automaton.followers(cursor)).count == 0)
    cursor = automaton.shorter(cursor);
  if (cursor.length == 0) return found;
  const int base = first + kStrengths[cursor.length < kLongest ? cursor.length : kLongest] * kNumClasses;
  found.absent = base;
  found.put(followers.items[0].token, base + (followers.count == 1 ? kAlways : kNewest));
  const int32_t occurrences = automaton.occurrences(cursor);
  for (int i = 1; i < followers.count && i < kMostOfMatch; ++i)
    found.put(followers.items[i].token, base + (2 * followers.items[i].times >= occurrences ? kOften : kRare));
  if (cursor.length <= 1) return found;
  const Cursor shorter = automaton.shorter(cursor);
  if (shorter.length == 0) return found;
  const int room = found.count + kMostOfShorter;
  followers = automaton.followers(shorter);
  for (int i = 0; i < followers.count && found.count < room; ++i)
    if (found.find(followers.items[i].token) == nullptr) found.put(followers.items[i].token, base + kShorter);
  return found;
}

inline Ranked rank(const SuccessorTable& table, const Place& place) {
  static const Successors none;
  const Successors& pair =
      place.before < 0 ? none : table.pairs.find(SuccessorTable::key_of(place.before, place.token));
  const Successors& single = table.tokens.find(place.token);
  const int in_single = single.count != 0 ? kUnseen : kUnknown;
  const int beyond = kRows + (pair.count != 0 ? kUnseen : kUnknown) * kNumRanks;
  Ranked found;
  found.absent = beyond + in_single;
  for (int i = 0; i < pair.count; ++i) found.put(pair.ids[i], kRows + kRanks[i] * kNumRanks + in_single);
  for (int i = 0; i < single.count; ++i) {
    auto* both = found.find(single.ids[i]);
    if (both != nullptr) {
      both->kind += kRanks[i] - in_single;
    } else {
      found.put(single.ids[i], beyond + kRanks[i]);
    }
  }
  return found;
}

struct Guess {
  int32_t token;
  bool is_taken;
  Known known;
  double log_odds;
};

// All guesses at a place, the first said first.
struct Guesses {
  Guess items[2 * (kMostOfMatch + kMostOfShorter) + 2 * kSuccessors];
  int count = 0;

  // The likeliest that is not taken, of equals the first; -1 for none.
  int best() const {
    int found = -1;
    for (int i = 0; i < count; ++i)
      if (!items[i].is_taken && (found < 0 || items[i].log_odds > items[found].log_odds)) found = i;
    return found;
  }
};

// What is asked about one text.
struct Sources {
  const SuffixAutomaton& own;
  const SuffixAutomaton* shared;  // may be none
  const SuccessorTable& table;
  const Odds& odds;
  double shift, least_chance;

  Place next(const Place& place, int32_t token) const {
    return {place.token, token, own.step(place.own, token),
            shared == nullptr ? Cursor{} : shared->step(place.shared, token)};
  }

  void guess(const Place& place, Guesses& guesses) const {
    Matched in_own = classify(own, place.own, kOwn), in_shared;
    in_shared.absent = kShared;
    if (shared != nullptr && place.shared.length != 0) in_shared = classify(*shared, place.shared, kShared);
    Ranked in_rows = rank(table, place);
    guesses.count = 0;
    const auto put = [&](int32_t token, int of_own, int of_shared, int of_rows) {
      const Known known = {3, {of_own, of_shared, of_rows}};
      guesses.items[guesses.count++] = {token, false, known, odds.log_odds(known, shift)};
    };
    for (int i = 0; i < in_own.count; ++i) {
      const auto& [token, kind] = in_own.items[i];
      put(token, kind, in_shared.kind_of(token), in_rows.kind_of(token));
    }
    for (int i = 0; i < in_shared.count; ++i) {
      const auto& [token, kind] = in_shared.items[i];
      if (in_own.find(token) == nullptr) put(token, in_own.absent, kind, in_rows.kind_of(token));
    }
    for (int i = 0; i < in_rows.count; ++i) {
      const auto& [token, kind] = in_rows.items[i];
      if (in_own.find(token) == nullptr && in_shared.find(token) == nullptr)
        put(token, in_own.absent, in_shared.absent, kind);
    }
  }
};

}  // namespace guessing
