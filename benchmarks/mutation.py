"""Do the tests notice? One small change at a time to the core, and the tests that should see it.

    python benchmarks/mutation.py --file verify.py --output mutants.json

Each mutant is written into a temporary copy of `src/`, and that copy is what the tests import: the
editable install's import hook is removed first and every run proves where `draftsmith` came from.
"""

import argparse
import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CORE = Path("draftsmith") / "core"
TIMEOUT_S = 120

_ENUMERATION = (
    "test_enumeration.py::test_one_round_has_the_targets_law_in_200_worlds[0-rejection]",
    "test_enumeration.py::test_one_round_has_the_targets_law_in_200_worlds[0-block]",
    "test_enumeration.py::test_a_perfect_guess_is_kept_whole_by_the_coupled_verifier",
    "test_enumeration.py::test_the_coupled_verifier_gives_the_plain_text_for_every_possible_draft[2]",
)
# Fast tests first, since most mutants die in them; of the enumeration, a quarter.
TESTS: dict[str, tuple[str, ...]] = {
    "verify.py": ("test_verify.py", *_ENUMERATION),
    "verdict.py": ("test_verify.py", *_ENUMERATION),
    "laws.py": ("test_laws.py",),
    "noise.py": ("test_noise.py",),
}

# Without the finder of the editable install, PYTHONPATH decides; the assertion proves it.
RUNNER = """
import importlib.util, os, sys
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
origin = importlib.util.find_spec("draftsmith").origin
assert origin.startswith(os.environ["MUTANT_ROOT"]), origin
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
}
NAMES = {
    "min": "max",
    "max": "min",
    "amax": "amin",
    "amin": "amax",
    "minimum": "maximum",
    "maximum": "minimum",
    "argmax": "argmin",
    "argmin": "argmax",
    "cumprod": "cumsum",
    "all": "any",
    "any": "all",
}


class Mutant(NamedTuple):
    """One change."""

    file: str
    line: int
    original: str
    mutated: str
    source: str


class Equivalent(NamedTuple):
    """A mutant that no test can kill, since it means the same."""

    file: str
    original: str
    mutated: str
    reason: str


_SLICED = "counter-based: a column's number does not depend on how many are asked for"
_WIDTH = "how much of the row is looked at first is a matter of speed"
_AGAIN = "a second softmax over the same scores gives the same bits"
EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent(
        "verdict.py",
        "tokens = tokens.masked_fill(columns > kept, PAD_TOKEN)",
        "tokens = tokens.masked_fill(columns >= kept, PAD_TOKEN)",
        "the column `kept` is overwritten by the emitted token in the next line",
    ),
    Equivalent(
        "verify.py",
        "return draw(probs, noise.uniforms(self.streams[0], index + 1)[:, index])",
        "return draw(probs, noise.uniforms(self.streams[0], index + 2)[:, index])",
        _SLICED,
    ),
    Equivalent(
        "verify.py",
        "return self.decide(check, accept, noise.uniforms(self.streams[2], 1)[:, 0])",
        "return self.decide(check, accept, noise.uniforms(self.streams[2], 2)[:, 0])",
        _SLICED,
    ),
    Equivalent(
        "verify.py",
        "passing = torch.where(total > 0, masses / total, 1.0)",
        "passing = torch.where(total > 0, masses / total, 0.0)",
        "at 0/0 the next token is sure to be kept, so a longer prefix passes in any case",
    ),
    *(
        Equivalent(
            "verify.py",
            "longest = torch.nn.functional.pad(passed * lengths, (1, 0))",
            f"longest = torch.nn.functional.pad(passed * lengths, {padding})",
            "one more zero does not change the largest length",
        )
        for padding in ("(2, 0)", "(1, 1)")
    ),
    Equivalent(
        "verify.py",
        "padded = torch.nn.functional.pad(check.draft_probs, (0, 0, 0, 1))",
        "padded = torch.nn.functional.pad(check.draft_probs, (0, 0, 0, 2))",
        "at most gamma tokens are kept, so the second row of padding is never read",
    ),
    Equivalent(
        "verify.py",
        "draft = torch.where(is_rejected, padded[rows, num_accepted], 0.0)",
        "draft = torch.where(is_rejected, padded[rows, num_accepted], 1.0)",
        "target - 1 leaves no residual, and the fallback is the target: the same bonus law",
    ),
    Equivalent(
        "laws.py",
        "params.min_tokens > len(history.output)",
        "params.min_tokens >= len(history.output)",
        "with the minimum reached, no row is early and nothing is banned",
    ),
    Equivalent(
        "laws.py",
        "params.min_p > 0",
        "params.min_p >= 0",
        "every probability is at least 0 times the largest",
    ),
    Equivalent(
        "laws.py",
        "params.top_p < 1 or params.min_p > 0",
        "params.top_p < 2 or params.min_p > 0",
        _AGAIN,
    ),
    Equivalent(
        "laws.py",
        "params.top_p < 1 or params.min_p > 0",
        "params.top_p <= 1 or params.min_p > 0",
        _AGAIN,
    ),
    Equivalent(
        "laws.py",
        "params.top_p < 1 or params.min_p > 0",
        "params.top_p < 1 or params.min_p >= 0",
        _AGAIN,
    ),
    Equivalent(
        "laws.py",
        "params.repetition_penalty != 1",
        "params.repetition_penalty != 0",
        "dividing and multiplying by a penalty of 1 changes nothing",
    ),
    Equivalent(
        "laws.py",
        "divided = torch.where(scores > 0, scores / params.repetition_penalty, "
        "scores * params.repetition_penalty)",
        "divided = torch.where(scores >= 0, scores / params.repetition_penalty, "
        "scores * params.repetition_penalty)",
        "0 divided is 0 multiplied",
    ),
    Equivalent("laws.py", "width = min(vocab, 256)", "width = min(vocab, 257)", _WIDTH),
    Equivalent("laws.py", "width = min(vocab, 8 * width)", "width = min(vocab, 9 * width)", _WIDTH),
    *(
        Equivalent(
            "laws.py",
            "width == vocab or bool((mass[:, -1] >= top_p).all())",
            f"width == vocab or bool(({condition}).all())",
            _WIDTH,
        )
        for condition in ("mass[:, -0] >= top_p", "mass[:, -2] >= top_p", "mass[:, -1] > top_p")
    ),
    Equivalent(
        "noise.py",
        "zeros = torch.zeros_like(block + counter)",
        "zeros = torch.zeros_like(block - counter)",
        "only the shape is used",
    ),
)


class Mutator(ast.NodeTransformer):
    """Applies change number `wanted`, and counts the changes up to there; all, if it is -1."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.count = 0
        self.line = 0
        self.original = ""
        self.mutated = ""
        self._shown = ""

    def visit(self, node: ast.AST) -> ast.AST:
        """Remember the statement or header, so that a change of `1` is read in its context."""
        is_simple = isinstance(node, ast.expr) or (
            isinstance(node, ast.stmt) and not hasattr(node, "body")
        )
        if self._shown or not is_simple:
            return super().visit(node)
        self._shown = ast.unparse(node)
        before = self.line
        changed = super().visit(node)
        if self.line != before:
            self.original, self.mutated = self._shown, ast.unparse(changed)
        self._shown = ""
        return changed

    def _offer(self, node: ast.expr, *options: ast.expr) -> ast.expr:
        for option in options:
            self.count += 1
            if self.count == self.wanted + 1:
                self.line = node.lineno
                return ast.copy_location(option, node)
        return node

    # What is left alone: annotations, docstrings, ClassVar declarations, __all__.

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Mutate defaults and body only."""
        node.args.defaults = [self._expr(default) for default in node.args.defaults]
        node.body = [self._stmt(statement) for statement in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Mutate the value, unless it is a class's constant."""
        if node.value is not None and "ClassVar" not in ast.unparse(node.annotation):
            node.value = self._expr(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Skip `__all__`."""
        if any(isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets):
            return node
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Skip docstrings."""
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Messages are tested elsewhere."""
        return node

    # What is changed.

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Swap the first comparison."""
        self.generic_visit(node)
        options: list[ast.expr] = []
        for swapped in COMPARISONS.get(type(node.ops[0]), ()):
            option = copy.deepcopy(node)
            option.ops[0] = swapped()
            options.append(option)
        return self._offer(node, *options)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Swap the operator."""
        self.generic_visit(node)
        swapped = OPERATORS.get(type(node.op))
        if swapped is None:
            return node
        return self._offer(node, ast.BinOp(node.left, swapped(), node.right))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """Swap the operator: `+=` becomes `-=`."""
        self.generic_visit(node)
        swapped = OPERATORS.get(type(node.op))
        if swapped is not None:
            # An expression stands in for the statement so that one rule counts both.
            probe = ast.copy_location(ast.Constant(0), node)
            if self._offer(probe, ast.Constant(1)) is not probe:
                node.op = swapped()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """Swap `and` and `or`."""
        self.generic_visit(node)
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return self._offer(node, ast.BoolOp(other, node.values))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """Remove `not`, `~` and the minus of anything but a number."""
        self.generic_visit(node)
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return node
        return self._offer(node, node.operand)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Flip booleans, move numbers."""
        value = node.value
        if isinstance(value, bool):
            return self._offer(node, ast.Constant(not value))
        if not isinstance(value, int | float):
            return node
        if value == 0:
            return self._offer(node, ast.Constant(type(value)(1)))
        if value == 1:
            return self._offer(node, ast.Constant(type(value)(0)), ast.Constant(type(value)(2)))
        return self._offer(node, ast.Constant(value + 1))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Swap min and max, all and any."""
        other = NAMES.get(node.id)
        return node if other is None else self._offer(node, ast.Name(other, node.ctx))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Swap amax and amin, cumprod and cumsum, argmin and argmax."""
        self.generic_visit(node)
        other = NAMES.get(node.attr)
        if other is None or isinstance(node.ctx, ast.Store):
            return node
        return self._offer(node, ast.Attribute(node.value, other, node.ctx))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Swap the side that a clamp holds."""
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if not name.startswith("clamp") or len(node.keywords) != 1:
            return node
        keyword = node.keywords[0]
        side = {"min": "max", "max": "min"}[keyword.arg or ""]
        option = ast.Call(node.func, node.args, [ast.keyword(side, keyword.value)])
        return self._offer(node, option)

    def _expr(self, node: ast.expr) -> ast.expr:
        changed = self.visit(node)
        assert isinstance(changed, ast.expr)
        return changed

    def _stmt(self, node: ast.stmt) -> ast.stmt:
        changed = self.visit(node)
        assert isinstance(changed, ast.stmt)
        return changed


def mutants_of(name: str) -> Iterator[Mutant]:
    """Every mutant of one file of the core, in the order of its lines."""
    tree = ast.parse((ROOT / "src" / CORE / name).read_text())
    counter = Mutator()
    counter.visit(copy.deepcopy(tree))
    for wanted in range(counter.count):
        mutator = Mutator(wanted)
        changed = ast.fix_missing_locations(mutator.visit(copy.deepcopy(tree)))
        source = ast.unparse(changed)
        yield Mutant(name, mutator.line, mutator.original, mutator.mutated, source)


def run_tests(source_root: Path, name: str) -> tuple[str, str]:
    """`survived`, `killed` or `timeout`, and the line that says why."""
    environment = os.environ | {
        "PYTHONPATH": str(source_root),
        "MUTANT_ROOT": str(source_root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(source_root / "hypothesis"),
        "OMP_NUM_THREADS": "1",
    }
    flags = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    paths = [f"tests/core/{test}" for test in TESTS[name]]
    command = [sys.executable, "-c", RUNNER, *flags, "--tb=line", *paths]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return "timeout", f"no answer in {TIMEOUT_S} s"
    if "MUTANT_ROOT" in done.stderr:
        raise SystemExit(f"the tests imported another copy: {done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    status = "killed" if done.returncode else "survived"
    return status, lines[0] if lines else f"exit {done.returncode}"


def equivalence(mutant: Mutant) -> str | None:
    """Why this mutant means the same, if the list above says so."""
    for known in EQUIVALENT:
        if known[:3] == (mutant.file, mutant.original, mutant.mutated):
            return known.reason
    return None


def judge(mutant: Mutant, copies: "Queue[Path]") -> dict[str, object]:
    """Write one mutant into a free copy, run its tests, and put the file back."""
    root = copies.get()
    path = root / CORE / mutant.file
    original = path.read_text()
    start = time.perf_counter()
    try:
        path.write_text(mutant.source)
        status, why = run_tests(root, mutant.file)
    finally:
        path.write_text(original)
        copies.put(root)
    reason = equivalence(mutant)
    if status == "survived" and reason is not None:
        status, why = "equivalent", reason
    return {
        "file": mutant.file,
        "line": mutant.line,
        "original": mutant.original,
        "mutated": mutant.mutated,
        "status": status,
        "by": why,
        "seconds": round(time.perf_counter() - start, 1),
    }


def run(mutants: list[Mutant], jobs: int, report: Callable[[str], None]) -> list[dict[str, object]]:
    """Judge some mutants, `jobs` at a time."""
    copies: Queue[Path] = Queue()
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for job in range(jobs):
            root = Path(folder) / str(job)
            shutil.copytree(ROOT / "src", root, ignore=shutil.ignore_patterns("__pycache__"))
            copies.put(root)
        for name in dict.fromkeys(mutant.file for mutant in mutants):
            root = copies.get()
            status, why = run_tests(root, name)
            copies.put(root)
            if status != "survived":
                raise SystemExit(f"the tests of {name} fail without a mutant: {why}")
        for result in pool.map(partial(judge, copies=copies), mutants):
            results.append(result)
            report(
                f"[{len(results)}/{len(mutants)}] {result['status']:10} {result['file']}:"
                f"{result['line']} {result['seconds']}s  {result['mutated']}"
            )
    return results


def main() -> None:
    """Parse the command line, run, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", choices=sorted(TESTS), action="append", help="default: all")
    parser.add_argument("--limit", type=int, help="only the first so many mutants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--again", type=Path, help="only what an earlier JSON calls not killed")
    options = parser.parse_args()
    names: list[str] = options.file or list(TESTS)
    mutants = [mutant for name in names for mutant in mutants_of(name)]
    if options.again is not None:
        earlier = json.loads(options.again.read_text())["mutants"]
        alive = {
            (old["file"], old["original"], old["mutated"])
            for old in earlier
            if old["status"] != "killed"
        }
        mutants = [mutant for mutant in mutants if (mutant.file, *mutant[2:4]) in alive]
    results = run(
        mutants[: options.limit],
        options.jobs,
        lambda line: print(line, flush=True),
    )
    counts = {
        status: sum(result["status"] == status for result in results)
        for status in ("killed", "timeout", "survived", "equivalent")
    }
    options.output.write_text(json.dumps({"counts": counts, "mutants": results}, indent=1) + "\n")
    print(counts)
    for result in results:
        if result["status"] == "survived":
            print(
                f"{result['file']}:{result['line']}\n- {result['original']}\n+ {result['mutated']}"
            )


if __name__ == "__main__":
    main()
