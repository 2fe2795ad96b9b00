"""The keys of a data block: which rows are read, under which names, and on which side."""

from pathlib import Path

import pytest
from planned import changed, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.data import forms, holding_out, loading, mixing
from trimtab.pipelines.data.audit.checking import Audit
from trimtab.pipelines.planning import preflight, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking

PLACE = ("stages", "dpo", "data")
ROWS = [{"n": n, "prompt": f"Question {n}?", "good": f"yes {n}", "bad": "no", "lang": "en" if n % 2 else "de",
         "meta": {"score": n / 10 if n else None}} for n in range(20)]  # fmt: skip
NAMED = {"chosen": "good", "rejected": "bad"}


def read(block):
    checked = schema.coerce(block, forms.Data, PLACE)
    return loading.load(schema.instance(forms.DataMixture, checked), PLACE)


def refusal(block, *key):
    with pytest.raises(RecipeError) as raised:
        read(block)
    assert raised.value.mistakes[0].path == (*PLACE, *key)
    return raised.value.message


@pytest.fixture
def rows(write):
    return write("rows.jsonl", ROWS)


class TestColumns:
    def test_a_mapping_renames_and_keeps_the_others(self, rows):
        read_rows = read({"path": rows, "columns": NAMED})
        assert set(read_rows.column_names) == {"n", "prompt", "chosen", "rejected", "lang", "meta"}
        assert read_rows["chosen"][3] == "yes 3"

    def test_names_can_be_swapped(self, rows):
        assert read({"path": rows, "columns": {"good": "bad", "bad": "good"}})["bad"][3] == "yes 3"

    def test_renamed_columns_are_what_a_layout_reads(self, write):
        path = write("a.jsonl", [{"ask": "Q", "output": "A"}])
        converted = read({"path": path, "columns": {"instruction": "ask"}, "layout": "alpaca"})
        assert converted[0]["prompt"][0]["content"] == "Q"

    def test_a_column_that_is_not_there_is_named_with_those_that_are(self, rows):
        message = refusal({"path": rows, "columns": {"chosen": "god"}}, "columns", "chosen")
        assert "no column 'god', did you mean 'good'? (it has: n, prompt, good" in message

    def test_no_column_is_lost_to_a_new_name(self, rows):
        assert "has a column 'prompt' already" in refusal(
            {"path": rows, "columns": {"prompt": "n"}}, "columns", "prompt"
        )

    def test_a_new_name_can_be_called_kind(self, tmp_path, rows):
        stages = {"dpo": {"model": {"model_name_or_path": "hub/m"}, "train": {},
                          "data": {"path": rows, "columns": {**NAMED, "kind": "lang"}}}}  # fmt: skip
        assert len(fingerprints(write_recipe(tmp_path, stages))) == 1


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("n >= 18", [18, 19]),
        ('lang == "en" and not n < 17', [17, 19]),
        ('lang in ["de"] and 15 < n <= 17', [16]),
        ("n not in [2, 3] and n < 5", [0, 1, 4]),
        ("meta.score is None", [0]),
        ("meta.score is not None and meta.score * 2 + 1 > 4.7", [19]),
        ('"19" in good or len(good) == 5 and n > 8', [9, 19]),
        ("-1 < n - 2 < 1", [2]),
        ({"lang": "de", "n": [1, 2, 4]}, [2, 4]),
        ({"meta.score": 0.5}, [5]),
    ],
)
def test_a_filter_keeps_the_rows_that_its_condition_holds_for(condition, numbers, rows):
    assert read({"path": rows, "filter": condition})["n"][:] == numbers


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("n >", "not a condition such as"),
        ("__import__('os').system('true')", "is none of: columns"),
        ("n.__class__ == 1", "no column 'n.__class__' (it has no parts)"),
        ("scroe > 1", "no column 'scroe'"),
        ("[n for n in good]", "is none of: columns"),
        ("n ** 2 > 1", "is none of: columns"),
        ("n is 1", "asks for None alone"),
        ("n + 1", "int64 for every row, and not true or false"),
        ("good > 1", "'good > 1' on "),
        ("n > 100", "holds for none of 20 rows"),
    ],
)
def test_a_filter_that_is_not_right_says_why_at_its_place(condition, says, rows):
    with pytest.raises(RecipeError) as raised:
        read({"path": rows, "filter": condition})
    assert raised.value.mistakes[0].path[-1] == "filter"
    assert says in raised.value.message


