// Sizes, and the choices that depend on how many rows and threads there are.
#include "workspace.h"

#include <algorithm>

namespace {

constexpr int kFewRows = 4;

bool is_chain(const int32_t* parents, int count) {
  for (int i = 0; i < count; ++i)
    if (parents[i] != i - 1) return false;
  return true;
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Workspace::Workspace(const DsDecoder& model, const DsPass& pass, int num_threads)
    : model_(model), pass_(pass) {
  place_rows();
  // A few rows are sooner normed by every thread for itself than waited for.
  each_norms = num_rows() <= kFewRows;
  fuses_heads = model.head_size % kTile == 0 &&
                (model.num_heads + 2 * model.num_kv_heads) * num_rows() >= 4 * num_threads;
  value_stride = static_cast<int>(round_up(model.head_size, 16));
  allocate(num_threads);
  plan_attention(num_threads);
}

void Workspace::place_rows() {
  int longest = 0;
  for (int s = 0; s < pass_.num_sequences; ++s) {
    const DsSequence& sequence = pass_.sequences[s];
    const int first = num_rows(), count = sequence.num_tokens;
    first_row.push_back(first);
    for (int i = 0; i < count; ++i) rows.push_back({s, sequence.past + i, sequence.past + i});
    path_starts_.resize(rows.size(), -1);
    if (pass_.parents != nullptr && !is_chain(pass_.parents + first, count))
      place_tree(s, pass_.parents + first);
    longest = std::max(longest, sequence.past + sequence.num_tokens);
  }
  score_stride = round_up(longest, 16);
}

// A token's position is its depth's, and its path is its parent's and itself.
void Workspace::place_tree(int sequence, const int32_t* parents) {
  const int past = pass_.sequences[sequence].past;
  const size_t first = static_cast<size_t>(first_row[static_cast<size_t>(sequence)]);
  for (size_t m = first; m < rows.size(); ++m) {
    const int parent = parents[m - first];
    const size_t before = first + static_cast<size_t>(std::max(parent, 0));
    const int depth = parent < 0 ? 0 : rows[before].position - past + 1;
    path_starts_[m] = static_cast<int64_t>(path_slots_.size());
    for (int i = 0; i < depth; ++i)
      path_slots_.push_back(path_slots_[static_cast<size_t>(path_starts_[before] + i)]);
    path_slots_.push_back(rows[m].slot);
    rows[m].position = past + depth;
  }
}

void Workspace::allocate(int num_threads) {
  const auto count = rows.size(), threads = static_cast<size_t>(num_threads);
  const auto head_size = static_cast<size_t>(model_.head_size);
  hidden_.resize(count * static_cast<size_t>(model_.hidden_size));
  queries_.resize(count * static_cast<size_t>(model_.num_heads) * head_size);
  keys_.resize(count * static_cast<size_t>(model_.num_kv_heads) * head_size);
  values_.resize(keys_.size());
  cosines_.resize(count * static_cast<size_t>(num_angles()));
  sines_.resize(cosines_.size());
  context.resize(num_rows(), model_.num_heads * model_.head_size);
  gated.resize(num_rows(), model_.intermediate_size);
  const int most = std::max(num_rows(), pass_.num_logits);
  normed_.resize(each_norms ? threads : 1);
  for (Activations& one : normed_) one.resize(most, model_.hidden_size);
  scores_.resize(threads);
  for (auto& scratch : scores_) scratch.resize(static_cast<size_t>(kMostQueries * score_stride));
  tiles_.resize(threads);
  for (auto& scratch : tiles_) scratch.resize(static_cast<size_t>(4 * kTile * most));
}

// Query heads that share a key head, and neighbouring tokens, go together.
void Workspace::plan_attention(int num_threads) {
  const int group = model_.num_heads / model_.num_kv_heads;
  const int total = model_.num_heads * num_rows();
  // Split the queries of a key head only for want of work: each part reads its keys again.
  const bool is_enough = model_.num_kv_heads * pass_.num_sequences >= num_threads;
  const int size = std::clamp(is_enough ? group * num_rows() : total / (2 * num_threads), 1, kMostQueries);
  for (int s = 0; s < pass_.num_sequences; ++s) {
    const int count = group * pass_.sequences[s].num_tokens;
    for (int head = 0; head < model_.num_kv_heads; ++head)
      for (int first = 0; first < count; first += size)
        attention_tasks.push_back({s, head, first, std::min(size, count - first)});
  }
}

void* Workspace::cached(void* base, int64_t capacity, int64_t width, int layer, int head) const {
  const int64_t element = (static_cast<int64_t>(layer) * model_.num_kv_heads + head) * capacity * width;
  return static_cast<char*>(base) + element * (model_.cache_is_half ? 2 : 4);
}

void* Workspace::cached_keys(int sequence, int layer, int head) const {
  const DsSequence& s = pass_.sequences[sequence];
  return cached(s.keys, s.capacity, model_.head_size, layer, head);
}

void* Workspace::cached_values(int sequence, int layer, int head) const {
  const DsSequence& s = pass_.sequences[sequence];
  return cached(s.values, s.capacity, value_stride, layer, head);
}
