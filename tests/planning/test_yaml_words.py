"""Words and numbers of YAML: what is written is what is meant."""

import json

import pytest
import trl
import yaml
from run_steps import write_recipe

from trimtab.pipelines.planning import preflight, schema
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.planning.yaml_words import Dumper, Loader, Word, settled

TRAIN = """\
eval_strategy: no
save_strategy: no
report_to: [no, off]
packing: yes
logging_first_step: off
run_name: on
gradient_checkpointing_kwargs: {use_reentrant: no, list: [on]}
"""
STAGE = {"model": {"model_name_or_path": "org/model"}, "data": "org/data"}


def built(train):
    return schema.build(trl.SFTConfig, yaml.load(train, Loader), dry=True)


def test_a_word_is_a_word_or_a_boolean_by_the_type_of_its_key():
    arguments = built(TRAIN.replace("run_name: on\n", ""))
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.report_to) == ("no", "no", ["no", "off"])
    assert arguments.packing is True
    assert arguments.logging_first_step is False
    assert arguments.gradient_checkpointing_kwargs == {"use_reentrant": False, "list": [True]}
    assert arguments.gradient_checkpointing_kwargs["use_reentrant"] is False


def test_words_in_overrides(tmp_path):
    path = str(write_recipe(tmp_path, {"sft": {**STAGE, "train": {}}}, wandb=False))
    words = ["stages.sft.train.eval_strategy=no", "stages.sft.train.packing=no", "stages.sft.train.bf16=off"]
    train = preflight.build(Recipe.load(path, words).steps[0]).train
    assert (train.eval_strategy, train.packing, train.bf16) == ("no", False, False)


def test_names_and_quoted_words_are_words(write):
    path = write("recipe.yaml", "stages:\n  no: {off: 'no'}\n")
    assert Document.read(path).values == {"stages": {"no": {"off": "no"}}}


def test_a_boolean_has_one_fingerprint_however_it_is_written(tmp_path):
    path = str(write_recipe(tmp_path, {"sft": {**STAGE, "train": {}}}))
    written = [
        Recipe.load(path, [f"stages.sft.train.packing={word}"]).steps[0].fingerprint for word in ("no", "false")
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("word", ["no", "off", "false"])
def test_no_wandb(word, tmp_path):
    assert Recipe.load(str(write_recipe(tmp_path, {"sft": {**STAGE, "train": {}}})), [f"wandb={word}"]).wandb is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("012", "012"),
        ("2026-01-01", "2026-01-01"),
        ("1e-5", 1e-5),
        ("5E+3", 5000.0),
        ("-1_000", -1000),
        ("0x1f", 31),
        (".5", 0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("True", True),
        ("~", None),
        ("y", "y"),
        ("=", "="),
    ],
)
def test_scalars(text, value):
    loaded = yaml.load(text, Loader)
    assert loaded == value
    assert type(loaded) is type(value)


def test_a_whole_number_with_a_zero_in_front_is_decimal():
    assert built("max_steps: 012").max_steps == 12


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_steps: 1:30", "expected a whole number, got '1:30'"),
        ("learning_rate: NaN", "expected a number, got 'NaN'"),
        ("learning_rate: .inf", "expected a finite number, got an infinite one"),
        ("eval_strategy: off", "expected one of no, steps, epoch, got 'off'"),
        ("packing: 1", "expected true or false, got 1"),
        ("run_name: 7", "expected a string or null, got 7"),
        ("bf16: nope", "expected true or false or null, got 'nope'"),
    ],
)
def test_what_is_not_of_the_type(line, message):
    with pytest.raises(Exception, match=message):
        built(line)


def test_a_word_is_written_as_it_was_read():
    values = {"a": Word("no"), "b": "no", "c": [Word("On")]}
    assert yaml.load(yaml.dump(values, Dumper=Dumper), Loader) == values
    assert json.dumps(settled(values)) == '{"a": false, "b": "no", "c": [true]}'
