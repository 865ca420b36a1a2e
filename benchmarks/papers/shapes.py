"""The shapes of all models, by pair and name.

The decoder-only target and its draft have the shapes of Leviathan et al., section 4.2. `wide` and
`deep` put Chen et al.'s point (section 6): the matrices of both hold 12 * 2 * 768^2 =
12 * 18 * 256^2 = 14.16 million weights, embeddings not counted, so that only the shape differs.
"""

from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, T5Config
from transformers import T5ForConditionalGeneration as T5Model

from benchmarks.papers.vocabulary import GPT_IDS, T5_IDS, VOCABULARY

__all__ = ["CONTEXT", "PAIRS", "count", "new_model"]

CONTEXT = 512

_GPT = {
    "target": (768, 12, 12),
    "draft": (256, 2, 4),
    "wide": (768, 2, 12),
    "deep": (256, 18, 4),
}
"""Width, layers, heads; the feed-forward width is four times the width."""

_T5 = {
    "target": (512, 1280, 8, 8),
    "base": (384, 1024, 4, 6),
    "draft": (256, 640, 2, 4),
}
"""Width, feed-forward width, layers of encoder and decoder each, heads of 64."""

PAIRS = {"gpt": tuple(_GPT), "t5": tuple(_T5)}
"""The models of each pair; the first is the target."""


def new_model(pair: str, name: str, *, is_tiny: bool = False) -> PreTrainedModel:
    """A model with random weights; `is_tiny` is for trying the scripts on a CPU."""
    return _new_gpt(*_GPT[name], is_tiny) if pair == "gpt" else _new_t5(*_T5[name], is_tiny)


def count(model: PreTrainedModel) -> dict[str, int]:
    """Weights, with and without embeddings and the head."""
    total = sum(weights.numel() for weights in model.parameters())
    tables = {
        id(table.weight): table.weight.numel()
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    return {"total": total, "without_embeddings": total - sum(tables.values())}


def _new_gpt(width: int, layers: int, heads: int, is_tiny: bool) -> PreTrainedModel:
    if is_tiny:
        width, layers = 16 * heads, max(1, layers // 6)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=width,
        n_inner=4 * width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=GPT_IDS["[CLS]"],
        eos_token_id=GPT_IDS["[SEP]"],
        pad_token_id=GPT_IDS["[PAD]"],
    )
    return GPT2LMHeadModel(config)


def _new_t5(width: int, inner: int, layers: int, heads: int, is_tiny: bool) -> PreTrainedModel:
    if is_tiny:
        width, inner, layers = width // 4, inner // 8, max(1, layers // 4)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=width,
        d_kv=64,
        d_ff=inner,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.1,
        tie_word_embeddings=False,  # in version 5: logits without T5 1.0's scale, one table
        pad_token_id=T5_IDS["<pad>"],
        eos_token_id=T5_IDS["</s>"],
        decoder_start_token_id=T5_IDS["<pad>"],
    )
    model = T5Model(config)
    # transformers draws embeddings with deviation 1, for an optimiser that scales its steps by
    # the weights; AdamW does not.
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight.data.normal_(0.0, width**-0.5)
    return model
