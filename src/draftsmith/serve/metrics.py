"""Prometheus metrics with vLLM's names and meaning, under our prefix or under theirs."""

from collections.abc import Iterator, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from draftsmith.serve.call import Call
from draftsmith.serve.worker import Worker

__all__ = ["Metrics"]

_PREFIXES = {"draftsmith": "draftsmith_", "vllm": "vllm:"}
_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Metrics:
    """What the server tells Prometheus.

    Args:
        worker: Whose rounds are counted.
        model: The label `model_name`.
        names: Whose prefix. A scraper that asks for OpenMetrics gets `vllm_` for `vllm:`.
    """

    def __init__(self, worker: Worker, model: str, names: Literal["draftsmith", "vllm"]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Rounds(worker, model, _PREFIXES[names]))
        self._prefix, self._model = _PREFIXES[names], model
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self._successes = self._counter(
            "request_success", "Requests that ended well.", ("finished_reason",)
        )
        self._failures = self._counter(
            "request_failure", "Requests that were refused or failed.", ("status",)
        )
        self._first = self._histogram("time_to_first_token_seconds", "To the first token.", _SHORT)
        self._each = self._histogram(
            "request_time_per_output_token_seconds", "A request's mean after its first.", _SHORT
        )
        self._queue = self._histogram("request_queue_time_seconds", "Waiting for a place.", _LONG)
        self._whole = self._histogram("e2e_request_latency_seconds", "From end to end.", _LONG)

    def note_end(self, call: Call, num_prompt_tokens: int, reasons: Sequence[str]) -> None:
        """A request has ended well; `reasons` are why each of its texts ended."""
        self._prompt_tokens.labels(self._model).inc(num_prompt_tokens)
        for reason in reasons:
            self._successes.labels(self._model, reason).inc()
        spans = call.spans()
        for histogram, seconds in (
            (self._queue, spans.queue_s),
            (self._first, spans.first_s),
            (self._each, spans.each_s),
            (self._whole, spans.whole_s),
        ):
            if seconds is not None:
                histogram.labels(self._model).observe(seconds)

    def note_failure(self, status: int) -> None:
        """A request was answered with an error."""
        self._failures.labels(self._model, str(status)).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(self._prefix + name, text, ("model_name", *labels), registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(
            self._prefix + name, text, ("model_name",), buckets=buckets, registry=self._registry
        )


class _Rounds(Collector):
    """What the worker has counted, read when it is asked for: a round costs no more for it."""

    def __init__(self, worker: Worker, model: str, prefix: str) -> None:
        self._worker, self._model, self._prefix = worker, model, prefix

    def collect(self) -> Iterator[Metric]:
        """Every family, in order."""
        worker, counts = self._worker, self._worker.counts
        yield self._gauge("num_requests_running", "Texts in the batch.", worker.num_running)
        waiting = worker.num_held - worker.num_running
        yield self._gauge("num_requests_waiting", "Texts that wait for a place.", waiting)
        yield self._gauge("cache_tokens", "Tokens of the texts in the batch.", worker.num_tokens)
        yield self._count("generation_tokens", "Generated tokens.", counts.num_tokens)
        yield self._count("rounds", "Rounds of all texts.", counts.num_rounds)
        yield self._count("spec_decode_num_drafts", "Rounds that drafted.", counts.num_drafts)
        yield self._count(
            "spec_decode_num_draft_tokens", "Drafted tokens.", counts.num_draft_tokens
        )
        yield self._count(
            "spec_decode_num_accepted_tokens", "Kept drafts.", counts.num_accepted_tokens
        )
        yield self._positions(counts.accepted_per_position)
        yield self._lengths(counts.drafted_lengths)
        yield from self._ledger()
        yield from self._cache()

    def _ledger(self) -> Iterator[Metric]:
        ledger = self._worker.engine.controller.ledger
        if ledger is not None:
            yield self._count("ledger_spent_seconds", "Time of all rounds.", ledger.spent_s)
            yield self._count(
                "ledger_plain_seconds", "What plain decoding would have taken.", ledger.plain_s
            )

    def _cache(self) -> Iterator[Metric]:
        found = self._worker.engine.cache_statistics()
        if found.cache_tokens:
            used = found.num_held / found.cache_tokens
            yield self._gauge("kv_cache_usage_perc", "Share of --cache-tokens that is held.", used)
        yield self._gauge("cache_tokens_held", "Tokens that rows have memory for.", found.num_held)
        yield self._gauge("cache_tokens_kept", "Tokens kept of ended texts.", found.num_kept)
        queries, hits = found.num_prompt_tokens, found.num_recalled
        yield self._count("prefix_cache_queries", "Tokens of prompts that were read.", queries)
        yield self._count("prefix_cache_hits", "Of these, recalled from other texts.", hits)
        yield self._count("num_preemptions", "Texts that had to make way.", found.num_preemptions)

    def _positions(self, accepted: Sequence[int]) -> Metric:
        family = CounterMetricFamily(
            f"{self._prefix}spec_decode_num_accepted_tokens_per_pos",
            "Rounds that kept the draft at a position.",
            labels=("model_name", "position"),
        )
        for position, count in enumerate(accepted):
            family.add_metric((self._model, str(position)), count)
        return family

    def _lengths(self, rounds: dict[int, int]) -> Metric:
        family = HistogramMetricFamily(
            f"{self._prefix}drafted_tokens", "Drafted tokens of a round.", labels=("model_name",)
        )
        buckets = [
            (str(float(most)), float(sum(n for length, n in rounds.items() if length <= most)))
            for most in _LENGTHS
        ]
        total = float(sum(rounds.values()))
        summed = float(sum(length * count for length, count in rounds.items()))
        family.add_metric((self._model,), [*buckets, ("+Inf", total)], summed)
        return family

    def _gauge(self, name: str, text: str, value: float | int) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=("model_name",))
        family.add_metric((self._model,), value)
        return family

    def _count(self, name: str, text: str, value: float | int) -> Metric:
        family = CounterMetricFamily(self._prefix + name, text, labels=("model_name",))
        family.add_metric((self._model,), value)
        return family
