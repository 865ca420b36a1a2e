// A suffix automaton that grows: the fast twin of drafters/suffix_automaton.py, state for state.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace guessing {

constexpr int kEnd = -1;           // between two documents
constexpr int kMostSuffixes = 24;  // of one place that are counted
constexpr int kMostFollowers = 6;  // of one context that are looked at

// Where a text stands: a state, and the length of the longest end that is known.
struct Cursor {
  int32_t state = 0, length = 0;
};

struct Followers {
  struct One {
    int32_t token, times;
  };
  One items[kMostFollowers];
  int count = 0;
};

// Further followers of a state that has several, in the order in which they were new.
class Branches {
 public:
  struct One {
    int32_t token, target;
  };

  int32_t find(int32_t token) const {
    const int64_t place = place_of(token);
    return place < 0 ? -1 : order_[static_cast<size_t>(place)].target;
  }

  void set(int32_t token, int32_t target) {
    const int64_t place = place_of(token);
    if (place >= 0) {
      order_[static_cast<size_t>(place)].target = target;
      return;
    }
    order_.push_back({token, target});
    if (order_.size() == kFew + 1) {
      for (size_t i = 0; i < order_.size(); ++i) places_[order_[i].token] = static_cast<int64_t>(i);
    } else if (order_.size() > kFew) {
      places_[token] = static_cast<int64_t>(order_.size()) - 1;
    }
  }

  const std::vector<One>& order() const { return order_; }

 private:
  static constexpr size_t kFew = 16;  // that are sooner looked through than looked up

  int64_t place_of(int32_t token) const {
    if (order_.size() > kFew) {
      const auto found = places_.find(token);
      return found == places_.end() ? -1 : found->second;
    }
    for (size_t i = 0; i < order_.size(); ++i)
      if (order_[i].token == token) return static_cast<int64_t>(i);
    return -1;
  }

  std::vector<One> order_;
  std::unordered_map<int32_t, int64_t> places_;  // empty while there are few
};

class SuffixAutomaton {
 public:
  SuffixAutomaton() : states_(1), branches_(1) {
    states_[0] = {-1, 0, kEnd, 0, -1, 0, 0};
  }

  int64_t size() const { return static_cast<int64_t>(text_.size()); }
  int32_t last() const { return last_; }
  const std::vector<int32_t>& text() const { return text_; }

  void add(const int32_t* document, int64_t count) {
    go_to(0);
    for (int64_t i = 0; i < count; ++i) append(document[i]);
    go_to(0);
  }

  // Goes on behind a state: 0 begins a document; another was `last` once, and takes back.
  void go_to(int32_t state) {
    if (!text_.empty() && text_.back() != kEnd) {
      count(last_, -1);
      text_.push_back(kEnd);
    }
    last_ = state;
  }

  void append(int32_t token) {
    const int32_t last = last_;
    count(last, static_cast<int32_t>(text_.size()) - 1);
    text_.push_back(token);
    int32_t known = after(last, token);
    if (known >= 0) {
      last_ = apart(last, token, known);
      return;
    }
    const int32_t fresh = make(at(last).length + 1);
    for (int32_t place = last; place >= 0; place = at(place).link) {
      known = after(place, token);
      if (known >= 0) {
        const int32_t link = apart(place, token, known);
        at(fresh).link = link;
        break;
      }
      lead(place, token, fresh);
    }
    last_ = fresh;
  }

  Cursor step(Cursor cursor, int32_t token) const {
    cursor = settled(cursor);
    while (true) {
      const int32_t next = after(cursor.state, token);
      if (next >= 0) return {next, cursor.length + 1};
      if (cursor.state == 0) return {};
      const int32_t link = at(cursor.state).link;
      cursor = {link, at(link).length};
    }
  }

  // The same place, where what was read since has split the state.
  Cursor settled(Cursor cursor) const {
    while (cursor.state != 0 && cursor.length <= at(at(cursor.state).link).length)
      cursor.state = at(cursor.state).link;
    return cursor;
  }