def test_a_template_beside_rows_is_told_where_it_belongs(rows):
    assert "the chat template is the model's" in refusal({"path": rows, "template": "chatml"}, "template")


class TestMaxRows:
    def test_draws_that_many_in_their_order_and_the_same_every_time(self, rows):
        first, again = (read({"path": rows, "max_rows": 7})["n"][:] for _ in range(2))
        assert first == again == sorted(first)
        assert len(first) == 7
        assert first != list(range(7))
        assert read({"path": rows, "max_rows": 7, "seed": 1})["n"][:] != first

    def test_fewer_rows_are_all_taken(self, rows):
        assert len(read({"path": rows, "max_rows": 100})) == 20


class TestWeights:
    @pytest.fixture
    def sources(self, write):
        return [{"path": write(f"{name}.jsonl", [{"text": f"{name} {n}"} for n in range(count)]), "weight": weight}
                for name, count, weight in (("a", 30, 3), ("b", 8, 1))]  # fmt: skip

    @staticmethod
    def counts(rows):
        return [sum(text.startswith(name) for text in rows["text"]) for name in "ab"]

    def test_the_largest_mixture_that_repeats_no_row(self, sources):
        rows = read(sources)
        assert self.counts(rows) == [24, 8]
        assert len(set(rows["text"])) == 32

    def test_a_total_is_kept_exactly_and_the_small_one_comes_again(self, sources):
        rows = read({"datasets": sources, "max_rows": 70})
        assert self.counts(rows) == [53, 17]
        twice = [text for text in rows["text"] if text.startswith("b")]
        assert {twice.count(text) for text in set(twice)} == {2, 3}

    def test_without_weights_a_total_is_drawn_by_size(self, sources):
        unweighted = [{"path": source["path"]} for source in sources]
        assert self.counts(read({"datasets": unweighted, "max_rows": 19})) == [15, 4]

    def test_all_or_none(self, sources):
        del sources[0]["weight"]
        assert "for all datasets of a mixture or for none" in refusal(sources)

    def test_counts_by_source_are_metrics(self, sources, tmp_path):
        sources[1]["path"] = str(Path(sources[1]["path"]).rename(tmp_path / "a.b.jsonl"))
        step = Recipe.load(str(write_recipe(tmp_path, {"world": {}}))).steps[0]
        block = schema.instance(forms.DataMixture, schema.coerce(sources, forms.Data, PLACE))
        _, counts = Audit(step).kept(block, "data", forms.SFT)
        assert (counts["data/from/a"], counts["data/from/a-2"]) == (24, 8)


def test_the_record_says_by_source_where_rows_were_left(write, tmp_path, monkeypatch):
    whole = [{"text": f"{n} of a", "n": n} for n in range(40)]
    sources = [{"path": write("a.jsonl", whole), "filter": "n >= 4"}, write("b.jsonl", [{"text": "b"}, {"text": " "}])]
    noted = {}
    monkeypatch.setattr(tracking, "count_rows", noted.__setitem__)
    step = Recipe.load(str(write_recipe(tmp_path, {"world": {}}))).steps[0]
    for side in ("train", "eval"):
        given = schema.coerce({"datasets": sources, "eval_fraction": 0.3, "side": side}, forms.Data, PLACE)
        Audit(step, {"empty": "drop"}).kept(schema.instance(forms.DataMixture, given), side, forms.SFT)
    trained, held_out = noted["train"]["a"], noted["eval"]["a"]
    assert (trained["read"], trained["filtered"], "dropped" in trained) == (40, 4, False)
    assert trained["used"] == 36 - trained["held_out"] == held_out["held_out"]
    assert held_out["used"] == trained["held_out"] > 0
    (blank,) = (side["b"] for side in noted.values() if "dropped" in side["b"])
    assert blank["read"] - blank.get("held_out", 0) - blank["dropped"] == blank["used"]

    def test_rounding_adds_up(self):
        assert mixing.apportioned([1 / 3] * 3, 100) == [34, 33, 33]


