"""Which of the attention kernels of `transformers` computes what a config says."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

__all__ = ["attention_options"]


def attention_options(config: Any) -> dict[str, str]:
    """Arguments of `from_pretrained` for the attention that this model means.

    Up to transformers 5.17 at least, the default kernel of Gemma 2 (torch's scaled dot product)
    leaves out `attn_logit_softcapping` without a word; 5.24 refuses that kernel for it.

    Example:
        >>> from types import SimpleNamespace
        >>> attention_options(SimpleNamespace(attn_logit_softcapping=50.0))
        {'attn_implementation': 'eager'}
    """
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if capped else {}
