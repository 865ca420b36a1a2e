"""The callable that `model.generate` takes as `custom_generate`."""
# transformers' objects have no types that hold from one version to the next:
# pyright: basic

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from draftsmith.core.gamma import Gamma, check_gamma
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.drafters.given import drafter_of
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError, VocabularyMismatchError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model, wrap_tokenizer
from draftsmith.models.hf.output import generate_output, stop_string_criterion
from draftsmith.transformers.caller import arguments_of_generate
from draftsmith.transformers.options import check_config
from draftsmith.transformers.prompts import Prompts, check_inputs, take_prompts
from draftsmith.transformers.run import Call, Texts, padded, run
from draftsmith.transformers.state import names_of_stateful
from draftsmith.transformers.statistics import Statistics

__all__ = ["generate"]

_DEFAULT_GAMMA = 4


def generate(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    *,
    assistant_model: Any = None,
    tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    stop_strings: Any = None,
    streamer: Any = None,
    inputs_tensor: Tensor | None = None,
    draft: Drafter | None = None,
    verifier: str | None = None,
    seed: int | None = None,
    statistics: Statistics | None = None,
    **model_kwargs: Any,
) -> Any:
    """A `custom_generate` for `model.generate`; not to be called by itself.

    Args:
        model: The target; `transformers` passes it, and the next four.
        input_ids: Prompts, padded on the left.
        logits_processor: The target's sampling transform.
        stopping_criteria: Asked after every token.
        generation_config: `num_assistant_tokens` is gamma (4 if unset), and
            `prompt_lookup_num_tokens` is gamma for prompt lookup.
        assistant_model: A draft model of the same tokenizer.
        tokenizer: The target's, for `stop_strings`, and to be checked against the next.
        assistant_tokenizer: The draft's.
        stop_strings: Texts that end a sequence; they need `tokenizer`.
        streamer: Gets token ids as they become certain; for one prompt.
        inputs_tensor: What the encoder was given; `transformers` passes it.
        draft: A drafter of ours, in the place of `assistant_model`.
        verifier: `rejection`, `block` or `coupled`.
        seed: Fixes the text, with speculation on or off. Without it, torch's global generator
            seeds the run.
        statistics: Takes down what the rounds did.
        **model_kwargs: `attention_mask` and what else `transformers` prepares.

    Returns:
        Prompt and output ids, as `transformers` returns them.

    Raises:
        InvalidRequestError: If an option or an input cannot be honoured exactly.
        VocabularyMismatchError: If the draft's tokenizer is not the target's.

    Example:
        >>> import draftsmith.transformers, torch, transformers
        >>> model = transformers.AutoModelForCausalLM.from_pretrained("./target")
        >>> output = model.generate(
        ...     torch.tensor([[5, 6, 7, 5, 6]]),
        ...     custom_generate=draftsmith.transformers.generate,
        ...     prompt_lookup_num_tokens=3, max_new_tokens=8)
        >>> output.shape
        torch.Size([1, 13])
    """
    named = {
        "assistant_model": assistant_model,
        "tokenizer": tokenizer,
        "assistant_tokenizer": assistant_tokenizer,
        "streamer": streamer,
    }
    arguments = arguments_of_generate()
    arguments |= {name: value for name, value in named.items() if value is not None}
    config, streamer = generation_config, arguments.get("streamer")
    check_config(config)
    check_inputs(model, arguments, model_kwargs)
    if streamer is not None and len(input_ids) > 1:
        raise InvalidRequestError(f"a streamer takes one prompt, got {len(input_ids)}")
    target = wrap_model(model)
    engine = _engine(target, draft, model, config, arguments)
    prompts = take_prompts(
        model, target, input_ids, inputs_tensor, config, arguments, dict(model_kwargs)
    )
    _check_sources(prompts, engine.draft)
    params = SamplingParams(
        temperature=1.0 if config.do_sample else 0.0, verifier=verifier, seed=seed
    )
    criteria = _with_stop_strings(stopping_criteria, stop_strings, arguments.get("tokenizer"))
    call = Call(input_ids, prompts, logits_processor or [], criteria, config, params)
    _warn_of_state(call, engine)
    texts = run(call, engine, streamer)
    return _output(call, texts, statistics)


