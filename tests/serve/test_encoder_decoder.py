"""Encoder-decoder models are served alike: the prompt is what the encoder reads."""

from dataclasses import replace

from draftsmith.core.params import SamplingParams
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.models.contract import LanguageModel
from tests import tiny
from tests.engine import kit
from tests.serve import live


def _model() -> LanguageModel:
    size = len(kit.text_tokenizer().token_strings())
    model = tiny.model("t5", 2, vocab_size=size, tie_word_embeddings=False)
    model.traits = replace(model.traits, name="tiny-t5")
    return model


def test_their_texts_are_the_engines_with_speculation_on_and_off() -> None:
    model, words = _model(), kit.text_tokenizer()
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=20, ignore_eos=True)
    own = Engine(model, words).generate("the quick brown fox", params)[0]
    engine = Engine(model, words, PromptLookupDrafter(min_ngram=1), gamma=3)
    with live.serving(engine) as server:
        for speculation in (None, {"gamma": 0}):
            answer = server.complete(
                "the quick brown fox",
                seed=3,
                max_tokens=20,
                ignore_eos=True,
                speculation=speculation,
            )
            assert answer.texts == [own.text]
            assert answer.body["usage"]["prompt_tokens"] == len(own.prompt_token_ids)
