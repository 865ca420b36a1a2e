"""The editing task: a file is shown, and has to be written out again with one change.

Most of the answer stands in the prompt, which is what prompt lookup is for; it is the ordinary
work of an assistant in an editor.
"""

from typing import NamedTuple

from draftsmith.models.tokenizer import Message

__all__ = ["EDITS", "Edit", "edit_messages"]


class Edit(NamedTuple):
    """One file and what to change in it."""

    name: str
    instruction: str
    source: str


def edit_messages(edit: Edit) -> list[Message]:
    """The conversation that asks for the edit."""
    content = (
        f"Here is a Python file.\n\n```python\n{edit.source}```\n\n{edit.instruction} "
        "Reply with the whole file and nothing else, in one code block."
    )
    return [
        {"role": "system", "content": "You are a careful programmer who edits files as asked."},
        {"role": "user", "content": content},
    ]


_INVENTORY = '''\
"""Stock of a small shop: items, deliveries and sales."""

from dataclasses import dataclass, field


class OutOfStockError(Exception):
    """Raised when more is sold than there is."""


@dataclass
class Item:
    """One kind of thing on the shelf."""

    name: str
    price_cents: int
    quantity: int = 0

    def value_cents(self) -> int:
        """What the stock of this item is worth."""
        return self.price_cents * self.quantity


@dataclass
class Inventory:
    """Everything on the shelves."""

    items: dict[str, Item] = field(default_factory=dict)

    def add(self, name: str, price_cents: int, quantity: int) -> Item:
        """Put an item on the shelf, or more of it."""
        item = self.items.get(name)
        if item is None:
            item = Item(name, price_cents)
            self.items[name] = item
        item.price_cents = price_cents
        item.quantity += quantity
        return item

    def sell(self, name: str, quantity: int) -> int:
        """Take an item off the shelf and return what it costs."""
        item = self.items.get(name)
        if item is None or item.quantity < quantity:
            raise OutOfStockError(name)
        item.quantity -= quantity
        return item.price_cents * quantity

    def total_cents(self) -> int:
        """What the whole stock is worth."""
        return sum(item.value_cents() for item in self.items.values())

    def low(self, limit: int = 5) -> list[str]:
        """Names of the items that should be ordered soon."""
        return sorted(item.name for item in self.items.values() if item.quantity < limit)


def report(inventory: Inventory) -> str:
    """A table of the stock, one line an item."""
    lines = []
    for name in sorted(inventory.items):
        item = inventory.items[name]
        lines.append(f"{name:20} {item.quantity:5} {item.price_cents / 100:8.2f}")
    lines.append(f"{'total':20} {'':5} {inventory.total_cents() / 100:8.2f}")
    return "\\n".join(lines)
'''

_GRAPH = '''\
"""Shortest paths in a graph with weighted edges."""

import heapq
from collections import defaultdict
from collections.abc import Iterator


class Graph:
    """A directed graph; weights must not be negative."""

    def __init__(self) -> None:
        self.edges: dict[str, dict[str, float]] = defaultdict(dict)

    def connect(self, start: str, end: str, weight: float = 1.0) -> None:
        """Add an edge, or change its weight."""
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.edges[start][end] = weight
        self.edges.setdefault(end, {})

    def neighbours(self, node: str) -> Iterator[tuple[str, float]]:
        """Where one can go from a node, and at what cost."""
        yield from self.edges[node].items()

    def __len__(self) -> int:
        return len(self.edges)


def distances(graph: Graph, start: str) -> dict[str, float]:
    """Cost of the cheapest path from `start` to every node that can be reached."""
    result: dict[str, float] = {}
    queue = [(0.0, start)]
    while queue:
        cost, node = heapq.heappop(queue)
        if node in result:
            continue
        result[node] = cost
        for other, weight in graph.neighbours(node):
            if other not in result:
                heapq.heappush(queue, (cost + weight, other))
    return result


def shortest_path(graph: Graph, start: str, end: str) -> list[str] | None:
    """The nodes of the cheapest path, both ends included; None if there is none."""
    previous: dict[str, str] = {}
    result: dict[str, float] = {}
    queue = [(0.0, start, start)]
    while queue:
        cost, node, origin = heapq.heappop(queue)
        if node in result:
            continue
        result[node] = cost
        previous[node] = origin
        if node == end:
            break
        for other, weight in graph.neighbours(node):
            if other not in result:
                heapq.heappush(queue, (cost + weight, other, node))
    if end not in result:
        return None
    path = [end]
    while path[-1] != start:
        path.append(previous[path[-1]])
    return path[::-1]
'''

_LOGS = '''\
"""Read the log of a web server and say what happened."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

LINE = re.compile(
    r"(?P<host>\\S+) \\S+ \\S+ \\[(?P<time>[^\\]]+)\\] "
    r'"(?P<method>[A-Z]+) (?P<path>\\S+) [^"]*" (?P<status>\\d{3}) (?P<size>\\d+|-)'
)


@dataclass(frozen=True)
class Entry:
    """One request."""

    host: str
    time: datetime
    method: str
    path: str
    status: int
    size: int

    @property
    def failed(self) -> bool:
        """Whether the server could not answer."""
        return self.status >= 500


def parse_line(line: str) -> Entry | None:
    """Understand one line; None if it is not a request."""
    match = LINE.match(line)
    if match is None:
        return None
    return Entry(
        host=match["host"],
        time=datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z"),
        method=match["method"],
        path=match["path"],
        status=int(match["status"]),
        size=0 if match["size"] == "-" else int(match["size"]),
    )


def read_log(path: Path) -> list[Entry]:
    """All requests of a file, in the order in which they came."""
    entries = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry = parse_line(line)
            if entry is not None:
                entries.append(entry)
    return entries


def summary(entries: list[Entry], count: int = 10) -> str:
    """The most wanted pages, the busiest hosts and the number of failures."""
    pages = Counter(entry.path for entry in entries)
    hosts = Counter(entry.host for entry in entries)
    failures = sum(entry.failed for entry in entries)
    lines = [f"{len(entries)} requests, {failures} failed"]
    lines += [f"{number:6} {page}" for page, number in pages.most_common(count)]
    lines += [f"{number:6} {host}" for host, number in hosts.most_common(count)]
    return "\\n".join(lines)
'''

EDITS = (
    Edit("inventory", "Rename the method `sell` to `withdraw`.", _INVENTORY),
    Edit("graph", "Rename the variable `queue` to `frontier` everywhere.", _GRAPH),
    Edit(
        "logs",
        'Add a parameter `encoding: str = "utf-8"` to `read_log` and use it to open the file.',
        _LOGS,
    ),
)
