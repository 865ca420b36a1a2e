"""A client of OpenAI-compatible servers that costs little, and notes when which token came."""

import asyncio
import json
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "arrivals", "ask", "in_turn", "on_schedule", "summary"]


@dataclass
class Answer:
    """One request as its client saw it; times are by `time.perf_counter`."""

    due_at: float
    """When it should have been sent: a client that is late is no excuse for the server."""
    first_at: float = math.nan
    last_at: float = math.nan
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    text: str = ""
    error: str | None = None

    @property
    def first_s(self) -> float:
        """To the first text."""
        return self.first_at - self.due_at

    @property
    def each_s(self) -> float:
        """A token after the first, on average."""
        return (self.last_at - self.first_at) / max(1, self.num_tokens - 1)


async def ask(address: str, body: dict[str, Any], due_at: float | None = None) -> Answer:
    """Stream one completion to its end; what goes wrong is noted, not raised."""
    found = Answer(time.perf_counter() if due_at is None else due_at)
    try:
        async for event in _events(address, body):
            _note(found, event)
    except (OSError, EOFError, ValueError, KeyError) as error:
        found.error = found.error or f"{type(error).__name__}: {error}"
    if found.error is None and not found.num_tokens:
        found.error = "the stream ended without its usage"
    return found


def _note(found: Answer, event: dict[str, Any]) -> None:
    if "error" in event:
        raise ValueError(event["error"]["message"])
    text = "".join(choice.get("text") or "" for choice in event["choices"])
    if text:
        found.last_at = time.perf_counter()
        found.text += text
        if math.isnan(found.first_at):
            found.first_at = found.last_at
    if event.get("usage"):
        found.num_tokens = event["usage"]["completion_tokens"]
        found.num_prompt_tokens = event["usage"]["prompt_tokens"]


async def _events(address: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
    try:
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        data = json.dumps(streamed).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        headers = await reader.readuntil(b"\r\n\r\n")
        if status != 200:
            raise ValueError(f"status {status}: {(await reader.read(2000)).decode()!r}")
        is_chunked = b"chunked" in headers.lower()
        rest = b""
        async for block in _chunks(reader) if is_chunked else _blocks(reader):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                data = line.strip()
                if data.startswith(b"data: ") and data != b"data: [DONE]":
                    yield json.loads(data[6:])
    finally:
        writer.close()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).split(b";")[0], 16):
        block = await reader.readexactly(size + 2)
        yield block[:-2]


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while block := await reader.read(1 << 16):
        yield block


def arrivals(count: int, per_second: float, seed: int) -> list[float]:
    """Seconds after the start at which requests come, by a Poisson process."""
    source = random.Random(seed)
    now, found = 0.0, list[float]()
    for _ in range(count):
        found.append(now)
        now += source.expovariate(per_second)
    return found


Asking = Callable[[int, float | None], Awaitable[Answer]]
"""Asks the request of a number, which is due at a time; None is at once."""


async def on_schedule(asking: Asking, dues: Sequence[float]) -> list[Answer]:
    """Open loop: each request is sent when it is due, whatever became of the others."""
    start = time.perf_counter()

    async def one(number: int, due: float) -> Answer:
        await asyncio.sleep(start + due - time.perf_counter())
        return await asking(number, start + due)

    return list(await asyncio.gather(*(one(*pair) for pair in enumerate(dues))))


async def in_turn(asking: Asking, count: int, streams: int) -> list[Answer]:
    """So many streams at a time: where one ends the next request is sent."""
    numbers = iter(range(count))
    found: list[Answer] = []

    async def stream() -> None:
        # Not all at once at its end: the others add theirs meanwhile.
        for number in numbers:
            answer = await asking(number, None)
            found.append(answer)

    await asyncio.gather(*(stream() for _ in range(streams)))
    return found


def summary(answers: Sequence[Answer], first_s: float, each_s: float) -> dict[str, Any]:
    """What a part of a run came to.

    Args:
        answers: All of them.
        first_s: A good request has its first text within so many seconds,
        each_s: and a token in so many, on average.
    """
    done = [one for one in answers if one.error is None]
    errors = sorted({one.error for one in answers if one.error is not None})
    if not done:
        return {"num_requests": len(answers), "num_failed": len(answers), "errors": errors[:3]}
    span_s = max(one.last_at for one in done) - min(one.due_at for one in answers)
    good = [one for one in done if one.first_s <= first_s and one.each_s <= each_s]
    num_tokens = sum(one.num_tokens for one in done)
    return {
        "num_requests": len(answers),
        "num_failed": len(answers) - len(done),
        "errors": errors[:3],
        "seconds": span_s,
        "num_tokens": num_tokens,
        "tokens_per_s": num_tokens / span_s,
        "requests_per_s": len(done) / span_s,
        "first_s": asdict(_Spread.of([one.first_s for one in done])),
        "each_s": asdict(_Spread.of([one.each_s for one in done])),
        "goodput": {"first_s": first_s, "each_s": each_s, "requests_per_s": len(good) / span_s},
    }


@dataclass
class _Spread:
    p50: float
    p99: float
    mean: float

    @classmethod
    def of(cls, values: list[float]) -> "_Spread":
        ordered = sorted(values)
        # The nearest rank: of few requests, p99 is the slowest.
        last = ordered[math.ceil(0.99 * len(ordered)) - 1]
        return cls(statistics.median(ordered), last, statistics.fmean(ordered))
