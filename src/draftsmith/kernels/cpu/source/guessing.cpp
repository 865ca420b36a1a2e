// The free draft for Python: a memory that texts share, and the texts. The twin is drafters/plain_memory.py.
//
// Nothing here takes a lock: who calls holds the memory's.
#include <memory>

#include "best_first.h"

namespace guessing {
namespace {

constexpr int64_t kMostOfText = 4096;     // of one text that has ended
constexpr int64_t kOverlap = 16;          // tokens that are read again behind a known beginning
constexpr int64_t kLookBack = 64;         // tokens at the end that a match is looked for in
constexpr int32_t kLong = 12;             // a match that is copied as it is

using Tokens = std::vector<int32_t>;
using Shared = std::shared_ptr<SuffixAutomaton>;

// What texts leave behind for those that come; the twin of SharedMemory.
struct Memory {
  Memory(int64_t tokens, int64_t contexts, int64_t text)
      : most_tokens(tokens), most_contexts(contexts), most_of_text(text), table(contexts) {}

  int64_t most_tokens, most_contexts;
  int64_t most_of_text;  // tokens of one that goes on, before its older half is forgotten
  Shared older, newer = std::make_shared<SuffixAutomaton>();
  SuccessorTable table;
  Odds odds;
  Growth growth;

  void add(const Tokens& text) {
    const int32_t* first = text.data();
    int64_t count = static_cast<int64_t>(text.size()), known = 0;
    if (count > kMostOfText) {
      first += count - kMostOfText;
      count = kMostOfText;
    }
    Cursor cursor;
    for (; known < count; ++known) {
      cursor = newer->step(cursor, first[known]);
      if (cursor.length <= known) break;
    }
    if (known == count) return;
    const int64_t skipped = std::max({int64_t{0}, known - kOverlap, count - most_tokens});
    first += skipped;
    count -= skipped;
    if (newer->size() + count > most_tokens && newer->size() > 0) {
      older = newer;
      newer = std::make_shared<SuffixAutomaton>();
    }
    newer->add(first, count);
  }
};

// A text, and where its end ran like this before; the twins of GrowingText and MemoryReader.
struct Text {
  Text(int64_t tokens, const int32_t* begin, int64_t count) : most(tokens), source(begin, begin + count) {}

  int64_t most;
  Tokens source, read;
  SuffixAutomaton own;
  int64_t first = 0;  // tokens at the beginning that are forgotten
  std::vector<int32_t> states;
  struct Followed {
    Shared automaton;
    Cursor cursor;
  };
  std::vector<Followed> places;
  int64_t num_followed = 0;
  double shift = 0;
  Grown drafted;
  int64_t num_before = 0;

  void take_in(Memory& memory, int64_t common, const int32_t* fresh, int64_t count) {
    const int64_t held = static_cast<int64_t>(read.size()), length = common + count;
    read.resize(static_cast<size_t>(common));
    read.insert(read.end(), fresh, fresh + count);
    grow(held, common, length);
    follow(memory, common);
    if (!drafted.empty() && common >= num_before) learn(memory.odds);
    drafted.clear();
    num_before = length;
  }

  void draft(Memory& memory, int size, double least, bool is_tree) {
    const Cursor match = own.shorter({own.last(), 0});
    Cursor shared_match;
    const SuffixAutomaton* shared = nullptr;
    for (const Followed& one : places)
      if (one.cursor.length > shared_match.length) {
        shared = one.automaton.get();
        shared_match = shared->settled(one.cursor);
      }
    const Sources sources = {own, shared, memory.table, memory.odds, shift, least};
    if (match.length >= kLong && match.length >= shared_match.length) {
      copy(sources, own, match, size, drafted);
    } else if (shared_match.length >= kLong) {
      copy(sources, *shared, shared_match, size, drafted);
    }
    if (!drafted.empty()) return;
    const size_t count = read.size();
    const Place place = {count > 1 ? read[count - 2] : -1, read[count - 1], match, shared_match};
    if (is_tree) {
      memory.growth.grow(sources, place, size, drafted);
    } else {
      memory.growth.grow_chain(sources, place, size, drafted);
    }
  }

