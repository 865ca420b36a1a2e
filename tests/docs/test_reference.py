"""The API page is what the docstrings say, and every public name says enough."""
# What is inspected has no types:
# pyright: basic

import ast
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import is_protocol

ROOT = Path(__file__).parents[2]


def _script():
    spec = importlib.util.spec_from_file_location("api_script", ROOT / "scripts" / "api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    script = _script()
    assert script.PAGE.read_text("utf-8") == script.reference(), "run scripts/api.py"


def _public() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in _script().MODULES:
        module = importlib.import_module(name)
        for one in module.__all__:
            value = getattr(module, one)
            if value not in found.values():
                found[f"{name}.{one}"] = value
    return found


PUBLIC = _public()


def _missing(function: object) -> Iterator[str]:
    """What the docstring of a function leaves out of its own signature."""
    said = inspect.getdoc(function) or ""
    signature = inspect.signature(function)  # type: ignore[arg-type] # any callable
    for name in signature.parameters:
        if name not in ("self", "cls") and not re.search(rf"^ +\*{{0,2}}{name}: ", said, re.M):
            yield name
    returns = signature.return_annotation
    is_something = returns not in (None, "None", inspect.Signature.empty)
    if is_something and not re.search(r"^(Returns|Yields):", said, re.M):
        yield "Returns"
    if _raises(function) and "Raises:" not in said:
        yield "Raises"


def _raises(function: object) -> bool:
    """Whether an error is raised in its own body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))


def _methods(kind: type) -> Iterator[tuple[str, object]]:
    for name, value in vars(kind).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
            yield name, plain


def _is_told_by_a_base(kind: type, name: str) -> bool:
    """Whether the method means what a documented base says that it means."""
    bases = [vars(base)[name] for base in kind.__mro__[1:] if name in vars(base)]
    return any(not list(_missing(one)) for one in bases)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_takes_gives_and_refuses(name: str) -> None:
    value = PUBLIC[name]
    said = inspect.getdoc(value) or ""
    assert said, "no docstring"
    if inspect.isclass(value) and issubclass(value, BaseException):
        return
    assert ">>> " in said, "no example that runs"
    if not inspect.isclass(value):
        assert list(_missing(value)) == []
        return
    for method, plain in _methods(value):
        assert inspect.getdoc(plain), method
        if inspect.isfunction(plain) and not _is_told_by_a_base(value, method):
            assert list(_missing(plain)) == [], method
    is_plain = not hasattr(value, "__dataclass_fields__") and not is_protocol(value)
    if "__init__" in vars(value) and is_plain:
        constructor = inspect.signature(value.__init__)  # type: ignore[misc] # its own
        for parameter in list(constructor.parameters)[1:]:
            assert re.search(rf"^ +{parameter}: ", said, re.M), parameter


def test_a_function_that_leaves_something_out_is_seen() -> None:
    def silent(one: int, *, two: int) -> int:
        """Says nothing."""
        raise ValueError

    assert list(_missing(silent)) == ["one", "two", "Returns", "Raises"]