class TestEvalFraction:
    @staticmethod
    def sides(path, **keys):
        block = {"path": path, "eval_fraction": 0.3, **keys}
        return read(block), read({**block, "side": "eval"})

    def test_the_sides_are_the_whole_and_share_no_prompt(self, write):
        said = ["What is {}?", "what  is {}?", "ＷHAT is {}?\n"]
        path = write(
            "rows.jsonl", [{"prompt": text.format(n), "completion": text} for n in range(40) for text in said]
        )
        train, held_out = self.sides(path)
        assert len(train) + len(held_out) == 120
        asked = [{holding_out.question(row) for row in side} for side in (train, held_out)]
        assert not asked[0] & asked[1]
        assert 4 <= len(asked[1]) <= 20

    def test_more_rows_move_none(self, write):
        path = write("few.jsonl", ROWS)
        more = write("more.jsonl", [{**ROWS[0], "prompt": f"More {n}", "n": 100 + n} for n in range(20)] + ROWS[::-1])
        few_held_out, many_held_out = self.sides(path)[1]["n"][:], self.sides(more)[1]["n"][:]
        assert set(few_held_out) == {n for n in many_held_out if n < 100}

    def test_every_form_of_a_question_is_on_the_same_side(self):
        asked = {"role": "user", "content": "Why is  THE sky blue?"}
        system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Air."}
        again = {"role": "user", "content": "And at night?"}
        rows = [
            {"prompt": "why is the sky blue?"},
            {"prompt": [asked]},
            {"prompt": [system, asked, answer, again]},
            {"messages": [system, asked, answer]},
            {"chosen": [asked, answer], "rejected": [asked, again]},
            {"chosen": "Why is the sky blue?\nAir: light", "rejected": "Why is the sky blue?\nAll of it"},
        ]
        assert {holding_out.question(row) for row in rows} == {"why is the sky blue?"}

    def test_a_stage_evaluates_on_what_is_kept_apart(self, tmp_path, rows):
        dpo = {"model": {"model_name_or_path": "hub/m"}, "train": {"eval_strategy": "steps"},
               "data": {"path": rows, "columns": NAMED, "eval_fraction": 0.3}}  # fmt: skip
        stage = preflight.build(Recipe.load(str(write_recipe(tmp_path, {"dpo": dpo}))).steps[0])
        train, held_out = (loading.load(block, PLACE) for block in (stage.data, stage.eval_data))
        assert sorted(train["n"][:] + held_out["n"][:]) == list(range(20))
        dpo["eval_data"] = rows
        with pytest.raises(RecipeError, match="both name rows to evaluate on"):
            preflight.build(Recipe.load(str(write_recipe(tmp_path, {"dpo": dpo}))).steps[0])

    def test_a_side_without_rows_is_refused(self, write):
        path = write("one.jsonl", ROWS[:1] * 3)
        with pytest.raises(RecipeError, match="of 3 rows none is"):
            self.sides(path)


