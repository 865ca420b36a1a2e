"""The coloured trace: in the terminal, and as a page."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from draftsmith.cli.pieces import KINDS, Names, pieces, visible
from draftsmith.cli.report import coloured, legend
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.engine.requests.result import Completion, FinishReason, Origin, TokenTrace
from draftsmith.engine.requests.text import OutputText
from draftsmith.models.load import load_tokenizer
from draftsmith.models.tokenizer import Message, Tokenizer
from tests.cli.outcome import Cli

_END = 256
_WORD = 257
_OPTIONS = ("--draft", "random", "--temp", "1", "--seed", "3", "-n", "60", "--ignore-eos")


class ByteTokenizer(Tokenizer):
    """Ids are bytes; 256 is a special token, 257 a long one."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_plain(self, text: str) -> list[int]:
        raise NotImplementedError

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        parts = [
            b"TOPPED" if token == _WORD else bytes([token]) for token in tokens if token != _END
        ]
        return b"".join(parts).decode(errors="replace")

    def token_strings(self) -> dict[int, str]:
        return {_END: "<|end|>"}

    def special_tokens(self) -> dict[str, int]:
        return {}

    @property
    def has_chat_template(self) -> bool:
        return False


def _completion(
    tokens: Sequence[int], stop: Sequence[str] = (), rejected: dict[int, int] | None = None
) -> Completion:
    """What the engine would return for these tokens."""
    output = OutputText(ByteTokenizer(), stop)
    shown: list[int] = []
    for token in tokens:
        shown.append(token)
        if output.push(token):
            break
    output.close()
    struck = rejected or {}
    trace = tuple(
        TokenTrace(
            token_id=token,
            origin=Origin.RESIDUAL if number in struck else Origin.KEPT,
            round=number,
            rejected=struck.get(number),
            logprob=None,
            top_logprobs=(),
        )
        for number, token in enumerate(shown)
    )
    reason = FinishReason.STOP
    counts = SpeculationStatistics()
    return Completion(0, output.text, tuple(shown), reason, None, counts, trace)


_TOKENS = st.sampled_from([_END, _WORD, *b"STOP", *"é".encode(), 0xFF])


@given(st.lists(_TOKENS, max_size=20), st.lists(st.sampled_from(["STOP", "PT", "é"]), max_size=2))
def test_the_pieces_are_the_text(tokens: list[int], stop: list[str]) -> None:
    completion = _completion(tokens, stop)
    found = list(pieces(completion, ByteTokenizer()))
    assert "".join(piece.text for piece in found) == completion.text
    assert [piece.token for piece in found] == list(completion.trace)


def test_a_stop_string_of_several_tokens_is_nowhere_in_the_pieces() -> None:
    completion = _completion([*b"an S", _WORD], ["STOP"])
    assert completion.text == "an "
    assert [piece.text for piece in pieces(completion, ByteTokenizer())] == [*"an ", "", ""]


def test_a_character_belongs_to_its_last_token_and_a_torn_one_is_shown() -> None:
    found = pieces(_completion([*"é".encode(), 0xC3]), ByteTokenizer())
    assert [piece.text for piece in found] == ["", "é", "\N{REPLACEMENT CHARACTER}"]


def test_what_has_no_text_has_a_name() -> None:
    completion = _completion([*b"a", _END], rejected={0: _END})
    first, last = pieces(completion, ByteTokenizer())
    assert (first.text, first.rejected, first.label) == ("a", "<|end|>", "")
    assert (last.text, last.rejected, last.label) == ("", None, "<|end|>")


@pytest.mark.parametrize(
    ("draft", "shown"), [(" ", "␣"), ("\n", "↵"), ("\t", "⇥"), ("\x1b", "␛"), ("x", "x")]
)
def test_a_rejected_draft_is_never_invisible(draft: str, shown: str) -> None:
    completion = _completion(list(b"a"), rejected={0: ord(draft)})
    assert next(iter(pieces(completion, ByteTokenizer()))).rejected == shown