def _engine(
    target: LanguageModel, draft: Drafter | None, model: Any, config: Any, arguments: Any
) -> Engine:
    """Target and drafter, a pair that can work."""
    assistant = arguments.get("assistant_model")
    _check_one_draft(draft, assistant, config)
    gamma = _gamma(model, config, assistant, arguments)
    drafter = draft
    if draft is None and config.prompt_lookup_num_tokens is not None:
        longest = getattr(config, "max_matching_ngram_size", None) or 2
        drafter = PromptLookupDrafter(min_ngram=1, max_ngram=longest)
    elif draft is None and assistant is not None:
        drafter = ModelDrafter(wrap_model(assistant))
    tokenizers = [arguments.get(name) for name in ("tokenizer", "assistant_tokenizer")]
    if isinstance(drafter, ModelDrafter) and any(one is None for one in tokenizers):
        _check_sizes(target, drafter)
    ours, theirs = (wrap_tokenizer(one) if one is not None else None for one in tokenizers)
    if isinstance(drafter, ModelDrafter) and ours is not None and theirs is not None:
        drafter = drafter_of(drafter.model, target, ours, theirs, drafter.branches)
        theirs = None
    return Engine(target, ours, drafter, gamma=gamma if drafter else None, draft_tokenizer=theirs)


def _check_one_draft(draft: Drafter | None, assistant: Any, config: Any) -> None:
    """Refuse two drafts, of which one would be dropped, and an assistant that is no model."""
    asked = {
        "draft": draft,
        "assistant_model": assistant,
        "prompt_lookup_num_tokens": config.prompt_lookup_num_tokens,
    }
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise InvalidRequestError(f"{' and '.join(given)} are both drafts: give one of them")
    if assistant is not None and not hasattr(assistant, "config"):
        raise InvalidRequestError(
            f"assistant_model must be a model of transformers, got {assistant!r:.80}: load it first"
        )


def _check_sizes(target: LanguageModel, draft: ModelDrafter) -> None:
    """Refuse two vocabularies of unequal size, unless the tokenizers are there to compare."""
    sizes = draft.model.traits.vocab_size, target.traits.vocab_size
    if sizes[0] != sizes[1]:
        raise VocabularyMismatchError(
            f"the draft {draft.name} has {sizes[0]} ids, the target {sizes[1]}: if that is padding "
            "of one vocabulary, pass tokenizer= and assistant_tokenizer= to show it"
        )


def _gamma(model: Any, config: Any, assistant: Any, arguments: Mapping[str, Any]) -> Gamma:
    """What the user set; `transformers` fills its own default of 20 in beforehand."""
    if config.prompt_lookup_num_tokens is not None:
        return check_gamma(config.prompt_lookup_num_tokens)
    name = "num_assistant_tokens"
    configs = [arguments.get("generation_config"), model.generation_config]
    configs.append(getattr(assistant, "generation_config", None))
    values = [arguments.get(name), *(getattr(one, name, None) for one in configs)]
    return check_gamma(next((one for one in values if one is not None), _DEFAULT_GAMMA))


def _check_sources(prompts: Prompts, draft: Drafter | None) -> None:
    is_needed = isinstance(draft, ModelDrafter) and draft.model.traits.is_encoder_decoder
    if is_needed and not all(prompts.sources):
        raise InvalidRequestError(
            "assistant_model cannot draft from an encoder's input that is no token ids: use "
            "prompt_lookup_num_tokens, or pass input_ids beside encoder_outputs"
        )


def _with_stop_strings(criteria: Any, stop_strings: Any, tokenizer: Any) -> list[Any]:
    """The stopping criteria, and one for the stop strings that we took before `transformers`."""
    criteria = list(criteria or ())
    if stop_strings is None:
        return criteria
    if tokenizer is None:
        raise InvalidRequestError(f"stop_strings={stop_strings!r} needs tokenizer=: pass it too")
    return [*criteria, stop_string_criterion(stop_strings, tokenizer)]


def _warn_of_state(call: Call, engine: Engine) -> None:
    if not call.is_lockstep or engine.draft is None:
        return
    names = ", ".join(dict.fromkeys(names_of_stateful([*call.processors, *call.criteria])))
    warnings.warn(
        f"{names or 'stopping criteria of a batch without eos_token_id'} may keep a state from "
        "call to call, so nothing is drafted; if each answer is a function of the prefix alone, "
        "declare it with draftsmith.transformers.stateless(...)",
        UserWarning,
        stacklevel=3,
    )


def _output(call: Call, texts: Texts, statistics: Statistics | None) -> Any:
    """What `transformers` would return, and the statistics where they are wanted."""
    prompts = call.prompts
    if prompts.cache is not None and prompts.read is not None:
        prompts.read.write_back(prompts.cache, [len(text) for text in texts.outputs])
    if statistics is not None:
        statistics.add(texts.statistics)
    sequences = padded(call, texts.outputs)
    if not call.config.return_dict_in_generate:
        return sequences
    own = Statistics()
    own.add(texts.statistics)
    is_pair = prompts.target.traits.is_encoder_decoder
    return generate_output(sequences, prompts.cache, own, is_encoder_decoder=is_pair)
