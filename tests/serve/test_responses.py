"""`/v1/responses`: whole, as named events, and what they repeat."""

from typing import Any

from tests.serve.live import Live

_PATH = "/v1/responses"
_BODY: dict[str, Any] = {"input": "the quick brown", "seed": 5, "max_output_tokens": 30}


def _text(answer: dict[str, Any]) -> str:
    return answer["output"][0]["content"][0]["text"]


def test_it_is_the_chats_text(server: Live, plain: Live) -> None:
    answer = server.post(_PATH, **_BODY).body
    assert _text(answer) == plain.chat(seed=5, max_tokens=30).texts[0]
    assert answer["object"] == "response"
    assert answer["store"] is False
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_instructions_are_the_systems_turn_and_messages_a_conversation(server: Live) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "fox"},
        {"role": "assistant", "content": "dog"},
        {"role": "user", "content": "lazy"},
    ]
    own = server.post("/v1/chat/completions", messages=turns, seed=5, max_tokens=20).texts[0]
    sent = [
        {"role": "user", "content": [{"type": "input_text", "text": "fox"}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "dog", "annotations": []}],
        },
        {"role": "user", "content": "lazy"},
    ]
    answer = server.post(
        _PATH, input=sent, instructions="be brief", seed=5, max_output_tokens=20
    ).body
    assert _text(answer) == own
    assert answer["instructions"] == "be brief"


def test_a_text_that_is_cut_is_incomplete(server: Live) -> None:
    answer = server.post(_PATH, **(_BODY | {"max_output_tokens": 2}), ignore_eos=True).body
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}


def test_events_come_in_openais_order_and_say_the_same(server: Live) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = server.post(_PATH, **_BODY, **asked).body
    found = server.stream(_PATH, **_BODY, **asked)
    kinds = [event["type"] for event in found]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole['status']}",
    ]
    deltas = found[4:-4]
    assert {event["type"] for event in deltas} == {"response.output_text.delta"}
    assert "".join(event["delta"] for event in deltas) == _text(whole)
    part = whole["output"][0]["content"][0]
    assert [one for event in deltas for one in event["logprobs"]] == part["logprobs"]
    assert len(part["logprobs"][0]["top_logprobs"]) == 2
    assert found[-1]["response"]["output"][0]["content"] == [part]
    assert found[-1]["response"]["usage"] == whole["usage"]
