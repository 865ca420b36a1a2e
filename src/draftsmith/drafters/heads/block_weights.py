"""A block head's tensors under our names, whatever the files called them."""

from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.weights import HeadWeights, check_tensors, layer_name

__all__ = ["block_shapes", "check_block"]


def block_shapes(config: BlockConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a block head has, by our names.

    Args:
        config: The head's.

    Returns:
        The shape of each, outputs first.
    """
    width = config.hidden_size
    found: dict[str, tuple[int, ...]] = {
        "fc": (width, len(config.boundaries) * config.target_hidden_size),
        "context_norm": (width,),
    }
    for number in range(config.num_layers):
        found |= {layer_name(number, part): shape for part, shape in _layer(config).items()}
    found["norm"] = (width,)
    if config.has_head:
        found["head"] = (config.vocab_size, width)
    if config.has_embedding:
        found["embedding"] = (config.target_vocab_size, width)
    return found | _markov(config) | _confidence(config)


def _layer(config: BlockConfig) -> dict[str, tuple[int, ...]]:
    width = config.hidden_size
    return {
        "input_norm": (width,),
        "post_norm": (width,),
        "query": (config.query_size, width),
        "key": (config.key_size, width),
        "value": (config.key_size, width),
        "output": (width, config.query_size),
        "query_norm": (config.head_size,),
        "key_norm": (config.head_size,),
        "gate": (config.intermediate_size, width),
        "up": (config.intermediate_size, width),
        "down": (width, config.intermediate_size),
    }


def _markov(config: BlockConfig) -> dict[str, tuple[int, ...]]:
    if config.markov == "none":
        return {}
    width, rank = config.hidden_size, config.markov_rank
    found: dict[str, tuple[int, ...]] = {
        "markov.previous": (config.target_vocab_size, rank),
        "markov.following": (config.vocab_size, rank),
    }
    if config.markov == "gated":
        found |= {"markov.gate": (rank, width + rank), "markov.gate_bias": (rank,)}
    if config.markov == "rnn":
        found |= {"markov.joint": (3 * rank, 2 * rank + width), "markov.joint_bias": (3 * rank,)}
    return found


def _confidence(config: BlockConfig) -> dict[str, tuple[int, ...]]:
    if not config.has_confidence:
        return {}
    rank = config.markov_rank if config.confidence_reads_token else 0
    return {"confidence": (1, config.hidden_size + rank), "confidence_bias": (1,)}


def check_block(config: BlockConfig, weights: HeadWeights) -> None:
    """Refuse tensors that are not this head's.

    Args:
        config: The head's.
        weights: Its tensors and ids.

    Raises:
        ModelFormatError: One is missing, unknown or misshapen, or holds what is no number.
    """
    check_tensors(weights.tensors, block_shapes(config))
    weights.check_ids(config.vocab_size, config.target_vocab_size)