class TestSplits:
    @pytest.mark.parametrize("split", ["validation", "test[:10%]", "train[:5]+test"])
    def test_a_file_has_the_split_train_alone(self, split, rows):
        message = refusal({"path": rows, "split": split}, "split")
        assert "a file's only split is train" in message
        assert "eval_fraction" in message

    def test_slices_of_a_file(self, rows):
        assert read({"path": rows, "split": "train[:10%]+train[90%:]"})["n"][:] == [0, 1, 18, 19]

    def test_a_glob_is_a_file(self, rows):
        assert "no split 'dev'" in refusal({"path": str(Path(rows).parent / "*.jsonl"), "split": "dev"}, "split")

    def test_those_of_a_folder_are_named(self, write, tmp_path):
        for name in ("train", "test"):
            write(f"{name}.jsonl", ROWS)
        assert len(read({"path": str(tmp_path), "split": "test"})) == 20
        message = refusal({"path": str(tmp_path), "split": "validation"}, "split")
        assert "has no split 'validation' (it has: train, test)" in message

    def test_a_step_that_has_still_to_run_will_leave_train_alone(self, tmp_path, rows, capsys):
        prompts = {"prompts": rows, "model": {"model_name_or_path": "hub/m"}}
        pair = {"completions": {"path": "$score", "split": "test"}, "reward": "a"}
        score = {"completions": "$sample", "rewards": {"a": {"kind": "length", "target": 2}}}
        recipe = Recipe.load(str(write_recipe(tmp_path, {"sample": prompts, "score": score, "pair": pair})))
        with pytest.raises(RecipeError, match="score leaves the split train alone, and no 'test'"):
            preflight.build(recipe.steps[2]).check(recipe.steps[2])


@pytest.mark.parametrize("held_out", ["train", "train[:10%]"])
def test_what_is_trained_on_is_not_evaluated_on(held_out, rows, tmp_path):
    recipe = Recipe.load(str(write_recipe(tmp_path, {"world": {}})))
    data, others = (
        schema.instance(forms.DataMixture, schema.coerce({"path": rows, "split": split}, forms.Data, PLACE))
        for split in ("train", held_out)
    )
    with pytest.raises(RecipeError, match="is also trained on: the evaluation would measure memory"):
        Audit(recipe.steps[0]).check(data, "data", forms.PROMPTS, others)


@pytest.mark.parametrize("key", ["prompts", "select_prompts", "pairs"])
def test_what_chooses_is_held_against_what_judges(key, rows, tmp_path, caplog):
    """A search is no training: the same rows on both sides are told, and not refused."""
    recipe = Recipe.load(str(write_recipe(tmp_path, {"world": {}})))
    judged, others = (
        schema.instance(forms.DataMixture, schema.coerce({"path": rows, "split": split}, forms.Data, PLACE))
        for split in ("train[:4]", "train[2:]")
    )
    Audit(recipe.steps[0]).check(judged, key, forms.PROMPTS, others)
    assert f"also a row of eval_{key.removeprefix('select_')}, as in 2 of 4 rows" in caplog.text


def test_every_key_is_in_the_identity_and_a_misspelt_one_is_told(tmp_path, rows):
    def plan(**keys):
        stage = {
            "model": {"model_name_or_path": "hub/m"},
            "train": {},
            "data": {"path": rows, "columns": NAMED, **keys},
        }
        return fingerprints(write_recipe(tmp_path, {"dpo": stage}))

    before = plan()
    keys = {
        "filter": "n > 1",
        "max_rows": 5,
        "eval_fraction": 0.1,
        "seed": 1,
    }
    for key, value in keys.items():
        assert changed(before, plan(**{key: value})) == ["dpo"], key
    assert "unknown key for DataMixture, did you mean 'eval_fraction'?" in refusal(
        {"path": rows, "eval_fracton": 0.1}, "eval_fracton"
    )
    assert "did you mean 'max_rows'?" in refusal({"path": rows, "max_row": 1}, "datasets", "0", "max_row")


def test_streaming_says_what_is_done_instead(rows):
    assert "read from Arrow files on disk" in refusal({"path": rows, "streaming": True}, "streaming")


@pytest.mark.parametrize("is_block", [True, False])
def test_inputs_take_the_keys(is_block, tmp_path, rows):
    data, given = {"path": "$pairs", "filter": "n > 17"}, rows
    if is_block:
        data, given = "$pairs", {**data, "path": rows}
    stage = {"model": {"model_name_or_path": "hub/m"}, "train": {}, "data": data}
    recipe = Recipe.load(str(write_recipe(tmp_path, {"dpo": stage}, inputs={"pairs": given})))
    assert len(loading.load(preflight.build(recipe.steps[0]).data, PLACE)) == 2
