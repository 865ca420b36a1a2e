"""Wrong calls from Python, and how each refusal begins; run as a program, it makes them.

A program of its own, because the type checker of a test run would answer before the product.
"""
# the point of these calls is that their types are wrong:
# pyright: basic

import json
import sys
from typing import Any

CALLS: dict[str, str] = {
    # numbers that are none, or not whole
    "SamplingParams(temperature='hot')": "temperature must be a number, got 'hot'",
    "SamplingParams(temperature=None)": "temperature must be a number, got None",
    "SamplingParams(temperature=True)": "temperature must be a number, got True",
    "SamplingParams(temperature=-1)": "temperature must be 0 or more, got -1.0",
    "SamplingParams(temperature=10**400)": "temperature must be a number, got 1000",
    "SamplingParams(temperature=1e-46)": "temperature must be 0, or between 1e-30 and 1e30",
    "SamplingParams(draft_temperature=1e39)": "draft_temperature must be 0, or between 1e-30",
    "SamplingParams(temperature=1j)": "temperature must be a number, got 1j",
    "SamplingParams(top_p=[0.9])": "top_p must be a number, got [0.9]",
    "SamplingParams(min_p=np.array([0.1, 0.2]))": "min_p must be a number, got array([0.1, 0.2])",
    "SamplingParams(top_k=2.5)": "top_k must be a whole number, got 2.5",
    "SamplingParams(top_k='3')": "top_k must be a whole number, got '3'",
    "SamplingParams(max_tokens=1.5)": "max_tokens must be a whole number, got 1.5",
    "SamplingParams(max_tokens=16.0)": "max_tokens must be a whole number, got 16.0",
    "SamplingParams(max_tokens=True)": "max_tokens must be a whole number, got True",
    "SamplingParams(max_tokens=0)": "max_tokens must be 1 or more, got 0",
    "SamplingParams(min_tokens=-1)": "min_tokens must be between 0 and max_tokens (256), got -1",
    "SamplingParams(n=2.0)": "n must be a whole number, got 2.0",
    "SamplingParams(n=None)": "n must be a whole number, got None",
    "SamplingParams(seed=1.5)": "seed must be a whole number, got 1.5",
    "SamplingParams(seed='lucky')": "seed must be a whole number, got 'lucky'",
    "SamplingParams(seed=torch.tensor(0.5))": "seed must be a whole number, got tensor(0.5000)",
    "SamplingParams(logprobs=True)": "logprobs must be a whole number, got True",
    "SamplingParams(repetition_penalty='1.1')": "repetition_penalty must be a number, got '1.1'",
    "SamplingParams(presence_penalty=None)": "presence_penalty must be a number, got None",
    "SamplingParams(presence_penalty=1e39)": "presence_penalty must be between -1e30",
    "SamplingParams(repetition_penalty=1e-320)": "repetition_penalty must be between 1e-30",
    "SamplingParams(no_repeat_ngram_size=-1)": "no_repeat_ngram_size must be 0 (none) or more",
    "SamplingParams(ignore_eos='no')": "ignore_eos must be True or False, got 'no'",
    "SamplingParams(ignore_eos=0)": "ignore_eos must be True or False, got 0",
    "SamplingParams(draft_temperature='cold')": "draft_temperature must be a number, got 'cold'",
    "SamplingParams(lossy_lenience=0)": "lossy_lenience must be above 0 and at most 1 (exact)",
    # ids, words and names
    "SamplingParams(stop=3)": "stop must be a string or several, got 3",
    "SamplingParams(stop=b'end')": "stop must be a string or several, got b'end'",
    "SamplingParams(stop=['end', 3])": "stop must be a string or several, got ['end', 3]",
    "SamplingParams(stop='')": "stop must be made of non-empty strings, got '': leave the",
    "SamplingParams(stop_token_ids=3)": "stop_token_ids must be token ids, got 3",
    "SamplingParams(stop_token_ids='13')": "stop_token_ids must be token ids, got '13'",
    "SamplingParams(stop_token_ids=[3.0])": "stop_token_ids must be token ids, got [3.0]",
    "SamplingParams(stop_token_ids=[-1])": "stop_token_ids must be token ids, got [-1]",
    "SamplingParams(banned_token_ids=[True])": "banned_token_ids must be token ids, got [True]",
    "SamplingParams(allowed_token_ids={'a': 1})": "allowed_token_ids must be token ids, got {'a'",
    "SamplingParams(logit_bias=[(1, 2.0)])": "logit_bias must be a mapping of token ids to numbers",
    "SamplingParams(logit_bias={'a': 1.0})": "logit_bias must be keyed by token ids, got 'a'",
    "SamplingParams(logit_bias={3: 'up'})": "logit_bias must be a number, got 'up'",
    "SamplingParams(logit_bias={3: 1e39})": "logit_bias must be between -1e30 and 1e30",
    "SamplingParams(sequence_bias={(3,): 1e39})": "sequence_bias must be between -1e30",
    "SamplingParams(bad_words=[3, 4])": "bad_words must be made of strings or token-id sequences",
    "SamplingParams(bad_words=[''])": "bad_words must be made of words that are not empty",
    "SamplingParams(sequence_bias={3: 1.0})": "sequence_bias must be token ids, got 3",
    "SamplingParams(forced_bos_token_id='en')": "forced_bos_token_id must be a whole number",
    "SamplingParams(exponential_decay_length_penalty=3)": "exponential_decay_length_penalty must b",
    "SamplingParams(verifier='exact')": "verifier must be one of rejection, block, coupled, got 'e",
    "SamplingParams(verifier=['block'])": "verifier must be one of rejection, block, coupled, got",
    # forms
    "SamplingParams(structured_outputs='json')": "structured_outputs must be StructuredOutputs, or",
    "SamplingParams(structured_outputs={'jason': {}})": "unknown field 'jason' of structured_out",
    "StructuredOutputs(regex=3)": "structured_outputs.regex must be a text that is not empty",
    "StructuredOutputs(json=[1])": "structured_outputs.json must be a JSON schema: an object",
    "StructuredOutputs(json_object=1)": "structured_outputs.json_object must be True or False",
    "StructuredOutputs(choice=3)": "structured_outputs.choice must be a list of texts, got 3",
    # the engine and its parts
    "Engine('smollm2-135m-instruct')": "target must be an object of draftsmith's, got 'smollm2-135",
    "Engine(None)": "target must be an object of draftsmith's, got 'NoneType': use load_engine",
    "Engine(raw)": "target must be an object of draftsmith's, got 'LlamaForCausalLM': use load_eng",
    "Engine(model, raw_tokenizer)": "tokenizer must be an object of draftsmith's, got ",
    "Engine(model, draft='prompt-lookup')": "draft must be an object of draftsmith's, got 'prompt-",
    "Engine(model, draft=model)": "draft must be an object of draftsmith's, got 'CausalModel'",
    "Engine(model, gamma=4)": "gamma=4 needs a draft: give one, or leave gamma out",
    "Engine(model, gamma='auto')": "gamma='auto' needs a draft: give one, or leave gamma out",
    "Engine(model, gamma=99)": "gamma must be between 0 and 32, or auto, got 99",
    "Engine(model, draft=lookup, gamma=2.0)": "gamma must be between 0 and 32, or auto, got 2.0",
    "Engine(model, draft=lookup, gamma=True)": "gamma must be between 0 and 32, or auto, got True",
    "Engine(model, draft=lookup, gamma='fast')": "gamma must be between 0 and 32, or auto, got 'fa",
    "Engine(model, max_batch_size=0)": "max_batch_size must be 1 or more, got 0",
    "Engine(model, max_batch_size=2.5)": "max_batch_size must be a whole number, got 2.5",
    "Engine(model, cache_tokens=63)": "cache_tokens must be 64 or more, got 63",
    "Engine(model, cache_tokens='all')": "cache_tokens must be 64 or more, got 'all'",
    "Engine(model, cache_tokens=640)": "cache_tokens=640 needs a native decoder on a CPU or a GPU",
    "Engine(model, prefix_caching='yes')": "prefix_caching must be True or False, got 'yes'",
    "Engine(model, draft=ModelDrafter(other))": "draft other has 90 ids and target tiny-llama 96:",
    "ModelDrafter('smollm2-135m-instruct')": "model must be a loaded model, got 'smollm2-135m-ins",
    "SpeculativeDrafter(model, lookup, 2.5)": "inner_gamma must be between 1 and 32, got 2.5",
    "SpeculativeDrafter(model, lookup, 0)": "inner_gamma must be between 1 and 32, got 0",
    "PromptLookupDrafter(min_ngram=1.5)": "min_ngram must be a whole number, got 1.5",
    "PromptLookupDrafter(min_ngram=3, max_ngram=2)": "min_ngram must be between 1 and max_ngram (2",
    "RandomDrafter(0)": "vocab_size must be 1 or more, got 0",
    "RandomDrafter('many')": "vocab_size must be a whole number, got 'many'",
    "NgramTable.from_tokens([[1, 2]], 0)": "vocab_size must be 1 or more, got 0",
    "NgramTable.from_tokens([[1, 2]], 8, order=3)": "order must be 1 or 2, got 3",
    # requests
    "engine.generate(None)": "the prompt is None: give text, token ids, or a list of messages",
    "engine.generate(b'abc')": "the prompt is b'abc': give text, token ids, or a list of messages",
    "engine.generate('text')": "a text prompt needs a tokenizer: give token ids, or a tokenizer",
    "engine.generate([5, 6.5])": "the prompt holds 6.5, which is no token id: give text",
    "engine.generate([5, 960])": "the prompt has id 960, but tiny-llama has ids 0 … 95",
    "engine.generate([{'role': 'user', 'content': None}])": "the prompt has a message whose",
    "engine.generate([[{'role': 3, 'content': 'x'}]])": "prompt 0 has a message whose 'role' is 3",
    "engine.generate([])": "prompts is empty: give at least one",
    "engine.generate([5], {'temperature': 1})": "params must be SamplingParams, or a list of them",
    "engine.generate([5], 64)": "params must be SamplingParams, or a list of them, got 64",
    "engine.generate([5], [None])": "params must be made of SamplingParams, got None",
    "engine.generate([5], [SamplingParams()] * 2)": "params must be one, or 1, got 2",
    "engine.generate([5], max_token=3)": "unknown sampling option 'max_token': use allowed_token_i",
    "engine.generate([5], SamplingParams(), seed=3)": "params and seed were both given: put all",
    "engine.generate([5] * 100, max_tokens=64)": "max_tokens must be at most 28, which tiny-llama'",
    "engine.generate([5], forced_bos_token_id=7)": "forced_bos_token_id is for encoder-decoder mod",
    "engine.generate([5], suppress_token_ids=[400])": "suppress_token_ids has id 400, but tiny-lla",
    "engine.generate([5], bad_words=['x'])": "bad_words in letters need a tokenizer: use token ids",
    "engine.generate([5], forced_eos_token_id=7, banned_token_ids=[7])": "forced_eos_token_id must",
    "engine.generate([5], draft_temperature=0.5)": "draft_temperature=0.5 needs a draft: give",
    "engine.generate([5], draft_top_k=3)": "draft_top_k=3 needs a draft: give one",
    "copying.generate([5], draft_temperature=0.5)": "draft_temperature is for drafts that are draw",
    "next(iter(engine.stream([5], max_tokens='9')))": "max_tokens must be a whole number, got '9'",
    "engine.start([5], top_k=1.5)": "top_k must be a whole number, got 1.5",
    # the shortest way in
    "generate('hi', target=3)": "target must be a name, a path or a loaded model, got 3: see load_",
    "generate('hi', target=None)": "target must be a name, a path or a loaded model, got None",
    "generate('hi', target='nosuch')": "no model 'nosuch'; give a catalogue name, a Hub id (org/na",
    "generate('hi', target=model, temperatur=1)": "unknown sampling option 'temperatur': use allow",
    "load_engine(Path('/nowhere/model'))": "target '/nowhere/model' does not exist: check the path",
    "load_engine(model, draft=3)": "draft must be a name, a path or a loaded model, got 3",
    "FreeDrafter(5)": "memory must be the path of a file, or None, got 5",
    "FreeDrafter('')": "memory must be the path of a file, or None, got ''",
    "load_engine(model, FreeDrafter(folder))": "memory ",
    "Engine(model, draft=FreeDrafter('m')).generate([1, 2])": "memory='m' is read for one target",
    "load_engine(model, 'free:')": "draft must be free, or free:FILE with a file that is remembe",
    "load_engine(model, PromptLookupDrafter)": "draft is the class PromptLookupDrafter: give an o",
    "load_engine(type(model))": "target is the class CausalModel: give an object of it",
    "load_engine(model, Drafter)": "draft is the class Drafter: give an object of it",
    "Engine(model, draft=Drafter)": "draft is the class Drafter: give an object of it",
    "load_engine(model, draft='nosuch')": "no model 'nosuch'; give a catalogue name, a Hub id (org",
    "load_engine(model, gamma=4)": "gamma=4 needs a draft: give one, or leave gamma out",
    "load_engine(model, tokenizer=3)": "tokenizer must be a name, a path or a tokenizer of transfo",
    "load_engine(model, dtype='float32')": "dtype='float32' is for models that are loaded by name",
    "load_engine(model, threads=2)": "threads=2 is for models that are loaded by name, and these",
    "load_engine(folder, dtype='float8')": "dtype must be one of auto, float32, bfloat16, float16,",
    "load_engine(folder, device=0)": "device must be a name such as 'cpu' or 'cuda', got 0",
    "load_engine(folder, threads=0)": "threads must be between 1 and 1024, got 0",
    "load_engine(folder, threads=1.5)": "threads must be between 1 and 1024, got 1.5",
    "load_engine(folder, layers_per_device=2)": "layers_per_device must be a number of layers",
    "load_engine(folder, layers_per_device=(2, 0))": "layers_per_device must be a number of",
    "load_engine(folder, device='cpu', layers_per_device=(1, 1))": "layers_per_device is for the",
    "load_engine(model, layers_per_device=(1, 1))": "layers_per_device=(1, 1) is for models that",
    "load_engine(folder, activations='int4')": "activations must be one of int8, float32, got 'int",
    "load_engine(gpt2, activations='int8', device='cpu')": "activations='int8' needs a native dec",
    "load_engine(model, 'prompt-lookup', draft_vocab_size=9)": "draft_vocab_size=9 is for a draft",
    "load_engine(model, 'random', draft_tokenizer=raw_tokenizer)": "draft_tokenizer is for a draf",
    "load_engine(model, model, draft_vocab_size=9)": "draft_vocab_size=9 is for a draft model that",
    "load_engine(folder, folder, draft_vocab_size=-1)": "draft_vocab_size must be 0 or more, got -",
    "load_engine(folder, folder, branches=0)": "branches must be between 1 and 8, got 0",
    "load_engine(folder, folder, branches=2.5)": "branches must be between 1 and 8, got 2.5",
    "load_engine(folder, branches=2)": "branches=2 needs a draft: give one, or leave it out",
    "load_engine(folder, 'free', branches=2)": "branches=2 is for a draft model of the target's vo",
    "load_engine(folder, lookup, branches=2)": "branches=2 is for drafts that are loaded here, an",
    "load_engine(folder, model, branches=2)": "branches=2 needs a draft that a native decoder run",
    "load_engine(folder, max_batch_size=None)": "max_batch_size must be a whole number, got None",
    "load_engine(folder, cache_tokens=1)": "cache_tokens must be 64 or more, got 1",
    "load_engine(folder, prefix_caching=1)": "prefix_caching must be True or False, got 1",
    "load_engine(folder, on_progress='show')": "on_progress must be a function that takes the prog",
    "load_engine(model, 'bigram:/nowhere/t.npz')": "n-gram file '/nowhere/t.npz' does not exist: c",
    "beam_search(engine, [5], num_beams=2.5)": "num_beams must be a whole number, got 2.5",
    "beam_search(engine, [5], num_beams=0)": "num_beams must be 1 or more, got 0",
    "beam_search(engine, [5], gamma=1.5)": "gamma must be between 0 and 32, or auto, got 1.5",
    "beam_search(model, [5])": "engine must be an Engine, got CausalModel: make one with load_engi",
}


