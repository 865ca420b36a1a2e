// What one pass works on: its rows, its memory, and its attention cut into tasks.
#pragma once

#include <vector>

#include "activations.h"
#include "decoder.h"

// A row is one token: its sequence, its position there, and where the cache has it.
struct Row {
  int sequence, position, slot;
};

// Queries of one key head, counted over the tokens of a sequence, then the heads that share it.
struct AttentionTask {
  int sequence, kv_head, first_query, num_queries;
};

// Laid out before any thread starts, and of one size from then on.
class Workspace {
 public:
  Workspace(const DsDecoder& model, const DsPass& pass, int num_threads);

  std::vector<Row> rows;
  std::vector<int> first_row;  // of each sequence
  std::vector<AttentionTask> attention_tasks;
  bool each_norms = false;     // every thread norms all rows for itself
  bool fuses_heads = false;    // a task computes, turns and stores a whole head
  Activations context, gated;
  int value_stride = 0;
  int64_t score_stride = 0;

  int num_rows() const { return static_cast<int>(rows.size()); }
  int num_angles() const { return model_.head_size / 2; }

  // Of a row of a tree: the slots of its positions from the sequence's past on, its own the last;
  // null in a chain, where they are the positions.
  const int* path(int m) const {
    const int64_t start = path_starts_[static_cast<size_t>(m)];
    return start < 0 ? nullptr : path_slots_.data() + start;
  }

  float* hidden(int m) { return hidden_.data() + static_cast<int64_t>(m) * model_.hidden_size; }
  float* query(int m, int head) { return at(queries_, model_.num_heads, m, head); }
  float* key(int m, int head) { return at(keys_, model_.num_kv_heads, m, head); }
  float* value(int m, int head) { return at(values_, model_.num_kv_heads, m, head); }
  float* cosines(int m) { return cosines_.data() + static_cast<int64_t>(m) * num_angles(); }
  float* sines(int m) { return sines_.data() + static_cast<int64_t>(m) * num_angles(); }
  Activations& normed(int thread) { return normed_[each_norms ? static_cast<size_t>(thread) : 0]; }

  // Scratch of one thread: kMostQueries rows of scores, and four tiles of every row.
  float* scores(int thread) { return scores_[static_cast<size_t>(thread)].data(); }
  float* tiles(int thread) { return tiles_[static_cast<size_t>(thread)].data(); }

  // Where a head lies in the cache of a sequence.
  void* cached_keys(int sequence, int layer, int head) const;
  void* cached_values(int sequence, int layer, int head) const;

 private:
  const DsDecoder& model_;
  const DsPass& pass_;
  std::vector<float> hidden_, queries_, keys_, values_, cosines_, sines_;
  std::vector<Activations> normed_;  // one, or one a thread
  std::vector<std::vector<float>> scores_, tiles_;
  std::vector<int> path_slots_;
  std::vector<int64_t> path_starts_;  // of each row; -1 in a chain

  void place_rows();
  void place_tree(int sequence, const int32_t* parents);
  void allocate(int num_threads);
  void plan_attention(int num_threads);
  float* at(std::vector<float>& heads, int num_heads, int m, int head) const {
    return heads.data() + (static_cast<int64_t>(m) * num_heads + head) * model_.head_size;
  }
  void* cached(void* base, int64_t capacity, int64_t width, int layer, int head) const;
};
