"""Write docs/api.md from the docstrings of every public name: `python scripts/api.py [--check]`.

What is public is what `__all__` of the modules below names. Signatures are taken from the source,
so that types read as they are written.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = ("draftsmith", "draftsmith.transformers", "draftsmith.testing", "draftsmith.errors")
_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Examples?|References|Attributes):$")
_ITEM = re.compile(r"^(\*{0,2}[\w., ]+):\s*(.*)$", re.DOTALL)
_HEAD = """# API

Written by `scripts/api.py` from the docstrings; a test holds it up to date, and runs every example.
What the words mean: [glossary.md](glossary.md)."""


def reference() -> str:
    """The whole page."""
    parts = [_HEAD]
    seen: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        public = [(one, getattr(module, one)) for one in module.__all__]
        new = [(one, value) for one, value in public if id(value) not in seen]
        seen |= {id(value) for _, value in public}
        links = ", ".join(f"[{one}](#{one.lower()})" for one, _ in new)
        parts += [f"## {name}", *_prose(_summary(module)), links]
        for one, value in new:
            parts += (
                _class(one, value) if inspect.isclass(value) else _function(f"### {one}", value)
            )
    return "\n\n".join(parts) + "\n"


def _summary(module: ModuleType) -> str:
    # Behind the first heading of its own, a module's docstring is for those who read the code.
    return inspect.getdoc(module) or ""


def _function(heading: str, function: Any) -> Iterator[str]:  # noqa: ANN401 - any callable
    node = _definition(function)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    yield heading
    yield _code(_signature(node.name, _arguments(node), node.returns))
    yield from _prose(inspect.getdoc(function) or "")


def _class(name: str, kind: type) -> Iterator[str]:
    node = _definition(kind)
    assert isinstance(node, ast.ClassDef)
    yield f"### {name}"
    if issubclass(kind, BaseException):
        bases = ", ".join(base.__name__ for base in kind.__bases__)
        yield _code(f"class {name}({bases})")
        yield from _prose(inspect.getdoc(kind) or "")
        return
    yield _code(_constructor(name, node))
    yield from _prose(inspect.getdoc(kind) or "")
    fields = list(_fields(node))
    if fields:
        yield "\n".join(f"- `{field}`{f': {said}' if said else ''}" for field, said in fields)
    for one, value in vars(kind).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if one.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)):
            continue
        if isinstance(plain, property):
            yield f"#### {name}.{one}"
            yield from _prose(inspect.getdoc(plain) or "")
        else:
            yield from _function(f"#### {name}.{one}", plain)


def _definition(value: Any) -> ast.stmt:  # noqa: ANN401 - a function or a class
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _constructor(name: str, node: ast.ClassDef) -> str:
    """From `__init__`, or the fields of a dataclass."""
    own = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    if own:
        return _signature(name, _arguments(own[0]), None)
    if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return f"class {name}"
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    is_named = any("kw_only=True" in ast.unparse(one) for one in node.decorator_list)
    shown = [ast.unparse(one) for one in fields if not ast.unparse(one.target).startswith("_")]
    return _signature(name, [*["*"][: int(is_named)], *shown], None)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Annotated names with the string that stands under each."""
    for one, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and not ast.unparse(one.target).startswith("_"):
            is_told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            said = str(after.value.value) if is_told else ""  # type: ignore[union-attr]
            yield ast.unparse(one.target), " ".join(said.split())


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + [*given.defaults]
    shown = [_argument(*pair) for pair in zip(positional, defaults, strict=True)]
    shown = [one for one in shown if one not in ("self", "cls")]
    if given.vararg or given.kwonlyargs:
        shown.append(f"*{_argument(given.vararg, None) if given.vararg else ''}")
    shown += [_argument(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*shown, f"**{_argument(given.kwarg, None)}"] if given.kwarg else shown


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    typed = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    value = f" = {ast.unparse(default)}" if default else ""
    return f"{argument.arg}{typed}{value}"


def _signature(name: str, arguments: list[str], returns: ast.expr | None) -> str:
    result = f" -> {ast.unparse(returns)}" if returns else ""
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= 100:
        return line
    inner = "".join(f"    {one},\n" for one in arguments).replace("    *,\n", "    *,\n")
    return f"{name}(\n{inner}){result}"


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _prose(docstring: str) -> Iterator[str]:
    """A Google docstring as Markdown."""
    for title, lines in _sections(docstring.splitlines()):
        body = textwrap.dedent("\n".join(lines)).strip()
        if not body:
            continue
        if not title:
            yield body
        elif title.startswith("Example"):
            yield _code(body)
        elif title in ("Args", "Raises", "Attributes"):
            items = "\n".join(_item(one) for one in re.split(r"\n(?=\S)", body))
            yield f"**{title}**\n\n{items}"
        else:
            yield f"**{title}** {' '.join(body.split())}"


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    title, body = "", list[str]()
    for line in lines:
        if found := _SECTION.match(line):
            yield title, body
            title, body = found[1], []
        elif title and line and not line.startswith(" "):
            # Text at the margin ends a section.
            yield title, body
            title, body = "", [line]
        else:
            body.append(line)
    yield title, body


def _item(text: str) -> str:
    found = _ITEM.match(text)
    if found is None:
        return f"- {' '.join(text.split())}"
    return f"- `{found[1]}`: {' '.join(found[2].split())}"


def main() -> None:
    """Write the page, or check it."""
    text = reference()
    if "--check" in sys.argv:
        sys.exit(
            0 if PAGE.read_text(encoding="utf-8") == text else "docs/api.md: run scripts/api.py"
        )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