def namespace() -> dict[str, Any]:
    """What the calls name."""
    import tempfile
    from pathlib import Path

    import numpy as np
    import torch

    import draftsmith
    from draftsmith.models.hf.load import wrap_model
    from tests import tiny

    names = {name: getattr(draftsmith, name) for name in draftsmith.__all__}
    raw = tiny.raw_model("llama")
    model, place = wrap_model(raw, "tiny-llama"), Path(tempfile.mkdtemp())
    tiny.raw_model("gpt2").save_pretrained(place / "gpt2")
    raw_tokenizer = tiny.raw_tokenizer()
    raw_tokenizer.save_pretrained(place / "gpt2")
    lookup = draftsmith.PromptLookupDrafter()
    return names | {
        "np": np,
        "torch": torch,
        "Path": Path,
        "raw": raw,
        "raw_tokenizer": raw_tokenizer,
        "model": model,
        "other": wrap_model(tiny.raw_model("llama", vocab_size=90), "other"),
        "engine": draftsmith.Engine(model),
        "copying": draftsmith.Engine(model, draft=lookup),
        "lookup": lookup,
        "folder": str(tiny.save_checkpoint(place / "folder")),
        "gpt2": str(place / "gpt2"),
    }


def outcome(call: str, names: dict[str, Any]) -> tuple[str, str]:
    """The kind of what a call raises, and its message; empty if it raises nothing."""
    from draftsmith import DraftsmithError

    try:
        eval(call, names)
    except DraftsmithError as error:
        return "DraftsmithError", str(error)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


if __name__ == "__main__":
    found = namespace()
    json.dump({call: outcome(call, found) for call in CALLS}, sys.stdout)
