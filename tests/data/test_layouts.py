"""Published layouts become rows of a form, what is left out is counted, and an error names the layout that fits."""

import json

import pytest
from conftest import ROOT
from published_rows import (
    ALPACA,
    CALL,
    FLAT,
    HELPSTEER2,
    HH,
    NECTAR,
    PKU,
    PUBLISHED,
    SHAREGPT,
    ULTRAFEEDBACK,
    assistant,
    system,
    user,
)

from trimtab.pipelines.data import forms, layouts, loading
from trimtab.pipelines.data.audit.checking import Audit
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking

PLACE = ("stages", "dpo", "data")


@pytest.fixture
def step():
    return Recipe.load(str(ROOT / "recipes" / "tiny.yaml")).steps[0]


@pytest.fixture
def logged(monkeypatch):
    """What a run would have logged."""
    metrics = {}
    monkeypatch.setattr(tracking, "log", lambda values: metrics.update(values))
    return metrics


def block(path, layout=None, **keys):
    entry = {"path": path, **keys} if layout is None else {"path": path, "layout": layout, **keys}
    return schema.build(forms.DataMixture, forms.mixture(entry), PLACE)


def load(write, rows, layout=None):
    return loading.load(block(write("rows.jsonl", rows), layout), PLACE).to_list()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rows(name, write, step, logged):
    published = PUBLISHED[name]
    data = block(write("rows.jsonl", published.rows), published.layout)
    rows = loading.load(data, PLACE).to_list()
    kept = [{key: row[key] for key in wanted} for row, wanted in zip(rows, published.expected, strict=True)]
    assert kept == published.expected
    assert logged == {f"data/left_out/{reason}": count for reason, count in published.dropped.items()}
    Audit(step).check(data, "data", published.form)


def test_every_layout_is_held_by_published_rows():
    blocks = [case.layout for case in PUBLISHED.values()]
    words = {block["kind"] if isinstance(block, dict) else block for block in blocks}
    with_a_word = {word for word, cls in layouts.classes().items() if not cls.unasked and not cls.refusal}
    assert words - {None} == with_a_word


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_second_load_converts_nothing_and_counts_the_same(name, write, logged, monkeypatch):
    published = PUBLISHED[name]
    data = block(write("rows.jsonl", published.rows), published.layout)
    first = loading.load(data, PLACE).to_list()
    counts = dict(logged)
    for cls in layouts.classes().values():
        monkeypatch.setattr(cls, "convert", None)
    assert loading.load(data, PLACE).to_list() == first
    assert logged == counts