def test_control_characters_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[31m\x00\x7f\tb\n") == "a␛[31m␀␡\tb\n"


def test_kept_drafts_are_green_and_rejected_ones_struck() -> None:
    text = coloured(_completion(list(b"ab"), rejected={1: ord("x")}), ByteTokenizer())
    assert text.plain == "axb"
    assert [str(span.style) for span in text.spans] == ["green", "red strike", "bold blue"]


def _traced(*tokens: tuple[int, Origin]) -> Completion:
    """One token for each pair of round and origin."""
    trace = tuple(
        TokenTrace(
            token_id=ord("a") + number,
            origin=origin,
            round=place,
            rejected=ord("z") if origin is Origin.RESIDUAL else None,
            logprob=None,
            top_logprobs=(),
        )
        for number, (place, origin) in enumerate(tokens)
    )
    ids = tuple(token.token_id for token in trace)
    text = "".join(map(chr, ids))
    return Completion(0, text, ids, FinishReason.LENGTH, None, SpeculationStatistics(), trace)


def test_a_token_of_a_round_that_drafted_nothing_is_told_from_one_behind_a_kept_draft() -> None:
    completion = _traced(
        (0, Origin.BONUS),
        (1, Origin.KEPT), (1, Origin.BONUS),
        (2, Origin.RESIDUAL),
        (3, Origin.KEPT), (3, Origin.RESIDUAL),
        (4, Origin.BONUS),
        (5, Origin.KEPT),
    )  # fmt: skip
    kinds = [piece.kind for piece in pieces(completion, ByteTokenizer())]
    assert kinds == ["plain", "kept", "bonus", "residual", "kept", "residual", "plain", "kept"]
    text = coloured(completion, ByteTokenizer())
    assert len({str(span.style) for span in text.spans}) == 5, "four kinds and the rejected"


def test_the_legend_names_every_kind() -> None:
    out = Console(width=300)
    with out.capture() as captured:
        legend(out)
    assert all(words in captured.get() for words in KINDS.values())


def test_a_tooltip_has_the_texts_of_tokens_and_not_only_their_ids(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    options = ("--trace-html", str(path), "--logprobs", "2")
    document = cli("generate", "the dog", "-m", tiny, *_OPTIONS, "--json", *options).document()
    tokenizer = load_tokenizer(tiny)
    titles = [title for title in _Page(path.read_text("utf-8")).titles if "round" in title]
    assert len(titles) == len(document["token_ids"])
    for title, token, top in zip(titles, document["token_ids"], document["logprobs"], strict=True):
        lines = title.splitlines()
        name = Names(tokenizer).shown(token)
        assert lines[0] == f"“{name}” (id {token})"
        assert any(lines[1].endswith(words) for words in KINDS.values())
        for other, logprob in top["top"].items():
            shown = Names(tokenizer).shown(int(other))
            assert f"  {logprob:.3f} “{shown}” (id {other})" in lines


def test_trace_colours_survive_a_pipe_and_leave_the_text(cli: Cli, tiny: str) -> None:
    options = ("generate", "the dog", "-m", tiny, *_OPTIONS)
    text = visible(cli(*options, "--json").document()["text"])
    outcome = cli(*options, "--trace")
    assert "\x1b[32m" in outcome.stdout
    struck = re.sub(r"\x1b\[9;31m.*?\x1b\[0m", "", outcome.stdout)
    assert re.sub(r"\x1b\[[\d;]*m", "", struck) == text + "\n"
    assert "kept draft" in outcome.stderr


def test_no_color_is_respected(cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    outcome = cli("generate", "the dog", "-m", tiny, *_OPTIONS, "--trace")
    assert not re.search(r"\x1b\[[\d;]*3\d", outcome.stdout)
    assert "\x1b[9m" in outcome.stdout, "rejected drafts must still be struck"


class _Page(HTMLParser):
    """The texts of a trace page, and what it refers to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str | None] = []
        self._is_text = self._is_aside = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]
        self.titles += [value or "" for name, value in attrs if name == "title"]
        if tag == "pre":
            self._is_text = True
            self.texts.append("")
        self._is_aside = tag in ("s", "i")

    def handle_endtag(self, tag: str) -> None:
        self._is_aside = False
        self._is_text = self._is_text and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._is_text and not self._is_aside:
            self.texts[-1] += data


def test_the_page_holds_prompt_and_text_escaped_and_nothing_from_elsewhere(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    prompt = '\n<script>alert(1)</script> & "quotes"\nnext line'
    path = tmp_path / "page.html"
    options = (
        "-m",
        tiny,
        *_OPTIONS,
        *_allowed(tiny),
        "--num-samples",
        "2",
        "--trace-html",
        str(path),
    )
    document = cli("generate", prompt, *options, "--json").document()
    source = path.read_text(encoding="utf-8")
    page = _Page(source)
    texts = [sample["text"] for sample in document["completions"]]
    assert page.texts == [prompt, *texts]
    assert {"<", "&", "\n"} <= set(texts[0])
    # One token alone is no tag and no entity, so that a lenient reader would not mind.
    assert "&lt;</span>" in source
    assert "<</span>" not in source
    assert "&</span>" not in source
    assert "script" not in page.tags
    # A newline right after <pre> is dropped by browsers.
    assert not re.search(r"<pre[^>]*>\n", source)
    assert page.references == []
    assert len(page.titles) == 120 + source.count("<s title=")


def test_the_page_is_readable_in_light_and_dark(cli: Cli, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    options = ("--trace-html", str(path), "--logprobs", "2")
    outcome = cli("generate", "the dog", "-m", tiny, *_OPTIONS, *options)
    source = path.read_text(encoding="utf-8")
    assert outcome.status == 0
    assert "prefers-color-scheme: dark" in source
    for kind in KINDS:
        assert f".{kind} {{ background" in source
    assert '<span class="plain"' in source
    assert "<s title=" in source
    assert "log-probability -" in source
    assert "://" not in source


def _allowed(checkpoint: str) -> list[str]:
    """Options that leave <, &, > and a newline."""
    vocab = json.loads((Path(checkpoint) / "tokenizer.json").read_text())["model"]["vocab"]
    return [option for name in "<&>Ċ" for option in ("--allow-token", str(vocab[name]))]
