"""What Prometheus is told."""

import re
from typing import Any

import pytest

from draftsmith.serve.settings import ServeSettings
from tests.serve import live
from tests.serve.live import Live


def _samples(server: Live, accept: str = "text/plain") -> dict[str, float]:
    answer = server.call("GET", "/metrics", None, Accept=accept)
    assert answer.status == 200
    lines = [line for line in answer.body.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(("names", "prefix"), [("draftsmith", "draftsmith_"), ("vllm", "vllm:")])
def test_speculation_is_counted_as_vllm_counts_it(names: Any, prefix: str) -> None:
    settings = ServeSettings(port=0, metrics_names=names)
    with live.serving(live.engine(live.model_draft(), gamma=3), settings) as server:
        counts = [
            server.complete("the quick", seed=n, max_tokens=40, speculation={"statistics": True})
            for n in range(3)
        ]
        stats = [one.body["usage"]["speculation"] for one in counts]
        found = _samples(server)

        def value(name: str, **labels: str) -> float:
            told = ",".join(
                f'{key}="{label}"' for key, label in ({"model_name": "tiny"} | labels).items()
            )
            return found[f"{prefix}{name}{{{told}}}"]

        def total(name: str) -> int:
            return sum(one[name] for one in stats)

        assert value("spec_decode_num_drafts_total") == total("num_drafting_rounds")
        assert value("spec_decode_num_draft_tokens_total") == total("num_drafted")
        assert value("spec_decode_num_accepted_tokens_total") == total("num_accepted")
        for place in range(3):
            kept = sum(one["accepted_per_position"][place] for one in stats)
            name = "spec_decode_num_accepted_tokens_per_pos_total"
            assert value(name, position=str(place)) == kept
        assert value("generation_tokens_total") == total("num_committed")
        assert value("rounds_total") == value("drafted_tokens_count") == total("num_rounds")
        assert value("num_requests_running") == value("num_requests_waiting") == 0
        assert value("time_to_first_token_seconds_count") == 3
        assert value("e2e_request_latency_seconds_count") == 3
        ended = [amount for name, amount in found.items() if "request_success_total" in name]
        assert sum(ended) == 3


def test_refusals_are_counted_by_status(server: Live) -> None:
    name = 'draftsmith_request_failure_total{model_name="tiny",status="404"}'
    before = _samples(server).get(name, 0)
    server.get("/nothing")
    assert _samples(server)[name] == before + 1


def test_openmetrics_is_spoken_to_those_who_ask_for_it(server: Live) -> None:
    answer = server.call(
        "GET", "/metrics", None, Accept="application/openmetrics-text; version=1.0.0"
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith("# EOF\n")
    assert re.search(r"^draftsmith_rounds_total", answer.body, re.MULTILINE)