  // The longest shorter context that occurred elsewhere, too; length 0 is none.
  Cursor shorter(Cursor cursor) const {
    const int32_t state = at(cursor.state).link;
    return state > 0 ? Cursor{state, at(state).length} : Cursor{};
  }

  // What followed the newest occurrence, up to the end of its document; returns how many of `most`.
  int copied(Cursor cursor, int most, int32_t* out) const {
    const size_t start = static_cast<size_t>(at(cursor.state).newest + 1);
    if (start == 0) return 0;
    size_t from = start;
    for (int i = 0; i < most; ++i) {
      if (from == text_.size()) from = start;  // a document that goes on repeats itself
      const int32_t token = text_[from++];
      if (token == kEnd) return i;
      out[i] = token;
    }
    return most;
  }

  int32_t occurrences(Cursor cursor) const { return at(cursor.state).count; }

  // What followed a context: the newest first, then others as they are known.
  Followers followers(Cursor cursor) const {
    Followers found;
    const State& state = at(cursor.state);
    if (state.newest < 0) return found;
    const auto put = [&](int32_t token, int32_t target) {
      const int32_t times = at(target).count;
      found.items[found.count++] = {token, times != 0 ? times : 1};
    };
    if (state.others < 0) {
      put(state.token, state.target);
      return found;
    }
    const int32_t newest = text_[static_cast<size_t>(state.newest) + 1];
    put(newest, after(cursor.state, newest));
    if (state.token != newest && state.token != kEnd) put(state.token, state.target);
    const auto& order = branches_[static_cast<size_t>(state.others)].order();
    for (auto one = order.rbegin(); one != order.rend() && found.count < kMostFollowers; ++one)
      if (one->token != newest) put(one->token, one->target);
    return found;
  }

 private:
  struct State {
    int32_t link, length;
    int32_t token, target;  // the first that followed, and where it leads
    int32_t newest, count;
    int32_t others;  // its branches; -1 for none, and all those of the root are there
  };

  State& at(int32_t state) { return states_[static_cast<size_t>(state)]; }
  const State& at(int32_t state) const { return states_[static_cast<size_t>(state)]; }

  int32_t after(int32_t place, int32_t token) const {
    const State& state = at(place);
    if (state.token == token) return state.target;
    return state.others < 0 ? -1 : branches_[static_cast<size_t>(state.others)].find(token);
  }

  void lead(int32_t place, int32_t token, int32_t target) {
    State& state = at(place);
    if (state.token == token || (state.token == kEnd && place != 0)) {
      state.token = token;
      state.target = target;
      return;
    }
    if (state.others < 0) {
      state.others = static_cast<int32_t>(branches_.size());
      branches_.emplace_back();
    }
    branches_[static_cast<size_t>(state.others)].set(token, target);
  }

  int32_t make(int32_t length) {
    states_.push_back({0, length, kEnd, 0, -1, 0, -1});
    return static_cast<int32_t>(states_.size()) - 1;
  }

  // The state of `place` and `token` alone: what longer strings share it is split off.
  int32_t apart(int32_t place, int32_t token, int32_t known) {
    const int32_t length = at(place).length + 1;
    if (at(known).length == length) return known;
    const int32_t twin = make(length);
    const State shared = at(known);
    State& own = at(twin);
    own = shared;
    own.length = length;
    if (shared.others >= 0) {
      own.others = static_cast<int32_t>(branches_.size());
      branches_.push_back(Branches(branches_[static_cast<size_t>(shared.others)]));
    }
    at(known).link = twin;
    for (; place >= 0 && after(place, token) == known; place = at(place).link) lead(place, token, twin);
    return twin;
  }

  // Counts the end of the text and all its suffixes; `end` is where, if a token follows.
  void count(int32_t place, int32_t end) {
    for (int i = 0; i < kMostSuffixes && place > 0; ++i) {
      State& state = at(place);
      if (end >= 0) state.newest = end;
      ++state.count;
      place = state.link;
    }
  }

  std::vector<int32_t> text_;
  std::vector<State> states_;
  std::vector<Branches> branches_;
  int32_t last_ = 0;
};

}  // namespace guessing