@pytest.mark.parametrize(
    ("rows", "form", "written"),
    [
        (SHAREGPT, forms.SFT, "ShareGPT's: write `data: {path: rows.jsonl, layout: sharegpt}`"),
        (ALPACA, forms.SFT, "alpaca's: write `data: {path: rows.jsonl, layout: alpaca}`"),
        (PUBLISHED["capybara"].rows, forms.SFT, "layout: capybara}"),
        (PUBLISHED["gsm8k"].rows, forms.SFT, "layout: gsm8k}"),
        (PUBLISHED["gsm8k"].rows, forms.PROMPTS, "layout: gsm8k}"),
        (PUBLISHED["mbpp"].rows, forms.PROMPTS, "layout: mbpp}"),
        (PUBLISHED["shp"].rows, forms.PREFERENCE, "layout: shp}"),
        (PUBLISHED["helpsteer3"].rows, forms.PREFERENCE, "layout: helpsteer3}"),
        (PUBLISHED["orca_dpo_pairs"].rows, forms.PROMPTS, "layout: orca_dpo}"),
        (HELPSTEER2, forms.PREFERENCE, "layout: helpsteer2}"),
        (HH, forms.PROMPTS, "layout: hh_text}"),
        (PKU, forms.PREFERENCE, "layout: {kind: pku_saferlhf, question: better}}"),
        (NECTAR, forms.PREFERENCE, "layout: nectar}"),
        (NECTAR, forms.RANKING, "layout: {kind: nectar, answers: ranking}}"),
        (ULTRAFEEDBACK, forms.PREFERENCE, "layout: ultrafeedback}"),
        (FLAT, forms.SFT, "layout: openassistant}"),
        (PUBLISHED["mbpp"].rows, forms.SFT, "layout: mbpp}"),
        (PUBLISHED["orca_dpo_pairs"].rows, forms.PREFERENCE, "layout: orca_dpo}"),
        (PUBLISHED["alpaca pairs with a history"].rows, forms.UNPAIRED, "layout: alpaca}"),
        (FLAT, forms.PREFERENCE, "layout: {kind: openassistant, answers: best_worst}}"),
    ],
)  # fmt: skip
def test_an_error_names_the_layout_that_would_do_and_it_does(rows, form, written, write, step, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write("rows.jsonl", rows)
    with pytest.raises(RecipeError) as raised:
        Audit(step).check(block("rows.jsonl"), "data", form)
    assert f"{written}" in raised.value.message
    proposed = raised.value.message.rpartition("write `data: ")[2].partition("`")[0]
    entry = Recipe.load(write("r.yaml", f"stages: {{sft: {{data: {proposed}}}}}")).steps[0].options["data"]
    Audit(step).check(schema.build(forms.DataMixture, forms.mixture(entry), PLACE), "data", form)


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ({"prompt": "2 + 2?", "completions": ["2 + 2", "is 5"], "labels": [True, False]}, forms.RANKING),
        ({"prompt": "2 + 2?", "completions": ["2 + 2", "is 5"], "labels": [1, 0]}, forms.PREFERENCE),
        ({"question": {"problem": "2 + 2?"}, "label": {"steps": [{"rating": 1}]}}, forms.SFT),
        ({"input": "2 + 2? It is 5. ки", "label": "2 + 2? It is 5. -", "task": "sums"}, forms.SFT),
    ],
)
def test_step_labelled_rows_are_refused_with_a_sentence(rows, form, write, step):
    with pytest.raises(RecipeError, match="no stage trains a process reward model on them: make pairs"):
        Audit(step).check(block(write("rows.jsonl", [rows])), "data", form)


def test_columns_that_a_layout_needs_may_be_left_out_on_purpose(write, step):
    rows = PUBLISHED["orca_dpo_pairs"].rows
    with pytest.raises(RecipeError, match=r"would be read alone, without system \+ question.*`columns: \[chosen, rej"):
        Audit(step).check(block(write("rows.jsonl", rows)), "data", forms.PREFERENCE)
    Audit(step).check(block(write("rows.jsonl", rows), columns=["chosen", "rejected"]), "data", forms.PREFERENCE)


PARTS = [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fish."}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [user(PARTS), assistant([{"type": "text", "text": "Eel"}])]},
         {"messages": [user("Name a fish."), assistant("Eel")]}),
        ({"prompt": [system("Be brief."), user(PARTS)]}, {"prompt": [system("Be brief."), user("Name a fish.")]}),
        ({"prompt": [user(PARTS)], "completions": [[assistant(PARTS)], [assistant("No.")]]},
         {"prompt": [user("Name a fish.")], "completions": [[assistant("Name a fish.")], [assistant("No.")]]}),
        ({"prompt": "Name a fish.", "chosen": [user(PARTS), assistant("Eel")],
          "rejected": [user(PARTS), assistant("Dog")]},
         {"prompt": [user("Name a fish.")], "chosen": [assistant("Eel")], "rejected": [assistant("Dog")]}),
    ],
)  # fmt: skip
def test_parts_of_text_are_joined(row, expected, write):
    assert load(write, [row]) == [expected]


def test_a_message_keeps_its_other_keys_when_its_parts_are_joined(write):
    row = {"messages": [user(PARTS) | {"name": "Ann"}, assistant(PARTS) | {"name": "Bo"}]}
    assert [message["name"] for message in load(write, [row])[0]["messages"]] == ["Ann", "Bo"]


