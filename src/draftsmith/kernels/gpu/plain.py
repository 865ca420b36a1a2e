"""The torch twins of the kernels: what each computes, said plainly, on any device.

The host looks at numbers here and there, which no kernel may.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

from draftsmith.core.laws import Cuts
from draftsmith.core.noise import NoiseKeys
from draftsmith.core.sampling_table import LogitRows
from draftsmith.kernels.cpu import sampling
from draftsmith.kernels.gpu.attention import Heads, Pages, Parts, Places
from draftsmith.kernels.gpu.columns import Columns
from draftsmith.kernels.gpu.peers import Inbox
from draftsmith.kernels.gpu.products import Plan, Scratch, Stream
from draftsmith.kernels.gpu.verdicts import Bests, State

__all__ = [
    "add_up",
    "attend",
    "best_parts",
    "embed",
    "embed_part",
    "laws",
    "look_up",
    "prepare",
    "product",
    "race_parts",
    "settle",
    "stream_of",
    "take_draft",
]


def product(
    x: Float[Tensor, "rows inputs"],
    weight: Float[Tensor, "weight_rows inputs"],
    out: Float[Tensor, "rows outputs"] | Inbox,
    plan: Plan,
    *,
    squares: Float[Tensor, "rows tiles"] | None = None,
    epsilon: float = 0.0,
    bias: Float[Tensor, " weight_rows"] | None = None,
    residual: Float[Tensor, "rows outputs"] | None = None,
    gate: str | None = None,
    scale: float = 1.0,
    norm: Float[Tensor, " outputs"] | None = None,
    to: Stream | None = None,
    scratch: Scratch | None = None,
) -> None:
    """What `products.product` does; the same arguments, but that nothing is sent."""
    del scratch
    assert isinstance(out, Tensor)
    found = linear(x.float(), weight.float())
    if squares is not None:
        found = found * torch.rsqrt(squares.sum(1, keepdim=True) / x.shape[1] + epsilon)
    if bias is not None:
        found = found + bias.float()
    if gate is not None:
        one, other = found.chunk(2, dim=1)
        act = silu(one) if gate == "silu" else gelu(one, approximate="tanh")
        found = act * other
    found = found * scale
    out.copy_(found if residual is None else found + residual.float())
    if to is not None:
        assert norm is not None
        _write(to, stream_of(out, norm, plan.outputs))


def embed(
    tokens: Int[Tensor, " rows"],
    embedding: Float[Tensor, "vocab hidden"],
    norm: Float[Tensor, " hidden"],
    to: Stream,
    outputs: int,
    scale: float = 1.0,
) -> None:
    """What `products.embed` does; the same arguments."""
    values = (embedding[tokens.long()].float() * scale).to(embedding.dtype)
    _write(to, stream_of(values, norm, outputs))


def _write(to: Stream, found: Stream) -> None:
    for one, other in zip(to, found, strict=True):
        one.copy_(other)


def stream_of(
    values: Float[Tensor, "rows hidden"], norm: Float[Tensor, " hidden"], outputs: int
) -> Stream:
    """A residual stream, and what the norm after it needs.

    Args:
        values: The stream.
        norm: The norm's weight.
        outputs: Neighbours whose squares are summed together.

    Returns:
        All three.
    """
    wide = values.float()
    squares = [part.square().sum(1) for part in wide.split(outputs, dim=1)]
    weighted = (wide * norm.float()).to(values.dtype)
    return Stream(values, weighted, torch.stack(squares, dim=1))


def attend(
    projected: Float[Tensor, "rows all_heads head"],
    attended: Float[Tensor, "rows heads head"],
    pages: Pages,
    places: Places,
    heads: Heads,
    parts: Parts,
    num_parts: int,
    *,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
) -> None:
    """What `attention.attend` does; the same arguments."""
    assert num_parts <= places.tables.shape[1]
    del parts
    attended.zero_()
    num_heads = attended.shape[1]
    kv_heads = (projected.shape[1] - num_heads) // 2
    for group, (start, real) in enumerate(
        zip(places.starts.tolist(), places.widths.tolist(), strict=True)
    ):
        own = projected[group * places.width :][:real]
        at = torch.arange(start, start + real, device=own.device)
        query = _turned(own[:, :num_heads], at, heads, heads.query_norm)
        key = _turned(own[:, num_heads : num_heads + kv_heads], at, heads, heads.key_norm)
        _keep(pages, places.tables[group], at, key, own[:, num_heads + kv_heads :])
        every = torch.arange(start + real, device=own.device)
        keys, values = _kept(pages, places.tables[group], every)
        distance = at.unsqueeze(1) - every
        seen = (distance >= 0) & (distance < (window or start + real + 1))
        found = _looked(query, keys, values, seen, scale, cap)
        attended[group * places.width :][:real] = found.to(projected.dtype)


def _turned(
    states: Float[Tensor, "rows some_heads head"],
    at: Int[Tensor, " rows"],
    heads: Heads,
    norm: Float[Tensor, " head"] | None,
) -> Float[Tensor, "rows some_heads head"]:
    wide = states.float()
    if norm is not None:
        root = torch.rsqrt(wide.square().mean(-1, keepdim=True) + heads.epsilon)
        wide = wide * root * norm.float()
    one, other = wide.chunk(2, dim=-1)
    cosine, sine = heads.cosines[at].unsqueeze(1), heads.sines[at].unsqueeze(1)
    turned = (one * cosine - other * sine, other * cosine + one * sine)
    return torch.cat(turned, dim=-1).to(states.dtype)


def _keep(
    pages: Pages,
    table: Int[Tensor, " most_pages"],
    at: Int[Tensor, " rows"],
    key: Float[Tensor, "rows kv_heads head"],
    value: Float[Tensor, "rows kv_heads head"],
) -> None:
    size = pages.keys.shape[2]
    page, token = table[at // size].long(), at % size
    pages.keys[page, :, token] = key
    pages.values[page, :, token] = value


def _kept(
    pages: Pages, table: Int[Tensor, " most_pages"], at: Int[Tensor, " tokens"]
) -> tuple[Float[Tensor, "tokens kv_heads head"], Float[Tensor, "tokens kv_heads head"]]:
    size = pages.keys.shape[2]
    page, token = table[at // size].long(), at % size
    return pages.keys[page, :, token], pages.values[page, :, token]


def _looked(
    query: Float[Tensor, "rows heads head"],
    keys: Float[Tensor, "tokens kv_heads head"],
    values: Float[Tensor, "tokens kv_heads head"],
    seen: Bool[Tensor, "rows tokens"],
    scale: float,
    cap: float | None,
) -> Float[Tensor, "rows heads head"]:
    """Attention in float32; a value that is not finite is lost to those who see it, no others."""
    share = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(share, 1).float(), values.repeat_interleave(share, 1)
    scores = torch.einsum("rhd,thd->hrt", query.float(), keys) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    is_fine = values.float().isfinite()
    found = torch.einsum("hrt,thd->rhd", weights, torch.where(is_fine, values.float(), 0.0))
    lost = (seen.unsqueeze(0) & ~is_fine.all(-1).T.unsqueeze(1)).any(-1)
    return found.masked_fill(lost.T.unsqueeze(-1), torch.nan)


# --- between the passes of a greedy round -------------------------------------------------------


def best_parts(logits: Float[Tensor, "rows columns"], vocab_size: int) -> Bests:
    """What `verdicts.best_parts` finds, in one part a row."""
    scores = logits[:, :vocab_size]
    return Bests(scores.amax(1, keepdim=True), scores.argmax(1, keepdim=True).int())


def laws(
    logits: Float[Tensor, "rows columns"], columns: Columns, vocab_size: int
) -> Float[Tensor, "rows vocab"]:
    """What `laws.laws` makes; the same arguments."""
    per_sequence = len(logits) // len(columns.temperatures)
    table = zip(*(column.tolist() for column in columns), strict=True)
    cuts = [Cuts(*numbers) for numbers in table for _ in range(per_sequence)]
    found = logits.new_zeros(len(logits), vocab_size)
    for row, one in enumerate(cuts):
        line = LogitRows(logits.unsqueeze(0), [(0, row)], vocab_size)
        if one.temperature > 0:
            found[row] = sampling.laws(line, [one])[0]
        elif (point := int(sampling.points(line))) >= 0:
            found[row, point] = 1.0
    return found


def race_parts(
    probs: Float[Tensor, "batch rows vocab"],
    keys: NoiseKeys,
    positions: Int[Tensor, " batch"],
    first: int = 0,
) -> Bests:
    """What `noise.race_parts` finds, in one part a row, but for when the winners arrive."""
    positions = positions.long()
    winners = sampling.counter_noise(keys, positions, positions).race(first, probs)
    has_mass = (probs > 0).any(-1)
    highs = torch.where(has_mass, 0.0, -torch.inf)
    return Bests(highs.view(-1, 1), winners.view(-1, 1).int())


def prepare(
    state: State,
    check: tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Int[Tensor, "batch rows"]],
    draft: tuple[Int[Tensor, "gamma batch"], Int[Tensor, "gamma batch"], Int[Tensor, "batch two"]],
    draft_vocab_size: int,
) -> None:
    """What `verdicts.prepare` does; the same arguments."""
    starts, widths, tokens = check
    gamma = tokens.shape[1] - 1
    starts.copy_(state.lengths - 1)
    widths.copy_(state.is_live * (gamma + 1))
    tokens[:, 0] = state.newest
    draft_starts, draft_widths, first = draft
    last_two = torch.stack((state.previous, state.newest), dim=1)
    first.copy_(torch.where(last_two < draft_vocab_size, last_two, 0))
    for step in range(gamma):
        draft_starts[step] = state.lengths - (2 if step == 0 else 1 - step)
        draft_widths[step] = state.is_live * (2 if step == 0 else 1)


def look_up(
    history: Int[Tensor, "batch capacity"],
    state: State,
    tokens: Int[Tensor, "batch rows"],
    widths: Int[Tensor, " batch"],
    nums: Int[Tensor, " batch"],
    ngrams: tuple[int, int],
) -> None:
    """What `lookup.look_up` copies; the same arguments."""
    gamma, (fewest, most) = tokens.shape[1] - 1, ngrams
    for one, is_live in enumerate(state.is_live.tolist()):
        text = history[one, : int(state.lengths[one])].tolist()
        best = 0, 0
        for end in range(fewest, len(text)):
            matched = 0
            while matched < min(most, end) and text[end - 1 - matched] == text[-1 - matched]:
                matched += 1
            best = max(best, (matched, end)) if matched >= fewest else best
        copied = text[best[1] : best[1] + gamma] if best[1] and is_live else []
        padded = [*copied, *[0] * (gamma - len(copied))]
        tokens[one, 1:] = torch.tensor(padded, dtype=torch.int32)
        widths[one], nums[one] = is_live * (1 + len(copied)), len(copied)


def take_draft(
    bests: Bests, tokens: Int[Tensor, "batch rows"], next_tokens: Int[Tensor, " batch"], step: int
) -> None:
    """What `verdicts.take_draft` does; the same arguments."""
    last = _points(bests).view(len(tokens), -1)[:, -1].clamp(min=0)
    tokens[:, step], next_tokens[:] = last, last


def settle(
    bests: Bests,
    tokens: Int[Tensor, "batch rows"],
    state: State,
    found: Int[Tensor, "batch twice_rows"],
    nums: Int[Tensor, " batch"] | None = None,
    history: Int[Tensor, "batch capacity"] | None = None,
) -> None:
    """What `verdicts.settle` does; the same arguments."""
    points, drafted = _points(bests).view(tokens.shape), tokens[:, 1:]
    if nums is not None:
        is_drafted = torch.arange(drafted.shape[1], device=nums.device) < nums.unsqueeze(1)
        drafted = torch.where(is_drafted, drafted, -1)
    is_kept = (points[:, :-1] == drafted) & (drafted >= 0)
    kept = is_kept.int().cumprod(1).sum(1, keepdim=True)
    found.copy_(torch.cat((points, drafted, kept), dim=1))
    if history is not None:
        for one in state.is_live.nonzero().flatten().tolist():
            start, end = int(state.lengths[one]), int(kept[one]) + 1
            history[one, start : start + end] = points[one, :end]
    state.lengths.add_(state.is_live * (kept[:, 0] + 1))
    state.newest.copy_(points.gather(1, kept)[:, 0].clamp(min=0))
    state.previous.copy_(tokens.gather(1, kept)[:, 0])


def _points(bests: Bests) -> Int[Tensor, " rows"]:
    """The best id of each row, the lowest of equals; -1 for a row that is no distribution."""
    highest = bests.highs.amax(1)
    first = bests.ids.gather(1, bests.highs.argmax(1, keepdim=True))[:, 0]
    return torch.where(highest.isfinite(), first, -1)


def embed_part(
    tokens: Int[Tensor, " rows"],
    embedding: Float[Tensor, "ids hidden"],
    first: int,
    to: Float[Tensor, "rows hidden"] | Inbox,
) -> None:
    """What `sums.embed_part` does; `to` is written, and nothing sent."""
    assert isinstance(to, Tensor)
    own = tokens.long() - first
    is_own = (own >= 0) & (own < len(embedding))
    found = embedding[own.clamp(0, len(embedding) - 1)].float()
    to.copy_(torch.where(is_own.unsqueeze(1), found, 0.0))


def add_up(
    parts: Float[Tensor, "ranks rows columns"],
    *,
    norm: Float[Tensor, " columns"],
    to: Stream,
    outputs: int,
    bias: Float[Tensor, " columns"] | None = None,
    residual: Float[Tensor, "rows columns"] | None = None,
) -> None:
    """What `sums.add_up` does, of parts that are all here.

    Args:
        parts: Of every rank.
        norm: The weight of the norm after this sum.
        to: What is written.
        outputs: Neighbours whose squares are summed together.
        bias: Added to the sum.
        residual: Added at the end; may be `to.values`.
    """
    summed = torch.zeros_like(parts[0])
    for part in parts:
        summed = summed + part
    if bias is not None:
        summed = summed + bias.float()
    if residual is not None:
        summed = summed + residual.float()
    _write(to, stream_of(summed.to(to.values.dtype), norm, outputs))
