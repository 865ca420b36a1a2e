"""Compile every kernel for a GPU that is not here: prints a line for each, or ends with an error.

Run by `test_compiling`, in a process of its own: the suite's has Triton's interpreter, which takes
what the compiler refuses.
"""
# Triton's inside has no annotations:
# pyright: basic

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from draftsmith.core.laws import Cuts
from draftsmith.core.noise import NoiseKeys
from draftsmith.kernels.gpu import (
    attention,
    columns,
    fresh,
    launching,
    laws,
    lookup,
    noise,
    norms,
    peers,
    products,
    sums,
)
from draftsmith.kernels.gpu import verdicts as rounds

TARGET = GPUTarget("cuda", 90, 32)
OPTIONS = ("num_warps", "launch_pdl", "num_stages")
VOCAB, BATCH, ROWS, HIDDEN, HEADS, HEAD = 20_000, 2, 5, 256, 4, 64


def kind_of(value: object) -> str:
    """What a kernel's argument is called in a signature."""
    if isinstance(value, torch.Tensor):
        names = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16"}
        return "*" + names.get(value.dtype, f"i{8 * value.dtype.itemsize}")
    return "i32" if isinstance(value, int) else "fp32"


def compiled(kernel: JITFunction, *args: object, grid: object, warmup: bool, **named: object):
    """Stands for a launch: compiles what would be launched."""
    del grid, warmup
    options = {name: named.pop(name) for name in OPTIONS if name in named}
    options.pop("launch_pdl", None)
    values = dict(zip(kernel.arg_names, args, strict=False)) | named
    fixed = {p.name: values[p.name] for p in kernel.params if p.is_constexpr}
    kinds = {
        name: "constexpr" if name in fixed else kind_of(values[name]) for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(kernel, signature=kinds, constexprs=places)
    found = triton.compile(source, target=TARGET, options=options)
    sys.stdout.write(f"{kernel.__name__} {len(found.asm['cubin'])}\n")


def ints(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int32)


def main() -> None:
    """Launch everything once."""
    patches: list[tuple[object, str, object]] = [
        (JITFunction, "run", compiled),
        (torch.Tensor, "is_cuda", property(lambda self: True)),
    ]
    # The options of a GPU; nothing is launched.
    chained = (attention, fresh, laws, lookup, noise, norms, peers, products, rounds, sums)
    patches += [(module, "CHAINED", True) for module in chained]
    for place, name, value in patches:
        setattr(place, name, value)
    assert launching.launch_options(4, is_chained=False) == {"num_warps": 4}
    bfloat = torch.bfloat16
    x = torch.zeros(BATCH * ROWS, HIDDEN, dtype=bfloat)
    stream = products.Stream(x, x.clone(), torch.zeros(len(x), 16))
    norm = torch.ones(HIDDEN, dtype=bfloat)
    products.embed(ints(len(x)), torch.zeros(99, HIDDEN, dtype=bfloat), norm, stream, 16)
    for index in (None, ints(len(x))):
        norms.norm(x, norm.unsqueeze(0), stream.weighted, 1e-6, index)
    scratch = products.Scratch(torch.device("cpu"), 99_999, 99)
    for shares, gate in ((1, "silu"), (2, None), (1, "gelu")):
        plan = products.Plan(16, 128, shares, 4, 3)
        weight = torch.zeros(HIDDEN * (2 if gate else 1), HIDDEN, dtype=bfloat)
        out = torch.zeros(len(x), HIDDEN, dtype=bfloat)
        more = {} if gate else {"residual": out, "norm": norm, "to": stream, "scratch": scratch}
        products.product(
            x, weight, out, plan, squares=stream.squares, gate=gate, bias=weight[:, 0], **more
        )
    floats, flags = torch.zeros(2, 2, dtype=torch.int64)
    ranks = peers.Peers(floats, flags, ints(9), ints(1), ints(1), 0, 2)
    inbox = peers.Inbox(torch.zeros(2, 9999), 0, ranks)
    plain_plan = products.Plan(16, 128, 1, 4, 3)
    products.product(x, torch.zeros(HIDDEN, HIDDEN, dtype=bfloat), inbox, plain_plan)
    tiled = stream._replace(squares=torch.zeros(len(x), -(-HIDDEN // sums.TILE)))
    for residual in (None, x):
        sums.add_up(
            inbox, norm=norm, to=tiled, bias=None if residual is None else norm, residual=residual
        )
    sums.gather(inbox, VOCAB // 2, torch.zeros(len(x), VOCAB))
    sums.embed_part(ints(len(x)), torch.zeros(99, HIDDEN, dtype=bfloat), 0, inbox)
    peers.meet(ranks)
    rows, waves = BATCH * ROWS, torch.zeros(99, HEAD // 2)
    pages = torch.zeros(4, 2, attention.PAGE, HEAD, dtype=bfloat)
    of_head = torch.ones(HEAD, dtype=bfloat)
    for window, of_heads, cap in ((None, None, None), (7, of_head, 30.0)):
        attention.attend(
            torch.zeros(rows, HEADS + 4, HEAD, dtype=bfloat),
            torch.zeros(rows, HEADS, HEAD, dtype=bfloat),
            attention.Pages(pages, pages),
            attention.Places(ints(BATCH), ints(BATCH), ints(BATCH, 2), ROWS),
            attention.Heads(waves, waves, of_heads, of_heads, 1e-6),
            attention.Parts(torch.zeros(2, rows, HEADS, HEAD), torch.zeros(2, rows, HEADS, 2)),
            2,
            scale=0.1,
            window=window,
            cap=cap,
        )
    logits, tokens = torch.zeros(rows, VOCAB), ints(BATCH, ROWS)
    state = rounds.State(*ints(4, BATCH))
    bests = rounds.best_parts(logits, VOCAB)
    draft = ints(ROWS - 1, BATCH), ints(ROWS - 1, BATCH), ints(BATCH, 2)
    rounds.prepare(state, (ints(BATCH), ints(BATCH), tokens), draft, VOCAB)
    rounds.take_draft(bests, tokens, ints(BATCH), 1)
    history = ints(BATCH, 99)
    for more in ((), (ints(BATCH), history)):
        rounds.settle(bests, tokens, state, ints(BATCH, 2 * ROWS), *more)
    lookup.look_up(history, state, tokens, ints(BATCH), ints(BATCH), (2, 16))
    left = fresh.Fresh(torch.zeros(BATCH, 16, HIDDEN), ints(BATCH, 16), ints(BATCH))
    resumed = fresh.Resumed(ints(BATCH), ints(BATCH), tokens, ints(BATCH))
    fresh.resume(state, left, resumed)
    fresh.leave(ints(BATCH, 2 * ROWS), state, left)
    asked = columns.columns_of([Cuts(0.8, 40, 0.9, 0.1)] * BATCH, torch.device("cpu"))
    probs = laws.laws(logits, asked, VOCAB).view(BATCH, ROWS, VOCAB)
    keys = NoiseKeys(torch.zeros(BATCH, dtype=torch.int64), torch.zeros(BATCH, dtype=torch.int64))
    noise.race_parts(probs, keys, state.lengths)


if __name__ == "__main__":
    main()
