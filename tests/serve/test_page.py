"""The page: what it is made of, and what it does in a browser, where there is one."""

import re
import shutil
from collections.abc import Generator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from draftsmith.serve.settings import ServeSettings
from tests.serve import live
from tests.serve.gated import Gated
from tests.serve.live import Live

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
expect.set_options(timeout=30_000)
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="needs Debian's chromium")
_NAMES = ("index.html", "page.css", "page.js", "panel.js", "stream.js", "icon.svg")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with sync_playwright() as playwright:
        # Without a sandbox, because tests may run as root; the page is ours.
        found = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def context(browser: Browser) -> Generator[BrowserContext]:
    found = browser.new_context()
    yield found
    found.close()


def _open(context: BrowserContext, server: Live) -> Page:
    """The page, which may complain of nothing and ask nobody else."""
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("request", lambda one: _check_address(one.url, server))
    page.goto(server.address)
    expect(page.locator("#served")).to_contain_text("tiny")
    return page


def _check_address(url: str, server: Live) -> None:
    assert url.startswith(server.address + "/"), url


def _ask(page: Page, text: str, longest: int = 40, seed: int = 3) -> None:
    page.fill("#prompt", text)
    page.fill("#longest", str(longest))
    page.fill("#seed", str(seed))


def test_the_page_is_plain_files_under_a_strict_policy(server: Live) -> None:
    for path in ("/", *(f"/static/{name}" for name in _NAMES)):
        answer = server.get(path)
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["none.js", "..%2fapp.py", "%2e%2e/app.py", "", "index.html/x"])
def test_nothing_but_the_page_s_own_files_is_given(server: Live, name: str) -> None:
    assert server.get(f"/static/{name}").status == 404


def test_the_page_needs_nothing_from_elsewhere() -> None:
    folder = files("draftsmith.serve").joinpath("static")
    assert sorted(one.name for one in folder.iterdir()) == sorted(_NAMES)
    for name in _NAMES:
        text = folder.joinpath(name).read_text(encoding="utf-8")
        found = set(re.findall(r"https?://[^\"' ]+", text))
        assert found <= {"http://www.w3.org/2000/svg"}, name
    page = folder.joinpath("index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\sstyle=|\son[a-z]+=", page)


def test_the_page_is_open_and_the_numbers_need_a_key() -> None:
    settings = ServeSettings(port=0, api_keys=("first",))
    with live.serving(live.engine(), settings) as server:
        assert server.get("/stats").status == 200
        server.key = None
        assert [server.get(path).status for path in ("/", "/static/page.js")] == [200, 200]
        assert server.get("/stats").status == 401


def test_the_numbers_are_those_of_the_rounds() -> None:
    with live.serving(live.engine(live.model_draft(), gamma=3)) as server:
        asked = {"max_tokens": 40, "speculation": {"statistics": True}}
        usage = [server.complete([7] * 100, seed=n, **asked).body["usage"] for n in range(3)]
        found = server.get("/stats").body
        told = [one["speculation"] for one in usage]
        for name in ("drafted_per_position", "tested_per_position", "accepted_per_position"):
            assert found[name] == [sum(one[name][place] for one in told) for place in range(3)]
        assert found["num_tokens"] == sum(one["num_committed"] for one in told)
        assert sum(found["rounds_by_gamma"]) == found["num_rounds"]
        assert (found["gamma"], found["ledger"]) == (3, None)
        assert (found["num_running"], found["num_waiting"]) == (0, 0)
        assert found["cache"]["num_prompt_tokens"] == sum(one["prompt_tokens"] for one in usage)
        cached = sum(one["prompt_tokens_details"]["cached_tokens"] for one in usage)
        assert found["cache"]["num_recalled"] == cached > 0


@needs_chromium
@pytest.mark.browser
def test_a_chat_is_shown_token_by_token_in_the_colours_of_their_origins(
    context: BrowserContext, server: Live
) -> None:
    page = _open(context, server)
    _ask(page, "the quick brown")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Answered")
    body = server.chat(
        "the quick brown", temperature=0.7, max_tokens=40, seed=3, speculation={"origins": True}
    ).body["choices"][0]
    shown = page.locator("#log .turn .text").nth(1)
    assert shown.text_content() == body["message"]["content"]
    spans = shown.locator(".token")
    classes = [(one.get_attribute("class") or "").split()[1] for one in spans.all()]
    origins = [one["origin"] for one in body["speculation"]]
    # Bytes that are no character of their own may share a piece.
    assert len(classes) > len(origins) / 2
    left = iter(origins)
    assert all(name in left for name in classes)
    assert {"kept", "residual"} <= set(classes)


_B = "\N{REPLACEMENT CHARACTER}"


