// One pass of a decoder: every thread walks the same stages, with a barrier after each.
#include "decoder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

#include "interface.h"

namespace {

using Clock = std::chrono::steady_clock;

enum Part { kProducts, kAttention, kRest };

constexpr int kFewRows = 4;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows of activations, in float and in 8 bits.
class Activations {
 public:
  void resize(int rows, int size) {
    rows_ = rows;
    stride_ = round_up(size, kGroup);
    groups_ = stride_ / kGroup;
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

struct AttentionTask {
  int sequence, kv_head, first_query, num_queries;
};

bool is_quantised(const DsMatrix& w) { return w.format > kBF16; }

int num_tiles(const DsMatrix& w) { return (w.num_outputs + kTile - 1) / kTile; }

class Pass {
 public:
  Pass(const DsDecoder& model, const DsPass& pass)
      : model_(model), pass_(pass), kernels_(ds_kernels()), integers_(!model.exact_activations) {}

  void run() {
    lay_out();
    Pool::shared().run([this](Team& team, int thread) { walk(team, thread); });
  }

 private:
  const DsDecoder& model_;
  const DsPass& pass_;
  const DsKernels& kernels_;
  const bool integers_;
  int num_rows_ = 0, half_ = 0, longest_ = 0;
  bool each_norms_ = false;   // every thread norms all rows for itself
  bool fuses_heads_ = false;  // a task computes, turns and stores a whole head
  std::vector<int> row_sequence_, row_position_, first_row_;
  std::vector<float> hidden_, queries_, keys_, values_, cosines_, sines_;
  Activations context_, gated_;
  std::vector<Activations> normed_;  // one, or one a thread
  std::vector<AttentionTask> tasks_;
  std::vector<std::vector<float>> scores_, tiles_;
  Clock::time_point mark_;

  void lay_out() {
    for (int s = 0; s < pass_.num_sequences; ++s) {
      const DsSequence& sequence = pass_.sequences[s];
      first_row_.push_back(num_rows_);
      for (int i = 0; i < sequence.num_tokens; ++i) {
        row_sequence_.push_back(s);
        row_position_.push_back(sequence.past + i);
      }
      num_rows_ += sequence.num_tokens;
      longest_ = std::max(longest_, sequence.past + sequence.num_tokens);
    }
    const auto rows = static_cast<size_t>(num_rows_);
    const auto head_size = static_cast<size_t>(model_.head_size);
    half_ = model_.head_size / 2;
    hidden_.resize(rows * static_cast<size_t>(model_.hidden_size));
    queries_.resize(rows * static_cast<size_t>(model_.num_heads) * head_size);
    keys_.resize(rows * static_cast<size_t>(model_.num_kv_heads) * head_size);
    values_.resize(keys_.size());
    cosines_.resize(rows * static_cast<size_t>(half_));
    sines_.resize(cosines_.size());
    context_.resize(num_rows_, model_.num_heads * model_.head_size);
    gated_.resize(num_rows_, model_.intermediate_size);
    const int threads = Pool::shared().num_threads();
    // A few rows are sooner normed by every thread for itself than waited for.
    each_norms_ = num_rows_ <= kFewRows;
    normed_.resize(each_norms_ ? static_cast<size_t>(threads) : 1);
    for (Activations& rows : normed_)
      rows.resize(std::max(num_rows_, pass_.num_logits), model_.hidden_size);
    fuses_heads_ = model_.head_size % kTile == 0 &&
                   (model_.num_heads + 2 * model_.num_kv_heads) * num_rows_ >= 4 * threads;
    scores_.resize(static_cast<size_t>(threads));
    tiles_.resize(static_cast<size_t>(threads));
    for (auto& scratch : scores_) scratch.resize(static_cast<size_t>(kMostQueries * round_up(longest_, 16)));
    const int most = std::max(num_rows_, pass_.num_logits);
    for (auto& scratch : tiles_) scratch.resize(static_cast<size_t>(4 * kTile * most));
    plan_attention(threads);
  }

  // Query heads that share a key head, and neighbouring tokens, go together.
  void plan_attention(int threads) {
    const int group = model_.num_heads / model_.num_kv_heads;
    const int total = model_.num_heads * num_rows_;
    // Split the queries of a key head only for want of work: each part reads its keys again.
    const bool is_enough = model_.num_kv_heads * pass_.num_sequences >= threads;
    const int size = std::clamp(is_enough ? group * num_rows_ : total / (2 * threads), 1, kMostQueries);
    for (int s = 0; s < pass_.num_sequences; ++s) {
      const int count = group * pass_.sequences[s].num_tokens;
      for (int head = 0; head < model_.num_kv_heads; ++head)
        for (int first = 0; first < count; first += size)
          tasks_.push_back({s, head, first, std::min(size, count - first)});
    }
  }

  void walk(Team& team, int thread) {
    if (thread == 0) mark_ = Clock::now();
    embed(team);
    count(thread, kRest);
    for (int i = 0; i < model_.num_layers; ++i) {
      const DsLayer& layer = model_.layers[i];
      norm(team, thread, layer.attention_norm, reads_codes({&layer.query, &layer.key, &layer.value}));
      count(thread, kRest);
      if (fuses_heads_) {
        project_heads(team, thread, layer, i);
        count(thread, kProducts);
      } else {
        project(team, thread, layer);
        count(thread, kProducts);
        position(team, layer, i);
        count(thread, kRest);
      }
      attend(team, thread, layer, i);
      count(thread, kAttention);
      add_product(team, thread, layer.output, context_);
      count(thread, kProducts);
      norm(team, thread, layer.feed_forward_norm, reads_codes({&layer.gate, &layer.up}));
      count(thread, kRest);
      gate(team, thread, layer);
      add_product(team, thread, layer.down, gated_);
      count(thread, kProducts);
    }
    if (pass_.num_logits == 0) return;
    norm_last(team);
    count(thread, kRest);
    read_out(team, thread);
    count(thread, kProducts);
  }

  void count(int thread, Part part) {
    if (thread != 0 || pass_.nanoseconds == nullptr) return;
    const Clock::time_point now = Clock::now();
    pass_.nanoseconds[part] +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(now - mark_).count();
    mark_ = now;
  }

  bool reads_codes(const DsMatrix& w) const { return integers_ && is_quantised(w); }
  bool reads_codes(std::initializer_list<const DsProjection*> projections) const {
    for (const DsProjection* one : projections)
      if (reads_codes(one->matrix)) return true;
    return false;
  }

  float* hidden(int m) { return hidden_.data() + static_cast<int64_t>(m) * model_.hidden_size; }
  float* query(int m, int head) {
    return queries_.data() + (static_cast<int64_t>(m) * model_.num_heads + head) * model_.head_size;
  }
  float* key(int m, int head) {
    return keys_.data() + (static_cast<int64_t>(m) * model_.num_kv_heads + head) * model_.head_size;
  }
  float* value(int m, int head) {
    return values_.data() + (static_cast<int64_t>(m) * model_.num_kv_heads + head) * model_.head_size;
  }
  int64_t value_stride() const { return round_up(model_.head_size, 16); }
  void* cached(void* base, int64_t capacity, int64_t width, int layer, int head) const {
    const int64_t element = (static_cast<int64_t>(layer) * model_.num_kv_heads + head) * capacity * width;
    return static_cast<char*>(base) + element * (model_.cache_is_half ? 2 : 4);
  }
  void* cached_keys(const DsSequence& s, int layer, int head) const {
    return cached(s.keys, s.capacity, model_.head_size, layer, head);
  }
  void* cached_values(const DsSequence& s, int layer, int head) const {
    return cached(s.values, s.capacity, value_stride(), layer, head);
  }

  void embed(Team& team) {
    team.loop(num_rows_, 1, [&](int64_t i) {
      const int m = static_cast<int>(i);
      read_row(model_.embedding, pass_.tokens[m], hidden(m));
      for (int d = 0; d < half_; ++d) {
        // As the reference: the angle is rounded to float32, its functions are not.
        const float angle = static_cast<float>(row_position_[m]) * model_.inverse_frequencies[d];
        cosines_[static_cast<size_t>(m) * half_ + d] = std::cos(angle) * model_.rotary_scale;
        sines_[static_cast<size_t>(m) * half_ + d] = std::sin(angle) * model_.rotary_scale;
      }
    });
  }

  void norm(Team& team, int thread, const float* weight, bool with_codes) {
    Activations& out = normed(thread);
    const auto one = [&](int64_t i) {
      const int m = static_cast<int>(i);
      kernels_.rms_norm(hidden(m), weight, model_.hidden_size, model_.norm_epsilon, out.row(m));
      if (with_codes) out.quantise(kernels_, m);
    };
    if (!each_norms_) return team.loop(num_rows_, 1, one);
    for (int m = 0; m < num_rows_; ++m) one(m);
  }

  Activations& normed(int thread) { return normed_[each_norms_ ? static_cast<size_t>(thread) : 0]; }

  int64_t chunk(const Team& team, int64_t tasks) const {
    return std::max<int64_t>(1, tasks / (8 * team.size()));
  }

  // One tile of a projection into rows of `stride` outputs.
  void product(const DsProjection& projection, int tile, const DsRows& in, float* scratch,
               float* out, int64_t stride, bool add) const {
    const DsMatrix& w = projection.matrix;
    kernels_.multiply_tile(w, tile, in, scratch);
    const int first = tile * kTile, size = std::min(kTile, w.num_outputs - first);
    for (int m = 0; m < in.num_rows; ++m) {
      const float* from = scratch + kTile * m;
      float* to = out + m * stride + first;
      for (int i = 0; i < size; ++i) {
        const float value = projection.bias == nullptr ? from[i] : from[i] + projection.bias[first + i];
        to[i] = add ? to[i] + value : value;
      }
    }
  }

  DsRows inputs(const Activations& from, const DsMatrix& w, int rows) const {
    DsRows in = from.rows(reads_codes(w));
    in.num_rows = rows;
    return in;
  }

  void project(Team& team, int thread, const DsLayer& layer) {
    const int queries = num_tiles(layer.query.matrix), keys = num_tiles(layer.key.matrix);
    const int total = queries + keys + num_tiles(layer.value.matrix);
    float* scratch = tiles_[static_cast<size_t>(thread)].data();
    const int64_t kv_stride = static_cast<int64_t>(model_.num_kv_heads) * model_.head_size;
    team.loop(total, chunk(team, total), [&](int64_t i) {
      const int tile = static_cast<int>(i);
      const auto one = [&](const DsProjection& projection, int at, float* out, int64_t stride) {
        product(projection, at, inputs(normed(thread), projection.matrix, num_rows_), scratch, out, stride, false);
      };
      if (tile < queries)
        one(layer.query, tile, queries_.data(), static_cast<int64_t>(model_.num_heads) * model_.head_size);
      else if (tile < queries + keys) one(layer.key, tile - queries, keys_.data(), kv_stride);
      else one(layer.value, tile - queries - keys, values_.data(), kv_stride);
    });
  }

  // The same for whole heads, each turned and stored by whoever computed it.
  void project_heads(Team& team, int thread, const DsLayer& layer, int number) {
    const int heads = model_.num_heads, kv_heads = model_.num_kv_heads;
    const int tiles = model_.head_size / kTile;
    float* scratch = tiles_[static_cast<size_t>(thread)].data();
    team.loop(heads + 2 * kv_heads, 1, [&](int64_t i) {
      const int task = static_cast<int>(i);
      const auto all = [&](const DsProjection& projection, int head, std::vector<float>& out, int count) {
        const DsRows in = inputs(normed(thread), projection.matrix, num_rows_);
        for (int tile = head * tiles; tile < (head + 1) * tiles; ++tile)
          product(projection, tile, in, scratch, out.data(),
                  static_cast<int64_t>(count) * model_.head_size, false);
      };
      if (task < heads) {
        all(layer.query, task, queries_, heads);
        for (int m = 0; m < num_rows_; ++m) turn_query(layer, m, task);
      } else if (task < heads + kv_heads) {
        all(layer.key, task - heads, keys_, kv_heads);
        for (int m = 0; m < num_rows_; ++m) turn_key(layer, number, m, task - heads);
      } else {
        all(layer.value, task - heads - kv_heads, values_, kv_heads);
        for (int m = 0; m < num_rows_; ++m) keep_value(number, m, task - heads - kv_heads);
      }
    });
  }

  void position(Team& team, const DsLayer& layer, int number) {
    const int heads = model_.num_heads + model_.num_kv_heads;
    team.loop(static_cast<int64_t>(num_rows_) * heads, std::max(1, heads / 4), [&](int64_t i) {
      const int m = static_cast<int>(i / heads), head = static_cast<int>(i % heads);
      if (head < model_.num_heads) return turn_query(layer, m, head);
      turn_key(layer, number, m, head - model_.num_heads);
      keep_value(number, m, head - model_.num_heads);
    });
  }

  void turn(float* x, const float* weight, int m) {
    if (weight != nullptr)
      kernels_.rms_norm(x, weight, model_.head_size, model_.norm_epsilon, x);
    const int64_t at = static_cast<int64_t>(m) * half_;
    kernels_.rotate(x, cosines_.data() + at, sines_.data() + at, half_);
  }

  void turn_query(const DsLayer& layer, int m, int head) { turn(query(m, head), layer.query_norm, m); }

  void turn_key(const DsLayer& layer, int number, int m, int head) {
    turn(key(m, head), layer.key_norm, m);
    kernels_.store_key(key(m, head), model_.head_size, row_position_[m], model_.cache_is_half,
                       cached_keys(pass_.sequences[row_sequence_[m]], number, head));
  }

  void keep_value(int number, int m, int head) {
    kernels_.store_value(value(m, head), model_.head_size, static_cast<int>(value_stride()),
                         row_position_[m], model_.cache_is_half,
                         cached_values(pass_.sequences[row_sequence_[m]], number, head));
  }

  void attend(Team& team, int thread, const DsLayer& layer, int number) {
    const int group = model_.num_heads / model_.num_kv_heads, size = model_.head_size;
    // A task quantises what it wrote where heads and groups do not overlap.
    const bool with_codes = reads_codes(layer.output.matrix);
    const bool per_head = with_codes && size % kGroup == 0;
    team.loop(static_cast<int64_t>(tasks_.size()), 1, [&](int64_t i) {
      const AttentionTask& task = tasks_[static_cast<size_t>(i)];
      const DsSequence& sequence = pass_.sequences[task.sequence];
      const float* queries[kMostQueries];
      float* outputs[kMostQueries];
      int first[kMostQueries], last[kMostQueries];
      for (int q = 0; q < task.num_queries; ++q) {
        const int index = task.first_query + q;
        const int m = first_row_[task.sequence] + index / group;
        const int head = task.kv_head * group + index % group;
        queries[q] = query(m, head);
        outputs[q] = context_.row(m) + static_cast<int64_t>(head) * size;
        last[q] = row_position_[m] + 1;
        first[q] = layer.window > 0 ? std::max(0, last[q] - layer.window) : 0;
      }
      kernels_.attend({queries, outputs, first, last, task.num_queries, size,
                       static_cast<int>(value_stride()), 1.0f / std::sqrt(static_cast<float>(size)),
                       cached_keys(sequence, number, task.kv_head),
                       cached_values(sequence, number, task.kv_head),
                       scores_[static_cast<size_t>(thread)].data(), round_up(longest_, 16)},
                      model_.cache_is_half);
      if (!per_head) return;
      for (int q = 0; q < task.num_queries; ++q) {
        const int index = task.first_query + q, groups = size / kGroup;
        const int head = task.kv_head * group + index % group;
        context_.quantise(kernels_, first_row_[task.sequence] + index / group,
                          static_cast<int64_t>(head) * groups, static_cast<int64_t>(head + 1) * groups);
      }
    });
    if (with_codes && !per_head)
      team.loop(num_rows_, 1, [&](int64_t m) { context_.quantise(kernels_, static_cast<int>(m)); });
  }

  void add_product(Team& team, int thread, const DsProjection& projection, const Activations& from) {
    const int total = num_tiles(projection.matrix);
    const DsRows in = inputs(from, projection.matrix, num_rows_);
    float* scratch = tiles_[static_cast<size_t>(thread)].data();
    team.loop(total, chunk(team, total), [&](int64_t tile) {
      product(projection, static_cast<int>(tile), in, scratch, hidden_.data(), model_.hidden_size, true);
    });
  }

  // Gate and up two tiles at a time: 32 outputs are a whole group, to be rounded at once.
  void gate(Team& team, int thread, const DsLayer& layer) {
    const int size = model_.intermediate_size, pairs = (size + kGroup - 1) / kGroup;
    const bool with_codes = reads_codes(layer.down.matrix);
    float* scratch = tiles_[static_cast<size_t>(thread)].data();
    const DsRows in_gate = inputs(normed(thread), layer.gate.matrix, num_rows_);
    const DsRows in_up = inputs(normed(thread), layer.up.matrix, num_rows_);
    float* gates = scratch + 2 * kTile * num_rows_;
    float* ups = scratch + 3 * kTile * num_rows_;
    team.loop(pairs, chunk(team, pairs), [&](int64_t pair) {
      for (int tile = static_cast<int>(2 * pair); tile < 2 * pair + 2 && tile * kTile < size; ++tile) {
        kernels_.multiply_tile(layer.gate.matrix, tile, in_gate, gates);
        kernels_.multiply_tile(layer.up.matrix, tile, in_up, ups);
        const int first = tile * kTile, count = std::min(kTile, size - first);
        for (int m = 0; m < num_rows_; ++m) {
          add_bias(layer.gate.bias, first, count, gates + kTile * m);
          add_bias(layer.up.bias, first, count, ups + kTile * m);
          kernels_.swiglu(gates + kTile * m, ups + kTile * m, count, gated_.row(m) + first);
        }
      }
      if (!with_codes) return;
      for (int m = 0; m < num_rows_; ++m) gated_.quantise(kernels_, m, pair, pair + 1);
    });
  }

  static void add_bias(const float* bias, int first, int count, float* out) {
    if (bias == nullptr) return;
    for (int i = 0; i < count; ++i) out[i] += bias[first + i];
  }

  void norm_last(Team& team) {
    const bool with_codes = reads_codes(model_.head);
    team.loop(pass_.num_logits, 1, [&](int64_t i) {
      const int m = static_cast<int>(i);
      kernels_.rms_norm(hidden(pass_.logit_tokens[m]), model_.final_norm, model_.hidden_size,
                        model_.norm_epsilon, normed_[0].row(m));
      if (with_codes) normed_[0].quantise(kernels_, m);
      if (pass_.head_tiles != nullptr)
        std::fill_n(pass_.logits[m], model_.head.num_outputs, -INFINITY);
    });
  }

  void read_out(Team& team, int thread) {
    const int total = pass_.head_tiles == nullptr ? num_tiles(model_.head) : pass_.num_head_tiles;
    const DsRows in = inputs(normed_[0], model_.head, pass_.num_logits);
    float* scratch = tiles_[static_cast<size_t>(thread)].data();
    team.loop(total, chunk(team, total), [&](int64_t i) {
      const int tile = pass_.head_tiles == nullptr ? static_cast<int>(i) : pass_.head_tiles[i];
      kernels_.multiply_tile(model_.head, tile, in, scratch);
      const int first = tile * kTile, size = std::min(kTile, model_.head.num_outputs - first);
      for (int m = 0; m < pass_.num_logits; ++m)
        std::copy_n(scratch + kTile * m, size, pass_.logits[m] + first);
    });
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) void ds_decoder_forward(const DsDecoder* model, const DsPass* pass) {
  Pass(*model, *pass).run();
}
