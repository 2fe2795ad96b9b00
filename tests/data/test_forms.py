"""Forms: their examples pass their own audit, and an error names the columns."""

import json

import pyarrow.parquet as pq
import pytest
import trl
from conftest import ROOT

from trimtab.pipelines.data import forms
from trimtab.pipelines.data.audit.checking import Audit
from trimtab.pipelines.planning import field_types, kinds, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe

FORMS = {name: form for name, form in vars(forms).items() if isinstance(form, forms.Form)}
BY_HAND = {name: form for name, form in FORMS.items() if form.example is not None}


@pytest.fixture
def step():
    return Recipe.load(str(ROOT / "recipes" / "tiny.yaml")).steps[0]


def mixture(path):
    return schema.build(trl.DatasetMixtureConfig, forms.mixture(path))


@pytest.mark.parametrize("form", BY_HAND.values(), ids=BY_HAND)
def test_the_examples_pass_the_audit(form, write, step, model):
    from transformers import AutoTokenizer

    path = write("rows.jsonl", [form.example(f"What is {number}?", number) for number in range(4)])
    Audit(step, tokenizer=AutoTokenizer.from_pretrained(model)).check(mixture(path), "data", form)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_missing_column_is_named_with_what_is_needed_and_where_it_comes_from(form, write, step):
    path = write("rows.jsonl", json.dumps({"something": 1}) + "\n")
    with pytest.raises(RecipeError) as raised:
        Audit(step).check(mixture(path), "data", form)
    message = raised.value.message
    assert raised.value.path == ("stages", "world", "data")
    assert f"has no column {form.columns[0][0]!r}" in message
    assert "it has: something" in message
    for columns in form.columns:
        assert " + ".join(columns) in message
    if form in BY_HAND.values():
        assert message.endswith(f"Give another column that name: `columns: {{{form.columns[0][0]}: ITS_NAME}}`")
    else:
        assert message.endswith(f"Stages of kind {' or '.join(forms.makers(form))} leave such rows")


def test_what_nobody_writes_by_hand_is_left_by_a_stage():
    for name in FORMS.keys() - BY_HAND.keys():
        assert forms.makers(FORMS[name]), name


def test_every_data_field_of_every_stage_has_a_form():
    for word in kinds.words(kinds.STAGES):
        cls = kinds.find(kinds.STAGES, word)
        for key, hint in field_types.hints(cls).items():
            notes = field_types.notes(hint)
            if forms.mixture in notes:
                assert any(isinstance(note, forms.Form) for note in notes), f"{word}.{key}"


@pytest.mark.parametrize("name", ["sample", "score", "ends", "ranked", "pairs"])
def test_stages_leave_the_rows_that_their_classes_say(name, lists):
    step = lists[name]
    columns = set(pq.read_schema(step.output / "train.parquet").names)
    written = set(kinds.find(kinds.STAGES, step.kind).writes)
    assert columns <= written
    if name in ("sample", "score"):
        assert columns == written


def test_the_makers_of_a_form_are_found_by_what_they_write():
    assert {"score", "first_accepted"} <= set(forms.makers(forms.SCORED))
    assert forms.makers(forms.LISTS) == ["contrast", "pair"]
    assert "sample" in forms.makers(forms.COMPLETIONS)
    assert forms.makers(forms.PREFERENCE) == []
