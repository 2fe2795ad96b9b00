"""What others say in JSON can be written to a file, whatever half of a character it ends in."""

import json

import pytest

from trimtab.rewards import _foreign_json

SMILEY = "\N{GRINNING FACE}"


@pytest.mark.parametrize(("content", "said"), [
    (rb'"a \ud83d"', "a \ufffd"),
    (rb'"\uDE00 a"', "\ufffd a"),
    (b'"\xed\xa0\xbd!"', "\ufffd!"),  # as some programs encode halves
    (rb'"\ud83d\ude00 \ud83d"', f"{SMILEY} \ufffd"),
    (rb'{"\ud83d": [1, {"b": ["\ud83d"]}], "c": null}', {"\ufffd": [1, {"b": ["\ufffd"]}], "c": None}),
    (json.dumps([SMILEY, "\\ud83d", 0.5]).encode(), [SMILEY, "\\ud83d", 0.5]),
])  # fmt: skip
def test_halves_of_pairs_are_replaced_and_nothing_else(content, said):
    assert _foreign_json.read(content) == said


def test_options_are_those_of_json():
    assert _foreign_json.read(b"[1]", parse_int=float) == [1.0]
    with pytest.raises(ValueError, match="Expecting value"):
        _foreign_json.read(b"[")
