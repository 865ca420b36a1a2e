// The likeliest guesses as a tree, best first, or as a chain: the twin of drafters/best_first.py.
#pragma once

#include <algorithm>

#include "evidence.h"

namespace guessing {

struct Node {
  int32_t token, parent;
  double sure;
  Known known;
};
using Grown = std::vector<Node>;

// Guesses at one place that have not had their turn.
struct Siblings {
  Guesses guesses;
  int32_t parent;
  double chance;  // of the parent
  Place place;
};

struct Waiting {
  double chance;
  int order;  // which comes first of equals
  double sure;
  size_t siblings;
  int guess;

  bool operator<(const Waiting& other) const {
    return chance != other.chance ? chance < other.chance : order > other.order;
  }
};

// Memory of a growth, kept from round to round.
struct Growth {
  std::vector<Siblings> siblings;
  std::vector<Waiting> heap;

  // The `size` likeliest nodes; a node's chance is the product along its path.
  void grow(const Sources& sources, const Place& place, int size, Grown& grown) {
    siblings.clear();
    heap.clear();
    wait(sources, open(sources, -1, 1.0, place), 0);
    while (!heap.empty() && static_cast<int>(grown.size()) < size) {
      std::pop_heap(heap.begin(), heap.end());
      const Waiting turn = heap.back();
      heap.pop_back();
      Siblings& here = siblings[turn.siblings];
      Guess& guess = here.guesses.items[turn.guess];
      guess.is_taken = true;
      const int node = static_cast<int>(grown.size());
      grown.push_back({guess.token, here.parent, turn.sure, guess.known});
      if (node + 1 >= size) break;
      const Place next = sources.next(here.place, guess.token);
      wait(sources, turn.siblings, 2 * node + 1);
      wait(sources, open(sources, node, turn.chance, next), 2 * node + 2);
    }
  }

  // The likeliest next token, and so on.
  void grow_chain(const Sources& sources, Place place, int size, Grown& grown) {
    Guesses guesses;
    double chance = 1.0;
    while (static_cast<int>(grown.size()) < size) {
      sources.guess(place, guesses);
      const int best = guesses.best();
      if (best < 0) return;
      const Guess& guess = guesses.items[best];
      const double sure = chance_of(guess.log_odds);
      chance *= sure;
      if (chance < sources.least_chance) return;
      grown.push_back({guess.token, static_cast<int32_t>(grown.size()) - 1, sure, guess.known});
      place = sources.next(place, guess.token);
    }
  }

 private:
  size_t open(const Sources& sources, int32_t parent, double chance, const Place& place) {
    siblings.emplace_back();
    Siblings& fresh = siblings.back();
    fresh.parent = parent;
    fresh.chance = chance;
    fresh.place = place;
    sources.guess(place, fresh.guesses);
    return siblings.size() - 1;
  }

  // Lets the likeliest of some siblings wait for its turn; the others are less likely.
  void wait(const Sources& sources, size_t index, int order) {
    const Siblings& some = siblings[index];
    const int best = some.guesses.best();
    if (best < 0) return;
    const double sure = chance_of(some.guesses.items[best].log_odds);
    const double chance = some.chance * sure;
    if (chance < sources.least_chance) return;
    heap.push_back({chance, order, sure, index, best});
    std::push_heap(heap.begin(), heap.end());
  }
};

// What followed the last time that a text ran like a long match.
inline void copy(const Sources& sources, const SuffixAutomaton& automaton, Cursor match, int size, Grown& grown) {
  std::vector<int32_t> tokens(static_cast<size_t>(size));
  const int count = automaton.copied(match, size, tokens.data());
  for (int step = 0; step < count; ++step) {
    int place = 0;
    for (const int least : kCopyLengths) place += match.length + step >= least;
    const Known known = {1, {kCopies + (place > 1 ? place - 1 : 0)}};
    const double sure = chance_of(sources.odds.log_odds(known, sources.shift));
    grown.push_back({tokens[static_cast<size_t>(step)], step - 1, sure, known});
  }
}

}  // namespace guessing
