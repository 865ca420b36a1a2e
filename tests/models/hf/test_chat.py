"""A chat template is a program of others: it ends in time, or is refused in one line."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import os
import sys
import time
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.models.hf import chat
from draftsmith.models.hf.chat import chat_renderer, render_chat
from draftsmith.models.hf.guarded import run_guarded
from draftsmith.models.hf.load import wrap_tokenizer
from tests import tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guarded where it can fork")
TALK = [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": "runs\n✓"}]
PLAIN = (
    "{{ bos_token }}{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] | trim }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_NESTED = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
RUNAWAYS = {
    "loops": (_NESTED, "does not end within 1 s"),
    "a power of powers, when compiled": ("{{ 9 ** (9 ** 9) }}", "does not end within 1 s"),
    "a power of powers, when run": (
        "{% set nine = messages | length + 7 %}{{ nine ** (nine ** nine) }}",
        "does not end within 1 s",
    ),
    "a long text": ("{{ 'x' * 99999999999 }}", "takes too much memory"),
    "a text that doubles": (
        "{% set it = namespace(x='ab') %}{% for i in range(60) %}{% set it.x = it.x + it.x %}"
        "{% endfor %}",
        "takes too much memory",
    ),
    "recursion": (
        "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
        "refuses the messages: maximum recursion depth",
    ),
}


def renderer(template: str) -> Any:
    return chat_renderer(template, {"bos_token": "<s>"})


@pytest.mark.parametrize(("template", "said"), RUNAWAYS.values(), ids=RUNAWAYS)
def test_a_runaway_template_is_one_line(
    template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_LIMIT_S", 1.0)
    start = time.monotonic()
    with pytest.raises(InvalidRequestError, match=said) as caught:
        render_chat(renderer(template), TALK)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert str(caught.value).endswith("change the turns, or mend the template")


@pytest.mark.parametrize("template", [PLAIN, "{{ raise_exception('no\nmore') }}", "{{ 1 / 0 }}"])
def test_guarded_and_not_say_the_same(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> str:
        try:
            return render_chat(renderer(template), TALK)
        except InvalidRequestError as error:
            return f"refused: {error}"

    guarded = outcome()
    monkeypatch.setattr(chat, "_CAN_GUARD", False)
    assert guarded == outcome()
    assert "\n" not in guarded or template == PLAIN


def test_a_template_is_compiled_once_and_no_child_is_left() -> None:
    tokenizer = renderer(PLAIN)
    wanted = "<s><|user|>a fox<|assistant|>runs\n✓<|assistant|>"
    assert [render_chat(tokenizer, TALK) for _ in range(3)] == [wanted] * 3
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_template_of_several_is_the_default_one() -> None:
    tokenizer = chat_renderer({"default": PLAIN, "tool_use": "no"}, {"bos_token": "<s>"})
    assert render_chat(tokenizer, TALK).startswith("<s><|user|>")


def test_every_way_that_a_guarded_call_ends_is_told() -> None:
    def fails() -> str:
        raise ValueError("two\nlines")

    def leaves() -> str:
        os._exit(3)

    assert run_guarded(lambda: "é\ud800", 9.0, 1 << 28) == ("returned", "é\ud800")
    assert run_guarded(fails, 9.0, 1 << 28) == ("raised", "two lines")
    assert run_guarded(leaves, 9.0, 1 << 28).how == "killed"
    assert run_guarded(lambda: str(time.sleep(60)), 0.2, 1 << 28).how == "out of time"
    assert run_guarded(lambda: "x" * (1 << 30), 9.0, 1 << 28).how == "out of memory"


def test_a_conversation_of_a_real_tokenizer_is_the_same_as_before() -> None:
    raw = tiny.raw_tokenizer()
    text = raw.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    tokenizer = wrap_tokenizer(raw)
    assert tokenizer.encode_chat(TALK[:1]) == tokenizer.encode_plain(str(text))
