"""Every field of a generation config is honoured, without a meaning here, or refused by name."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from typing import Any

import pytest
from transformers import GenerationConfig

from draftsmith.errors import InvalidRequestError
from draftsmith.transformers.options import HONOURED, IRRELEVANT, REFUSED, check_config

FIELDS = sorted(name for name in vars(GenerationConfig()) if not name.startswith("_"))


def filled(**changes: Any) -> GenerationConfig:
    """A config as it arrives: with defaults filled in, then changed."""
    config = GenerationConfig()
    config.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_decided_once(name: str) -> None:
    assert [name in HONOURED, name in IRRELEVANT, name in REFUSED].count(True) == 1, name


def test_the_defaults_are_honoured() -> None:
    check_config(GenerationConfig())
    check_config(filled())


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_field_is_named_with_its_value(name: str) -> None:
    for neutral in REFUSED[name].neutral:
        check_config(filled(**{name: neutral}))
    with pytest.raises(InvalidRequestError, match=f"{name}='odd' cannot be honoured: "):
        check_config(filled(**{name: "odd"}))
    with pytest.raises(InvalidRequestError, match=f"{name}=7 "):
        check_config(filled(**{name: 7}))


class _NewerConfig(GenerationConfig):
    """What a later version may bring."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tree_width: int | None = None


def test_a_field_of_a_later_version_is_refused_until_it_is_decided() -> None:
    config = _NewerConfig()
    check_config(config)
    config.tree_width = 3
    with pytest.raises(InvalidRequestError, match="tree_width=3 cannot be honoured: not known"):
        check_config(config)


def test_a_files_own_odd_key_is_left_alone_as_transformers_leaves_it() -> None:
    check_config(filled(chat_format="chatml"))