 private:
  void grow(int64_t held, int64_t common, int64_t length) {
    if (held == 0 || common < first || own.size() + length - common > most) {
      begin(length);
      common = first;
    } else if (common < held) {
      states.resize(static_cast<size_t>(common - first + 1));
      own.go_to(states.back());
    }
    for (int64_t i = common; i < length; ++i) {
      own.append(read[static_cast<size_t>(i)]);
      states.push_back(own.last());
    }
  }

  void begin(int64_t length) {
    const int64_t half = most / 2;
    own = SuffixAutomaton();
    const int64_t count = std::min(half, static_cast<int64_t>(source.size()));
    own.add(source.data() + source.size() - count, count);
    first = std::max(int64_t{0}, length - half);
    states.assign(1, 0);
  }

  void follow(const Memory& memory, int64_t common) {
    const int64_t length = static_cast<int64_t>(read.size());
    std::vector<Followed> held;
    held.swap(places);
    const bool is_longer = num_followed == common;
    for (const Shared& automaton : {memory.newer, memory.older}) {
      if (automaton == nullptr) continue;
      Cursor cursor;
      int64_t from = std::max(int64_t{0}, length - kLookBack);
      for (const Followed& one : held)
        if (is_longer && one.automaton == automaton) {
          cursor = one.cursor;
          from = common;
        }
      for (; from < length; ++from) cursor = automaton->step(cursor, read[static_cast<size_t>(from)]);
      places.push_back({automaton, cursor});
    }
    num_followed = length;
  }

  // Learns which nodes came true, of those behind nodes that did.
  void learn(Odds& odds) {
    const int64_t num_came = static_cast<int64_t>(read.size()) - num_before;
    std::vector<int64_t> depths;
    depths.reserve(drafted.size());
    for (const Node& node : drafted) {
      const int64_t depth = node.parent < 0 ? 0 : depths[static_cast<size_t>(node.parent)];
      if (depth < 0 || depth >= num_came) {
        depths.push_back(-1);
        continue;
      }
      const bool is_right = read[static_cast<size_t>(num_before + depth)] == node.token;
      shift = odds.learn(node.known, is_right, shift);
      depths.push_back(is_right ? depth + 1 : -1);
    }
  }
};

void read_documents(const int32_t* text, int64_t count, SuffixAutomaton& automaton) {
  for (int64_t from = 0, to; from < count; from = to + 1) {
    for (to = from; to < count && text[to] >= 0;) ++to;
    if (to > from) automaton.add(text + from, to - from);
  }
}

void write_rows(const SuccessorRows& rows, int64_t* keys, int32_t* ids) {
  for (const Successors& row : rows.by_age()) {
    *keys++ = row.key;
    for (int i = 0; i < kSuccessors; ++i) *ids++ = i < row.count ? row.ids[i] : -1;
  }
}

void read_rows(const int64_t* keys, const int32_t* ids, int64_t count, SuccessorRows& rows) {
  for (int64_t row = 0; row < count; ++row, ids += kSuccessors) {
    int32_t kept[kSuccessors];
    int num_kept = 0;
    for (int i = 0; i < kSuccessors; ++i)
      if (ids[i] >= 0) kept[num_kept++] = ids[i];
    rows.put(keys[row], kept, num_kept);
  }
}

Memory& memory_of(void* handle) { return *static_cast<Memory*>(handle); }
Text& text_of(void* handle) { return *static_cast<Text*>(handle); }

}  // namespace
}  // namespace guessing

using namespace guessing;

// What a memory holds, as drafters/memory.py's Contents has it.
struct DsContents {
  int32_t *older, *newer;
  int64_t* pairs;
  int32_t* pair_rows;
  int64_t* tokens;
  int32_t* token_rows;
  double *weights, *squares;
  int64_t num_older, num_newer, num_pairs, num_tokens, num_weights;
};

