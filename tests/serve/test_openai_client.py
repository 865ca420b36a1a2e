"""The official client, used as its documentation uses it."""

from collections.abc import Generator

import openai
import pytest
from openai import OpenAI

from tests.serve.live import Live


@pytest.fixture
def client(server: Live) -> Generator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_a_chat_completion(client: OpenAI, server: Live) -> None:
    done = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "the quick brown"}],
        seed=5,
        max_completion_tokens=30,
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 20, "speculation": {"statistics": True}},
    )
    assert done.choices[0].message.content == server.chat(seed=5, max_tokens=30, top_k=20).texts[0]
    assert done.choices[0].logprobs is not None
    assert done.choices[0].logprobs.content is not None
    assert len(done.choices[0].logprobs.content[0].top_logprobs) == 2
    assert done.usage is not None
    assert done.usage.completion_tokens_details is not None
    assert done.usage.completion_tokens_details.accepted_prediction_tokens == 0


def test_a_streamed_chat_completion(client: OpenAI, server: Live) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "the quick brown"}],
        seed=5,
        max_tokens=30,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == server.chat(seed=5, max_tokens=30).texts[0]
    assert chunks[-1].usage is not None


def test_the_stream_helper_puts_everything_together_once(client: OpenAI, server: Live) -> None:
    whole = server.chat(seed=5, max_tokens=30, n=2, logprobs=True, top_logprobs=1, stop="o").body
    with client.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "the quick brown"}],
        seed=5,
        max_tokens=30,
        n=2,
        logprobs=True,
        top_logprobs=1,
        stop="o",
    ) as stream:
        for _ in stream:
            pass
        found = stream.get_final_completion()
    for one, own in zip(found.choices, whole["choices"], strict=True):
        assert one.message.content == own["message"]["content"]
        assert one.message.role == "assistant"
        content = one.logprobs.content if one.logprobs is not None else None
        told = own["logprobs"]["content"] if own["logprobs"] else None
        assert [each.token for each in content or []] == [each["token"] for each in told or []]


def test_a_completion_and_a_response(client: OpenAI, server: Live) -> None:
    done = client.completions.create(model="tiny", prompt="the quick", seed=4, max_tokens=9)
    assert done.choices[0].text == server.complete("the quick", seed=4, max_tokens=9).texts[0]
    response = client.responses.create(
        model="tiny", input="the quick brown", max_output_tokens=30, extra_body={"seed": 5}
    )
    assert response.output_text == server.chat(seed=5, max_tokens=30).texts[0]
    with client.responses.stream(
        model="tiny", input="the quick brown", max_output_tokens=30, extra_body={"seed": 5}
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert final.output_text == response.output_text


def test_models_and_refusals(client: OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
        client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            frequency_penalty=9,
        )
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.models.retrieve("other")


def test_a_prediction(client: OpenAI, server: Live) -> None:
    own = server.chat(seed=5, max_tokens=60, ignore_eos=True).texts[0]
    done = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "the quick brown"}],
        seed=5,
        max_tokens=60,
        prediction={"type": "content", "content": own},
        extra_body={"ignore_eos": True},
    )
    assert done.choices[0].message.content == own
    assert done.usage is not None
    assert done.usage.completion_tokens_details is not None
    assert (done.usage.completion_tokens_details.accepted_prediction_tokens or 0) > 0