@needs_chromium
@pytest.mark.browser
@pytest.mark.parametrize(
    ("pushed", "pieces"),
    [
        ([("ab cd", ["ab", " cd"])], ["ab", " cd"]),
        # Text that was held back, and a special token that has none.
        ([("a", ["a", "bc"]), ("", ["d"]), ("bcd", ["<end>"])], ["a", "bc", "d"]),
        ([("ab", ["a", "<tool>", "b"])], ["a", "b"]),
        # The first of a SentencePiece text loses its space.
        ([("ab cd", [" ab", " cd"])], ["ab", " cd"]),
        # A character of several tokens, the first of which holds a letter too.
        ([("x", ["x", f"y{_B}", _B, "z"]), ("y\N{SNOWMAN}z", [])], ["x", "y\N{SNOWMAN}", "z"]),
        # Bytes that are none, alone and as the rest of one.
        ([(f"{_B}a{_B}b", [_B, "a", _B, _B, "b"])], [_B, "a", _B, "b"]),
        ([("ab", ["a"])], ["a", "b"]),
        ([("ab", [])], ["ab"]),
    ],
)
def test_a_text_is_cut_into_its_tokens(
    context: BrowserContext, server: Live, pushed: list[tuple[str, list[str]]], pieces: list[str]
) -> None:
    script = """async (pushed) => {
        const { Aligner } = await import("/static/stream.js");
        const aligner = new Aligner();
        const found = pushed.flatMap(([text, tokens]) => aligner.push(
            text, tokens.map((token) => ({ token, origin: "kept", round: 0 }))));
        return [...found, ...aligner.end()].map((one) => one.text);
    }"""
    assert _open(context, server).evaluate(script, pushed) == pieces


@needs_chromium
@pytest.mark.browser
def test_a_comparison_shows_two_identical_texts_and_both_times(
    context: BrowserContext, server: Live
) -> None:
    page = _open(context, server)
    _ask(page, "lazy dog")
    page.click("#compare")
    expect(page.locator("#status")).to_have_text("Compared.")
    texts = [page.locator(f"#{side}-text").text_content() for side in ("with", "without")]
    assert texts[0]
    assert texts[0] == texts[1]
    expect(page.locator("#verdict")).to_contain_text("The texts are identical")
    assert page.locator("#without-text .kept").count() == 0
    assert page.locator("#with-text .kept").count() > 0
    expect(page.locator("#with-told")).to_contain_text(re.compile(r"tokens in [\d.]+ s"))
    expect(page.locator("#observed")).to_contain_text("\N{MULTIPLICATION SIGN}")


@needs_chromium
@pytest.mark.browser
def test_the_panel_tells_what_the_server_does(context: BrowserContext) -> None:
    with live.serving(live.engine(live.model_draft(), gamma=3)) as server:
        page = _open(context, server)
        expect(page.locator("#positions")).to_contain_text("No drafts")
        server.chat(seed=1, max_tokens=60)
        expect(page.locator("#positions tr")).to_have_count(3)
        found = server.get("/stats").body
        shown = page.locator("#tokens-per-pass")
        expect(shown).to_have_text(f"{found['num_tokens'] / found['num_rounds']:.2f}")
        share = found["accepted_per_position"][0] / found["tested_per_position"][0]
        expect(page.locator("#positions tr").first).to_contain_text(f"{100 * share:.0f} %")
        expect(page.locator("#running")).to_have_text("0 of 8")
        expect(page.locator("#held")).to_have_text(str(found["cache"]["num_held"]))
        expect(page.locator("#kept-tokens")).to_have_text(str(found["cache"]["num_kept"]))


@needs_chromium
@pytest.mark.browser
def test_stopping_frees_the_place_and_another_request_is_answered(context: BrowserContext) -> None:
    model = Gated()
    model.closes_after = 4
    engine = live.Engine(model, live.kit.text_tokenizer(), gamma=0, max_batch_size=1)
    with live.serving(engine) as server:
        page = _open(context, server)
        _ask(page, "the quick", longest=200)
        page.click("#send")
        expect(page.locator("#running")).to_have_text("1 of 1")
        page.keyboard.press("Escape")
        expect(page.locator("#status")).to_have_text("Stopped.")
        model.gate.set()
        expect(page.locator("#running")).to_have_text("0 of 1")
        _ask(page, "the", longest=3)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("3 tokens")


@needs_chromium
@pytest.mark.browser
def test_a_refusal_is_told(context: BrowserContext, server: Live) -> None:
    page = _open(context, server)
    _ask(page, "the", longest=100_000)
    page.click("#send")
    expect(page.locator("#problem")).to_contain_text("max_tokens")


@needs_chromium
@pytest.mark.browser
def test_a_key_is_asked_for_and_taken(context: BrowserContext) -> None:
    settings = ServeSettings(port=0, api_keys=("first",))
    with live.serving(live.engine(), settings) as server:
        page = context.new_page()
        page.goto(server.address)
        expect(page.locator("#span")).to_contain_text("API key")
        page.fill("#key", "first")
        expect(page.locator("#served")).to_contain_text("tiny")
        _ask(page, "the", longest=3)
        page.click("#send")
        expect(page.locator("#status")).to_contain_text("3 tokens")


@needs_chromium
@pytest.mark.browser
def test_every_control_is_reached_by_the_keyboard_and_has_a_name(
    context: BrowserContext, server: Live
) -> None:
    page = _open(context, server)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the prompt"
    reached: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    wanted = ["log", "prompt", "temperature", "longest", "seed", "drafting", "key"]
    assert [one for one in reached if one][: len(wanted)] == wanted
    assert {"send", "compare", "clear"} <= set(reached)
    for role, name in (
        ("log", "Conversation"),
        ("textbox", "Prompt"),
        ("spinbutton", "Temperature"),
        ("combobox", "Drafts"),
        ("button", "Compare with speculation off"),
        ("complementary", "Speculation, live"),
    ):
        expect(page.get_by_role(role, name=name)).to_have_count(1)  # type: ignore[arg-type]
