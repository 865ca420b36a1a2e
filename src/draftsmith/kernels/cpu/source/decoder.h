// A decoder-only transformer as plain C structures (Llama, Mistral, Qwen2, Qwen3 and kin).
#pragma once

#include "types.h"

extern "C" {

struct DsLayer {
  const float* attention_norm;
  const float* query_norm;  // null for none
  const float* key_norm;
  const float* feed_forward_norm;
  DsProjection query, key, value, output, gate, up, down;
  int32_t window;  // a query sees that many keys; 0 for all
  int32_t reserved;
};

struct DsDecoder {
  int32_t num_layers, hidden_size, num_heads, num_kv_heads, head_size, intermediate_size;
  int32_t cache_is_half, exact_activations;
  float norm_epsilon, rotary_scale;
  const float* inverse_frequencies;  // [head_size / 2]
  const float* final_norm;
  DsMatrix embedding, head;
  const DsLayer* layers;
};

// New tokens of one sequence, and where its cache lies:
// keys [layer][kv_head][capacity / 16][head_size][16], values [layer][kv_head][capacity][stride],
// capacity a multiple of 16, stride = head_size rounded up to 16.
struct DsSequence {
  int32_t num_tokens;
  int32_t past;
  int64_t capacity;
  void* keys;
  void* values;
};

struct DsPass {
  const DsSequence* sequences;
  int32_t num_sequences;
  int32_t num_logits;          // rows of logits wanted
  const int32_t* tokens;       // of all sequences, in order
  const int32_t* logit_tokens; // [num_logits]: which tokens' logits
  float* const* logits;        // [num_logits] of [vocab]
  const int32_t* head_tiles;   // tiles of 16 ids to compute; null for all, else the rest is -inf
  int32_t num_head_tiles;
  int32_t num_threads;         // 0 for the default
  int64_t* nanoseconds;        // [3]: products, attention, the rest; null for none
  const int32_t* parents;      // of each token: which of its sequence's it follows, less than its
                               // own index, -1 for what the cache holds; null for the one before
  const int32_t* boundaries;   // [num_boundaries]: at 0 the residual stream is the embeddings, at b
                               // what is behind b layers
  int64_t num_boundaries;
  float* const* states;        // of each token: [num_boundaries, hidden_size]
};

}  // extern "C"
