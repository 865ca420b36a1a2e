// One pass of a decoder: every thread walks the same stages, with a barrier after each.
#include "decoder.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "interface.h"
#include "workspace.h"

namespace {

using Clock = std::chrono::steady_clock;

enum Part { kProducts, kAttention, kRest };

bool is_quantised(const DsMatrix& w) { return w.format > kBF16; }

int num_tiles(const DsMatrix& w) { return (w.num_outputs + kTile - 1) / kTile; }

class Pass {
 public:
  Pass(const DsDecoder& model, const DsPass& pass)
      : model_(model), pass_(pass), kernels_(ds_kernels()), integers_(!model.exact_activations),
        crew_(pass.num_threads > 0 ? pass.num_threads : default_num_threads()),
        space_(model, pass, crew_.size()), num_rows_(space_.num_rows()) {}

  void run() {
    crew_.run([this](Team& team, int thread) { walk(team, thread); });
  }

 private:
  const DsDecoder& model_;
  const DsPass& pass_;
  const DsKernels& kernels_;
  const bool integers_;
  Crew crew_;
  Workspace space_;
  const int num_rows_;
  Clock::time_point mark_;

  void walk(Team& team, int thread) {
    if (thread == 0) mark_ = Clock::now();
    embed(team);
    hand_out(team, thread, 0);
    count(thread, kRest);
    for (int i = 0; i < model_.num_layers; ++i) {
      const DsLayer& layer = model_.layers[i];
      norm(team, thread, layer.attention_norm, reads_codes({&layer.query, &layer.key, &layer.value}));
      count(thread, kRest);
      if (space_.fuses_heads) {
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
      add_product(team, thread, layer.output, space_.context);
      count(thread, kProducts);
      norm(team, thread, layer.feed_forward_norm, reads_codes({&layer.gate, &layer.up}));
      count(thread, kRest);
      gate(team, thread, layer);
      add_product(team, thread, layer.down, space_.gated);
      hand_out(team, thread, i + 1);
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
    const int64_t time = std::chrono::duration_cast<std::chrono::nanoseconds>(now - mark_).count();
    __atomic_fetch_add(&pass_.nanoseconds[part], time, __ATOMIC_RELAXED);  // other passes count, too
    mark_ = now;
  }

  bool reads_codes(const DsMatrix& w) const { return integers_ && is_quantised(w); }
  bool reads_codes(std::initializer_list<const DsProjection*> projections) const {
    for (const DsProjection* one : projections)
      if (reads_codes(one->matrix)) return true;
    return false;
  }

  void embed(Team& team) {
    team.loop(num_rows_, 1, [&](int64_t i) {
      const int m = static_cast<int>(i);
      read_row(model_.embedding, pass_.tokens[m], space_.hidden(m));
      for (int d = 0; d < space_.num_angles(); ++d) {
        // As the reference: the angle is rounded to float32, its functions are not.
        const float angle = static_cast<float>(space_.rows[m].position) * model_.inverse_frequencies[d];
        space_.cosines(m)[d] = std::cos(angle) * model_.rotary_scale;
        space_.sines(m)[d] = std::sin(angle) * model_.rotary_scale;
      }
    });
  }

  // Without a barrier: the stream is next written to when all have been to others.
  void hand_out(const Team& team, int thread, int boundary) {
    for (int64_t b = 0; b < pass_.num_boundaries; ++b) {
      if (pass_.boundaries[b] != boundary) continue;
      for (int m = thread; m < num_rows_; m += team.size())
        std::copy_n(space_.hidden(m), model_.hidden_size, pass_.states[m] + b * model_.hidden_size);
    }
  }

  void norm(Team& team, int thread, const float* weight, bool with_codes) {
    Activations& out = space_.normed(thread);
    const auto one = [&](int64_t i) {
      const int m = static_cast<int>(i);
      kernels_.rms_norm(space_.hidden(m), weight, model_.hidden_size, model_.norm_epsilon, out.row(m));
      if (with_codes) out.quantise(kernels_, m);
    };
    if (!space_.each_norms) return team.loop(num_rows_, 1, one);
    for (int m = 0; m < num_rows_; ++m) one(m);
  }

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
    float* scratch = space_.tiles(thread);
    const int64_t kv_stride = static_cast<int64_t>(model_.num_kv_heads) * model_.head_size;
    team.loop(total, chunk(team, total), [&](int64_t i) {
      const int tile = static_cast<int>(i);
      const auto one = [&](const DsProjection& projection, int at, float* out, int64_t stride) {
        const DsRows in = inputs(space_.normed(thread), projection.matrix, num_rows_);
        product(projection, at, in, scratch, out, stride, false);
      };
      if (tile < queries)
        one(layer.query, tile, space_.query(0, 0), static_cast<int64_t>(model_.num_heads) * model_.head_size);
      else if (tile < queries + keys) one(layer.key, tile - queries, space_.key(0, 0), kv_stride);
      else one(layer.value, tile - queries - keys, space_.value(0, 0), kv_stride);
    });
  }

  // The same for whole heads, each turned and stored by whoever computed it.
  void project_heads(Team& team, int thread, const DsLayer& layer, int number) {
    const int heads = model_.num_heads, kv_heads = model_.num_kv_heads;
    const int tiles = model_.head_size / kTile;
    float* scratch = space_.tiles(thread);
    team.loop(heads + 2 * kv_heads, 1, [&](int64_t i) {
      const int task = static_cast<int>(i);
      const auto all = [&](const DsProjection& projection, int head, float* out, int count) {
        const DsRows in = inputs(space_.normed(thread), projection.matrix, num_rows_);
        for (int tile = head * tiles; tile < (head + 1) * tiles; ++tile)
          product(projection, tile, in, scratch, out, static_cast<int64_t>(count) * model_.head_size, false);
      };
      if (task < heads) {
        all(layer.query, task, space_.query(0, 0), heads);
        for (int m = 0; m < num_rows_; ++m) turn_query(layer, m, task);
      } else if (task < heads + kv_heads) {
        all(layer.key, task - heads, space_.key(0, 0), kv_heads);
        for (int m = 0; m < num_rows_; ++m) turn_key(layer, number, m, task - heads);
      } else {
        all(layer.value, task - heads - kv_heads, space_.value(0, 0), kv_heads);
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
    kernels_.rotate(x, space_.cosines(m), space_.sines(m), space_.num_angles());
  }

  void turn_query(const DsLayer& layer, int m, int head) { turn(space_.query(m, head), layer.query_norm, m); }

  void turn_key(const DsLayer& layer, int number, int m, int head) {
    turn(space_.key(m, head), layer.key_norm, m);
    const Row& row = space_.rows[m];
    kernels_.store_key(space_.key(m, head), model_.head_size, row.slot, model_.cache_is_half,
                       space_.cached_keys(row.sequence, number, head));
  }

  void keep_value(int number, int m, int head) {
    const Row& row = space_.rows[m];
    kernels_.store_value(space_.value(m, head), model_.head_size, space_.value_stride, row.slot,
                         model_.cache_is_half, space_.cached_values(row.sequence, number, head));
  }

  void attend(Team& team, int thread, const DsLayer& layer, int number) {
    const int group = model_.num_heads / model_.num_kv_heads, size = model_.head_size;
    // A task quantises what it wrote where heads and groups do not overlap.
    const bool with_codes = reads_codes(layer.output.matrix);
    const bool per_head = with_codes && size % kGroup == 0;
    team.loop(static_cast<int64_t>(space_.attention_tasks.size()), 1, [&](int64_t i) {
      const AttentionTask& task = space_.attention_tasks[static_cast<size_t>(i)];
      const float* queries[kMostQueries];
      float* outputs[kMostQueries];
      int first[kMostQueries], last[kMostQueries];
      const int* paths[kMostQueries];
      for (int q = 0; q < task.num_queries; ++q) {
        const int index = task.first_query + q;
        const int m = space_.first_row[task.sequence] + index / group;
        const int head = task.kv_head * group + index % group;
        queries[q] = space_.query(m, head);
        outputs[q] = space_.context.row(m) + static_cast<int64_t>(head) * size;
        paths[q] = space_.path(m);
        last[q] = space_.rows[m].position + 1;
        first[q] = layer.window > 0 ? std::max(0, last[q] - layer.window) : 0;
      }
      kernels_.attend({queries, outputs, first, last, task.num_queries, size,
                       space_.value_stride, 1.0f / std::sqrt(static_cast<float>(size)),
                       space_.cached_keys(task.sequence, number, task.kv_head),
                       space_.cached_values(task.sequence, number, task.kv_head), space_.scores(thread),
                       space_.score_stride, paths[0] == nullptr ? nullptr : paths,
                       pass_.sequences[task.sequence].past},
                      model_.cache_is_half);
      if (!per_head) return;
      for (int q = 0; q < task.num_queries; ++q) {
        const int index = task.first_query + q, groups = size / kGroup;
        const int head = task.kv_head * group + index % group;
        space_.context.quantise(kernels_, space_.first_row[task.sequence] + index / group,
                                static_cast<int64_t>(head) * groups, static_cast<int64_t>(head + 1) * groups);
      }
    });
    if (with_codes && !per_head)
      team.loop(num_rows_, 1, [&](int64_t m) { space_.context.quantise(kernels_, static_cast<int>(m)); });
  }

  void add_product(Team& team, int thread, const DsProjection& projection, const Activations& from) {
    const int total = num_tiles(projection.matrix);
    const DsRows in = inputs(from, projection.matrix, num_rows_);
    float* scratch = space_.tiles(thread);
    team.loop(total, chunk(team, total), [&](int64_t tile) {
      product(projection, static_cast<int>(tile), in, scratch, space_.hidden(0), model_.hidden_size, true);
    });
  }

  // Gate and up two tiles at a time: 32 outputs are a whole group, to be rounded at once.
  void gate(Team& team, int thread, const DsLayer& layer) {
    const int size = model_.intermediate_size, pairs = (size + kGroup - 1) / kGroup;
    const bool with_codes = reads_codes(layer.down.matrix);
    float* scratch = space_.tiles(thread);
    const DsRows in_gate = inputs(space_.normed(thread), layer.gate.matrix, num_rows_);
    const DsRows in_up = inputs(space_.normed(thread), layer.up.matrix, num_rows_);
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
          kernels_.swiglu(gates + kTile * m, ups + kTile * m, count, space_.gated.row(m) + first);
        }
      }
      if (!with_codes) return;
      for (int m = 0; m < num_rows_; ++m) space_.gated.quantise(kernels_, m, pair, pair + 1);
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
      kernels_.rms_norm(space_.hidden(pass_.logit_tokens[m]), model_.final_norm, model_.hidden_size,
                        model_.norm_epsilon, space_.normed(0).row(m));
      if (with_codes) space_.normed(0).quantise(kernels_, m);
      if (pass_.head_tiles != nullptr)
        std::fill_n(pass_.logits[m], model_.head.num_outputs, -INFINITY);
    });
  }

  void read_out(Team& team, int thread) {
    const int total = pass_.head_tiles == nullptr ? num_tiles(model_.head) : pass_.num_head_tiles;
    const DsRows in = inputs(space_.normed(0), model_.head, pass_.num_logits);
    float* scratch = space_.tiles(thread);
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

#pragma GCC visibility push(default)
extern "C" {

void ds_decoder_forward(const DsDecoder* model, const DsPass* pass) { Pass(*model, *pass).run(); }

// How much of a pass is read: a caller that says more is newer than this library.
int ds_pass_bytes() { return sizeof(DsPass); }

}  // extern "C"
#pragma GCC visibility pop
