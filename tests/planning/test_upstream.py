"""Outlines of trl's configurations: what their sources say is what the classes are."""

import dataclasses
import subprocess
import sys
import typing
from types import UnionType

import pytest
import trl

from trimtab.pipelines.planning import field_types, upstream

CLASSES = ["SFTConfig", "DPOConfig", "KTOConfig", "GRPOConfig", "RewardConfig", "ModelConfig"]


@pytest.mark.parametrize("name", CLASSES)
def test_an_outline_has_the_keys_types_and_words_of_the_class(name):
    outlined, real = upstream.outline(name), getattr(trl, name)
    fields = {field.name: field for field in dataclasses.fields(real) if field.init}
    assert [field.name for field in dataclasses.fields(outlined)] == list(fields)
    types = field_types.hints(real)
    for field in dataclasses.fields(outlined):
        given = fields[field.name].metadata.get("choices")
        assert field.metadata.get("choices") in (given, None)
        assert field_types.is_required(field) == field_types.is_required(fields[field.name])
        assert field_types.default(field) == field_types.default(fields[field.name])
        assert parts(field.type) >= parts(types[field.name]) - {"ParallelismConfig"}


def parts(hint):
    """The names of the types that a union is of."""
    inner = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    return {getattr(part, "__name__", str(part)) for part in inner}


def test_an_outline_imports_nothing_of_trl():
    program = (
        "import sys; from trimtab.pipelines.planning import upstream; upstream.outline('GRPOConfig'); "
        "sys.exit(any(name in sys.modules for name in ('trl', 'transformers', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_what_is_no_configuration_is_anything():
    assert upstream.outline("NoSuchConfig") is typing.Any