#pragma GCC visibility push(default)
extern "C" {

void* ds_memory_new(int64_t most_tokens, int64_t most_contexts, int64_t most_of_text) {
  return new Memory(most_tokens, most_contexts, most_of_text);
}
void ds_memory_delete(void* memory) { delete static_cast<Memory*>(memory); }

// How much there is to write.
void ds_memory_sizes(void* handle, DsContents* out) {
  const Memory& memory = memory_of(handle);
  out->num_older = memory.older == nullptr ? 0 : memory.older->size();
  out->num_newer = memory.newer->size();
  out->num_pairs = static_cast<int64_t>(memory.table.pairs.by_age().size());
  out->num_tokens = static_cast<int64_t>(memory.table.tokens.by_age().size());
  out->num_weights = kNumWeights;
}

void ds_memory_write(void* handle, const DsContents* out) {
  const Memory& memory = memory_of(handle);
  if (memory.older != nullptr) std::copy_n(memory.older->text().data(), out->num_older, out->older);
  std::copy_n(memory.newer->text().data(), out->num_newer, out->newer);
  write_rows(memory.table.pairs, out->pairs, out->pair_rows);
  write_rows(memory.table.tokens, out->tokens, out->token_rows);
  std::copy_n(memory.odds.weights, kNumWeights, out->weights);
  std::copy_n(memory.odds.squares, kNumWeights, out->squares);
}

// Forgets everything, and knows this; 0, and nothing done, if there are not as many weights.
int ds_memory_read(void* handle, const DsContents* given) {
  Memory& memory = memory_of(handle);
  if (given->num_weights != kNumWeights) return 0;
  const auto older = std::make_shared<SuffixAutomaton>();
  read_documents(given->older, given->num_older, *older);
  memory.older = older->size() > 0 ? older : nullptr;
  memory.newer = std::make_shared<SuffixAutomaton>();
  read_documents(given->newer, given->num_newer, *memory.newer);
  memory.table = SuccessorTable(memory.most_contexts);
  read_rows(given->pairs, given->pair_rows, given->num_pairs, memory.table.pairs);
  read_rows(given->tokens, given->token_rows, given->num_tokens, memory.table.tokens);
  std::copy_n(given->weights, kNumWeights, memory.odds.weights);
  std::copy_n(given->squares, kNumWeights, memory.odds.squares);
  return 1;
}

// Keeps `k` likely ids behind each token of a check; `before` is the token before the first, or -1.
void ds_memory_note(void* handle, int32_t before, const int32_t* tokens, const int32_t* parents, const int32_t* ids,
                    int num_rows, int k) {
  Memory& memory = memory_of(handle);
  for (int row = 0; row < num_rows; ++row, ids += k) {
    int count = 0;
    while (count < k && ids[count] >= 0) ++count;
    memory.table.note(parents[row] < 0 ? before : tokens[parents[row]], tokens[row], ids, count);
  }
}

void* ds_text_new(void* memory, const int32_t* source, int64_t count) {
  return new Text(memory_of(memory).most_of_text, source, count);
}
void ds_text_delete(void* text) { delete static_cast<Text*>(text); }

// Keeps a text that has ended for those that come.
void ds_memory_keep(void* memory, void* text) { memory_of(memory).add(text_of(text).read); }

// Takes in `count` new tokens behind the first `common`, and drafts at most `size`; returns how many.
int ds_text_propose(void* handle, void* of, int64_t common, const int32_t* fresh, int64_t count, int size,
                    double least_chance, int is_tree, int32_t* tokens, int32_t* parents, double* confidences) {
  Memory& memory = memory_of(of);
  Text& text = text_of(handle);
  text.take_in(memory, common, fresh, count);
  text.draft(memory, size, least_chance, is_tree != 0);
  for (const Node& node : text.drafted) {
    *tokens++ = node.token;
    *parents++ = node.parent;
    *confidences++ = node.sure;
  }
  return static_cast<int>(text.drafted.size());
}

}  // extern "C"
#pragma GCC visibility pop
