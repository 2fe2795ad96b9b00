"""YAML of a stranger's: what stands for too much, contains itself or is too long is a line, and told at once."""

import time

import pytest
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.yaml_limits import LARGEST, MOST

LEVELS = "abcdefghi"
TEN = ", ".join(["*{0}"] * 10)


def layers(form: str, between: str = "\n") -> str:
    """Anchors each of which has the one before ten times."""
    pairs = zip("z" + LEVELS[:-1], LEVELS, strict=True)
    return between.join(["z: &z {k: 1}", *(f"{name}: &{name} {form % TEN.format(before)}" for before, name in pairs)])


HOSTILE = {
    "aliases": (layers("[%s]"), "anchors stand for more than"),
    "merged": (layers("{<<: [%s]}"), "anchors stand for more than"),
    "self in a mapping": ("stages: &a\n  b: *a\n", "an anchor contains itself"),
    "self in a list": ("stages: &a\n- 1\n- *a\n", "an anchor contains itself"),
    "self merged": ("stages: &a\n  <<: *a\n", "an anchor contains itself"),
    "self further down": ("stages: &a {b: {c: [1, {d: *a}]}}\n", "an anchor contains itself"),
    "brackets": ("stages: " + "[" * 10_000 + "]" * 10_000, "nested deeper than 40"),
    "braces": ("{a: " * 10_000, "nested deeper than 40"),
    "dashes": ("stages:\n  " + "- " * 10_000 + "x\n", "nested deeper than 40"),
    "long": ("stages: {}\n#" + "x" * LARGEST, "more than 1 MiB"),
    "wide": ("stages: [" + "1," * (MOST + 1) + "]", "more than 10,000 values"),
    "digits": ("seed: !!int " + "1" * 100_000, "a number of 100,000 characters"),
    "a list for a key": ("? [a]\n: b\n", "a key is a word"),
    "merged number": ("<<: 3\n", "expected a mapping or list of mappings for merging"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_a_line(text, message, write):
    started = time.perf_counter()
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.load(path := write("recipe.yaml", text))
    assert time.perf_counter() - started < 5  # it is tenths of a second; without the limits, hours
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    "value",
    ["&a [*a]", "&a {b: *a}", "&a {<<: *a}", "[" * 10_000, f"[{'1,' * (MOST + 1)}]", f"{{{layers('[%s]', ', ')}}}"],
    ids=["self in a list", "self in a mapping", "self merged", "brackets", "wide", "aliases"],
)
def test_a_hostile_override_is_a_line(value, tmp_path):
    path = str(write_recipe(tmp_path, STAGES))
    with pytest.raises(RecipeError, match=r"stages\.sft\.train\.seed"):
        Recipe.load(path, [f"stages.sft.train.seed={value}"])


def test_an_accelerate_config_has_the_same_limits(tmp_path, write):
    def planned(text):
        path = write_recipe(tmp_path, {"sft": {**STAGES["sft"], "accelerate": write("accelerate.yaml", text)}})
        return commands.launch(Recipe.load(str(path)).steps[0])

    assert planned("use_cpu: true\nnum_processes: 2\n").processes == 2
    for text, message in (
        (layers("[%s]"), "anchors stand for more than"),
        ("a: &a\n  - *a\n", "an anchor contains itself"),
        ("- 1\n", "expected the keys of an accelerate config"),
        ("compute_environment: AMAZON_SAGEMAKER\n", "steps are launched where they are planned"),
        ("parallelism_config: {parallelism_config_cp_size: 2}\n", "parallelism_config_cp_size: ranks share out rows"),
    ):
        with pytest.raises(RecipeError, match=message):
            planned(text)


def test_what_people_write_is_within_the_limits(write):
    """A merged anchor used twice, deep blocks, and a long text that begins like a number."""
    text = (
        "stages:\n  a: &a {<<: &base {kind: sft, data: d}, data: e}\n  b: *a\n  c: {<<: *a, data: '"
        + "7" * 500
        + "'}\n"
    )
    stages = Document.read(write("recipe.yaml", text)).values["stages"]
    assert stages["a"] == stages["b"] == {"kind": "sft", "data": "e"}
    assert stages["c"]["data"] == "7" * 500
