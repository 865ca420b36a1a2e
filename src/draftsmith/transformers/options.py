"""Every field of a `GenerationConfig`: honoured, without a meaning here, or refused by name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from draftsmith.errors import InvalidRequestError

__all__ = ["HONOURED", "IRRELEVANT", "REFUSED", "Refusal", "check_config"]

HONOURED = frozenset(
    {
        # Logits processors that transformers has made of them:
        "temperature",
        "top_k",
        "top_p",
        "top_h",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "repetition_penalty",
        "encoder_repetition_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "bad_words_ids",
        "sequence_bias",
        "min_length",
        "min_new_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
        "exponential_decay_length_penalty",
        "remove_invalid_values",
        "renormalize_logits",
        "watermarking_config",
        "guidance_scale",
        # Stopping criteria:
        "max_length",
        "max_new_tokens",
        "max_time",
        "stop_strings",
        "eos_token_id",
        # How prompts and outputs are made:
        "bos_token_id",
        "decoder_start_token_id",
        "pad_token_id",
        "num_return_sequences",
        "return_dict_in_generate",
        # Ours to read:
        "do_sample",
        "num_assistant_tokens",
        "prompt_lookup_num_tokens",
        "max_matching_ngram_size",
    }
)

IRRELEVANT: Mapping[str, str] = {
    "use_cache": "we always keep one; the text is the same without",
    "max_cache_len": "our cache grows",
    "prefill_chunk_size": "in which pieces a prompt is read changes no text",
    "compile_config": "our passes are not compiled",
    "disable_compile": "our passes are not compiled",
    "length_penalty": "of beam search only, and transformers' own one-beam text ignores it",
    "early_stopping": "of beam search only, and transformers' own one-beam text ignores it",
    "continuous_batching_config": "of generate_batch only",
    "transformers_version": "says who wrote the file",
}
"""Fields that change no text here, each with the reason."""


class Refusal(NamedTuple):
    """What a field may be, and what to do where it is something else."""

    neutral: tuple[Any, ...]
    remedy: str


_NO_BEAMS = Refusal((None, False, 1, 0.0), "no beam search here: leave it out")
_NO_RECORD = Refusal((None, False), "only sequences are returned: leave it out")
_NO_MODE = Refusal((None, False), "another way of generating: leave it out")
_OWN_DRAFTS = "gamma (num_assistant_tokens) says how much is drafted: leave it out"

REFUSED: Mapping[str, Refusal] = {
    "num_beams": _NO_BEAMS,
    "num_beam_groups": _NO_BEAMS,
    "diversity_penalty": _NO_BEAMS,
    "constraints": _NO_BEAMS,
    "force_words_ids": _NO_BEAMS,
    "output_scores": _NO_RECORD,
    "output_logits": _NO_RECORD,
    "output_attentions": _NO_RECORD,
    "output_hidden_states": _NO_RECORD,
    "penalty_alpha": _NO_MODE,
    "dola_layers": _NO_MODE,
    "low_memory": _NO_MODE,
    "is_assistant": _NO_MODE,
    "use_mtp": _NO_MODE,
    "speculation_type": _NO_MODE,
    "assistant_early_exit": _NO_MODE,
    "assistant_ensemble_weight": Refusal((None,), "it changes the target's law: leave it out"),
    "assistant_confidence_threshold": Refusal((None, 0.4), _OWN_DRAFTS),
    "num_assistant_tokens_schedule": Refusal((None, "constant"), _OWN_DRAFTS),
    "assistant_lookbehind": Refusal((None, 10), "drafts share the target's tokenizer here"),
    "target_lookbehind": Refusal((None, 10), "drafts share the target's tokenizer here"),
    "token_healing": Refusal((None, False), "the prompt is read as it is: heal it beforehand"),
    "cache_implementation": Refusal(
        (None, "dynamic", "dynamic_full", "static", "sliding_window", "hybrid", "hybrid_chunked"),
        "our cache lies in the model's dtype on its device: leave it out",
    ),
    "cache_config": Refusal((None,), "our cache has nothing to set: leave it out"),
}
"""Fields that are refused unless they are neutral (`transformers`' defaults among it)."""


def check_config(config: Any) -> None:
    """Refuse what cannot be honoured exactly, and fields that nobody has decided on yet.

    Names that `transformers`' own class does not have are left alone: its `generate` reads none.

    Raises:
        InvalidRequestError: If a field is refused or unknown, and not neutral.
    """
    known = vars(type(config)()) | type(config)._get_default_generation_params()
    for name, value in vars(config).items():
        if name.startswith("_") or name in HONOURED or name in IRRELEVANT or name not in known:
            continue
        refusal = REFUSED.get(name, Refusal((None, known[name]), "not known here: leave it out"))
        # By type too: True is 1, and num_beams=True is not for us to read.
        if not any(type(value) is type(one) and value == one for one in refusal.neutral):
            raise InvalidRequestError(f"{name}={value!r} cannot be honoured: {refusal.remedy}")
