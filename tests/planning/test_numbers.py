"""What a step has left in small files is read with its place and a cure, whatever has become of the file."""

import math

import pytest

from trimtab.pipelines.planning import numbers, stops
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import artifacts

PLACE = ("stages", "constrained", "rewards", "brief", "threshold")


@pytest.fixture
def output(tmp_path):
    """The artifact of a finished search."""
    (artifacts.fresh(tmp_path) / "thresholds.json").write_text('{"brief": 0.5}')
    artifacts.publish(tmp_path, {})
    return tmp_path / "output"


def test_a_damaged_threshold_is_still_to_be_found(output):
    reference = f"{output}/thresholds.json#brief"
    assert numbers.threshold(reference, PLACE) == 0.5
    (output / "thresholds.json").write_text('{"brief": 0.')
    assert math.isnan(numbers.threshold(reference, PLACE))
    (output / "thresholds.json").unlink()
    assert math.isnan(numbers.threshold(reference, PLACE))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[1]", "holds no thresholds"), ('{"a": 1}', "no threshold 'brief'")],
)
def test_a_file_of_a_persons_own_is_an_error_with_its_place(text, message, tmp_path):
    (tmp_path / "thresholds.json").write_text(text)
    with pytest.raises(RecipeError, match=message) as raised:
        numbers.threshold(f"{tmp_path}/thresholds.json#brief", PLACE)
    assert raised.value.path == PLACE


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_note_that_says_nothing_stops_with_a_line(text, output):
    assert stops.stopped(output) is None
    stops.stop(output, "too short")
    assert stops.stopped(output) == "too short"
    (output / "stopped.json").write_bytes(text)
    with pytest.raises(RecipeError, match="says what is damaged"):
        stops.stopped(output)