def test_a_part_that_is_no_text_names_its_row(write):
    image = [{"type": "image", "text": None}]
    with pytest.raises(RecipeError, match=r"rows.jsonl, row 1, layout 'content_parts': .*part of type 'image'"):
        load(write, [{"prompt": [user(PARTS)]}, {"prompt": [user(image)]}])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "A?", "chosen": [assistant("B")], "rejected": [assistant("C")]},
         {"prompt": [user("A?")], "chosen": [assistant("B")], "rejected": [assistant("C")]}),
        ({"prompt": [user("A?")], "chosen": "B", "rejected": "C"},
         {"prompt": [user("A?")], "chosen": [assistant("B")], "rejected": [assistant("C")]}),
        ({"prompt": "A?", "completion": [assistant("B")], "label": True},
         {"prompt": [user("A?")], "completion": [assistant("B")], "label": True}),
        ({"prompt": "A?", "completion": [system("S"), user("A?"), assistant("B"), user("D"), assistant("E")]},
         {"prompt": [system("S"), user("A?")], "completion": [assistant("B"), user("D"), assistant("E")]}),
        ({"prompt": "A?", "completions": [[assistant("B")], [assistant("C")]]},
         {"prompt": [user("A?")], "completions": [[assistant("B")], [assistant("C")]]}),
        ({"prompt": [user("A?")], "completions": ["B", "C"]},
         {"prompt": [user("A?")], "completions": [[assistant("B")], [assistant("C")]]}),
    ],
)  # fmt: skip
def test_text_beside_messages_becomes_messages(row, expected, write):
    assert load(write, [row]) == [expected]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "A?", "chosen": "B", "rejected": "C"},
        {"prompt": [user("A?")], "chosen": [assistant("B")], "rejected": [assistant("C")]},
        {"prompt": "A?", "extra": [user("B")]},
        {"text": "A"},
    ],
)
def test_rows_that_need_no_layout_are_left_as_they_are(row, write, monkeypatch):
    for cls in layouts.classes().values():
        monkeypatch.setattr(cls, "convert", None)
    assert load(write, [row]) == [row]


def test_a_prompt_that_is_not_in_the_conversations_names_its_row(write):
    right = {"prompt": "A?", "chosen": [user("A?"), assistant("B")], "rejected": [user("A?"), assistant("C")]}
    with pytest.raises(RecipeError, match=r"row 1, layout .text_and_messages.: .*: the prompt is no user's message"):
        load(write, [right, right | {"prompt": "D?"}])


def test_null_cells_stay_for_the_audit(write):
    pair = {"prompt": "A?", "chosen": [assistant("B")], "rejected": [assistant("C")]}
    rows = load(write, [pair, pair | {"prompt": None}, pair | {"chosen": None}])
    assert rows[1]["prompt"] is None
    assert rows[2]["chosen"] is None


@pytest.mark.parametrize(
    ("layout", "rows", "message"),
    [
        ("sharegpt", [SHAREGPT[1], {"id": "3", "conversations": [{"from": "robot", "value": "x"}]}],
         "rows.jsonl, row 1, layout 'sharegpt': ValueError: a turn is from 'robot', which is none of human"),
        ("sharegpt", ALPACA, "has not the layout 'sharegpt' (it has: instruction, input, output; needed: conv"),
        ("shp", [PUBLISHED["shp"].rows[0] | {"score_ratio": None}], "row 0, layout 'shp': TypeError: "),
        ("helpsteer2", [HELPSTEER2[0], HELPSTEER2[1], HELPSTEER2[2] | {"prompt": "A\n<extra_id_1>Judge\nB"}],
         "row 2, layout 'helpsteer2': ValueError: a turn of the prompt begins with 'Judge"),
        ("gsm8k", [{"question": "A?", "answer": "4"}], "row 0, layout 'gsm8k': ValueError: the answer has no '####'"),
        ({"kind": "shp", "min_ratio": 9}, PUBLISHED["shp"].rows,
         "its layout leaves no row: 3 below_ratio (the ratio of the votes is less than `min_ratio`)"),
    ],
)  # fmt: skip
def test_an_error_names_place_file_row_and_layout(layout, rows, message, write):
    with pytest.raises(RecipeError) as raised:
        load(write, rows, layout)
    assert message in raised.value.message
    assert raised.value.path == PLACE


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("sharegp", "data.datasets.0.layout: unknown kind 'sharegp', did you mean 'sharegpt'?"),
        ({"kind": "pku_saferlhf"}, "data.datasets.0.layout.question: required key is missing"),
        ({"kind": "pku_saferlhf", "question": "best"}, "layout.question: expected one of better, safer, got 'best'"),
        ({"kind": "shp", "ratio": 2}, "layout.ratio: unknown key for Shp, did you mean 'min_ratio'?"),
        ({"kind": "helpsteer3", "strength": 4}, "layout: strength must be 1, 2 or 3, got 4"),
        ({"question": "safer"}, "layout: expected a word or a block with a `kind`"),
        ({"kind": "ultrafeedback", "margin": -1}, "layout: margin must be at least 0, got -1"),
    ],
)
def test_mistakes_in_a_layouts_options_are_found_without_its_rows(layout, message):
    with pytest.raises(RecipeError) as raised:
        block("nowhere.jsonl", layout)
    assert message in str(raised.value)


