"""A chat template is a program of others: it ends in time, or is refused in one line."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draftsmith.errors import InvalidRequestError
from draftsmith.models.hf import chat, guarded
from draftsmith.models.hf.chat import chat_renderer, render_chat
from draftsmith.models.hf.guarded import Ended, Guarded
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
    # Memory takes its time to fill, on a busy machine more than a second.
    monkeypatch.setattr(chat, "_LIMIT_S", 1.0 if "within 1 s" in said else 60.0)
    with pytest.raises(InvalidRequestError, match=said) as caught:
        render_chat(renderer(template), TALK)
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


def test_one_process_renders_for_a_tokenizer_and_ends_with_it() -> None:
    gc.collect()
    before, tokenizer = _children(), renderer(PLAIN)
    wanted = "<s><|user|>a fox<|assistant|>runs\n✓<|assistant|>"
    assert render_chat(tokenizer, TALK) == wanted
    (mine,) = _children() - before
    assert [render_chat(tokenizer, TALK) for _ in range(3)] == [wanted] * 3
    assert _children() - before == {mine}
    tokenizer.chat_template = "{{ messages | length }}"
    assert render_chat(tokenizer, TALK) == "2"
    (other,) = _children() - before
    assert other != mine
    del tokenizer
    gc.collect()
    assert not _children() - before


def _children() -> set[int]:
    """Of this process."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in task.read_text().split()}


def test_a_process_that_was_idle_for_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_IDLE_S", 0.1)
    call = Guarded(lambda text: f"{os.getpid()} {text}", 9.0, 1 << 28)
    first = call("a")
    time.sleep(0.5)
    second = call("b")
    assert (first.how, second.how) == ("returned", "returned")
    assert first.text.split()[0] != second.text.split()[0]


def test_a_fork_of_this_process_gets_a_process_of_its_own() -> None:
    call = Guarded(lambda text: f"{os.getppid()}", 9.0, 1 << 28)
    assert call("") == ("returned", str(os.getpid()))
    child = os.fork()
    if not child:
        os._exit(0 if call("") == ("returned", str(os.getpid())) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert call("") == ("returned", str(os.getpid()))


def test_a_message_with_an_object_is_refused() -> None:
    odd: Any = [{"role": "user", "content": [object()]}]
    with pytest.raises(InvalidRequestError, match=r"no plain value .*object .*: give texts"):
        render_chat(renderer(PLAIN), odd)


def test_a_template_of_several_is_the_default_one() -> None:
    tokenizer = chat_renderer({"default": PLAIN, "tool_use": "no"}, {"bos_token": "<s>"})
    assert render_chat(tokenizer, TALK).startswith("<s><|user|>")


def test_every_way_that_a_guarded_call_ends_is_told() -> None:
    def fails(text: str) -> str:
        raise ValueError("two\nlines")

    def leaves(text: str) -> str:
        os._exit(3)

    def run(function: Callable[[str], str], limit_s: float = 9.0) -> Ended:
        call = Guarded(function, limit_s, 1 << 28)
        ended = call("é\ud800")
        assert call("é\ud800") == ended  # and again, in the same process or a new one
        return ended

    assert run(lambda text: text) == ("returned", "é\ud800")
    assert run(lambda text: text * 10**6) == ("returned", "é\ud800" * 10**6)
    assert run(fails) == ("raised", "two lines")
    assert run(leaves).how == "killed"
    assert run(lambda text: str(time.sleep(60)), 0.2).how == "out of time"
    assert run(lambda text: "x" * (1 << 30)).how == "out of memory"


def test_a_conversation_of_a_real_tokenizer_is_the_same_as_before() -> None:
    raw = tiny.raw_tokenizer()
    text = raw.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
    tokenizer = wrap_tokenizer(raw)
    assert tokenizer.encode_chat(TALK[:1]) == tokenizer.encode_plain(str(text))
