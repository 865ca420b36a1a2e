"""A server is certified from outside: an honest one passes, a broken one fails."""

import socket
from collections.abc import Iterator

import pytest

from draftsmith.audit.client import Client
from draftsmith.audit.law import Power
from draftsmith.audit.planted import BUGS
from draftsmith.audit.reference import Reference
from draftsmith.audit.server import certify_server
from draftsmith.core.verify import VERIFIERS
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError, InvalidRequestError, RemoteError
from tests.audit.openai import Server, serving, sharp_model
from tests.engine.kit import text_tokenizer

PROMPTS = ["the quick brown", "def add(a"]
POWER = Power(detects=0.35, false_fail_rate=1e-6)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def statuses(server: Server, reference: Reference | None = None) -> dict[str, str]:
    certificate = certify_server(Client(server.url), PROMPTS, reference, POWER, max_tokens=8)
    return {record.name.removeprefix("server-"): record.status for record in certificate.records}


@pytest.mark.long
def test_an_honest_server_passes(server: Server) -> None:
    server.is_strict = True
    reference = Reference(Engine(sharp_model(), text_tokenizer()))
    assert set((found := statuses(server, reference)).values()) == {"pass"}, found
    first, second = server.requests[:2]
    assert "min_p" in first, "no cut-off is wanted"
    assert "min_p" not in second, "but a server may not know the name"


@pytest.mark.long
@pytest.mark.parametrize("bug", ["row-off-by-one", "draft-law-not-sampled-from"])
def test_a_broken_server_fails_in_what_it_samples(
    server: Server, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    monkeypatch.setitem(VERIFIERS, "rejection", BUGS[bug].verifiers["rejection"])
    found = statuses(server)
    assert (found["determinism"], found["argmax"]) == ("pass", "pass")
    assert "fail" in (found["first-token"], found["later-tokens"])


@pytest.mark.long
def test_a_server_of_other_weights_fails_against_the_reference(server: Server) -> None:
    from tests import tiny

    size = len(text_tokenizer().token_strings())
    other = tiny.model("llama", 5, vocab_size=size)
    found = statuses(server, Reference(Engine(other, text_tokenizer())))
    assert found["equality"] == "fail"
    assert found["determinism"] == "pass"


def test_without_logprobs_sampling_is_not_tested(server: Server) -> None:
    server.is_mute = True
    found = statuses(server)
    assert found == {"determinism": "pass", "argmax": "untested", "law": "untested"}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((500, {"error": "no memory"}), "answered 500.*no memory"),
        ((404, {"detail": "no such model"}), "answered 404.*no such model"),
        ((200, b"<html>hello</html>"), "answered no JSON.*hello"),
        ((200, [1]), "answered no JSON object"),
        ((200, {"choices": []}), "gave no text"),
        ((200, {"object": "x"}), "answered without 'choices'"),
    ],
)
def test_an_answer_that_is_none_is_one_line(
    server: Server, reply: tuple[int, object], message: str
) -> None:
    server.reply = reply
    with pytest.raises(RemoteError, match=message) as caught:
        certify_server(Client(server.url), PROMPTS, None, POWER)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(RemoteError, match=r"does not answer.*is the server running"):
        Client(url).connect()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="url must be such as"):
        Client(url)


def test_a_remote_error_is_ours() -> None:
    assert issubclass(RemoteError, DraftsmithError)