def test_a_mixture_has_a_layout_for_each_entry_and_takes_shares_of_the_converted_rows(write):
    entries = [
        {"path": write("a.jsonl", SHAREGPT), "layout": "sharegpt", "columns": ["messages"], "fraction": 1},
        {"path": write("b.jsonl", [{"messages": [user("A?"), assistant("B")]}] * 4), "fraction": 1},
    ]
    data = schema.build(forms.DataMixture, forms.mixture(entries), PLACE)
    rows = loading.load(data, PLACE).to_list()
    assert [len(row["messages"]) for row in rows] == [3, 2, 2, 2]
    assert [row.keys() for row in rows] == [{"messages"}] * 4
    entries[1].pop("fraction")
    with pytest.raises(RecipeError, match="`fraction` must be set for all"):
        loading.load(schema.build(forms.DataMixture, forms.mixture(entries), PLACE), PLACE)


def test_a_layout_and_its_options_are_in_the_fingerprint(write):
    path = write("rows.jsonl", PKU)

    def fingerprint(layout):
        recipe = {"stages": {"dpo": {"data": {"path": path, **layout}}}}
        return Recipe.load(write("recipe.yaml", json.dumps(recipe))).steps[0].fingerprint

    questions = [{"layout": {"kind": "pku_saferlhf", "question": word}} for word in ("better", "safer")]
    assert len({fingerprint(layout) for layout in [{}, {"layout": "shp"}, *questions]}) == 4
    assert fingerprint({"layout": "shp"}) == fingerprint({"layout": {"kind": "shp"}})


def test_a_layout_from_outside_has_a_dotted_word_and_its_file_is_in_the_fingerprint(write, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = """
from dataclasses import dataclass
from trimtab.pipelines.data.layouts import MESSAGES, Layout, message

@dataclass(kw_only=True)
class Quiz(Layout):
    title, columns = "a quiz's", (("q", "a"),)

    def gives(self, names):
        return {"prompt": MESSAGES, "completion": MESSAGES}

    def convert(self, row):
        yield {"prompt": [message("user", row["q"])], "completion": [message("assistant", row["a"])]}
"""
    write("quizzes.py", code)
    path = write("rows.jsonl", [{"q": "A?", "a": "B"}])
    write("recipe.yaml", f"stages: {{sft: {{data: {{path: {path}, layout: quizzes.Quiz}}}}}}")
    data = block(path, "quizzes.Quiz")
    assert loading.load(data, PLACE).to_list() == [{"prompt": [user("A?")], "completion": [assistant("B")]}]
    before = Recipe.load("recipe.yaml").steps[0].fingerprint
    write("quizzes.py", code + "# another rule\n")
    assert Recipe.load("recipe.yaml").steps[0].fingerprint != before


def test_compressed_and_columnar_files_are_converted_like_lines(write, tmp_path):
    import datasets

    rows = datasets.Dataset.from_list(SHAREGPT)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_json(tmp_path / "rows.jsonl.gz", compression="gzip")
    expected = load(write, SHAREGPT, "sharegpt")
    for name in ("rows.parquet", "rows.jsonl.gz"):
        assert loading.load(block(str(tmp_path / name), "sharegpt"), PLACE).to_list() == expected
    datasets.Dataset.from_list(ALPACA).to_csv(tmp_path / "rows.csv")
    assert loading.load(block(str(tmp_path / "rows.csv"), "alpaca"), PLACE).to_list() == load(write, ALPACA, "alpaca")


def test_a_function_call_has_no_empty_keys_in_other_messages(write):
    rows = load(write, PUBLISHED["sharegpt with tools"].rows, "sharegpt")
    called = rows[0]["messages"][2]
    assert called == assistant("") | {"tool_calls": [{"type": "function", "function": CALL}]}
    assert all("tool_calls" not in message for message in rows[1]["messages"])
