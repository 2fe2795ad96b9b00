"""Token ids of one vocabulary never meet a model of another, and what a template is told stays with a prompt."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from outputs import rows_of
from run_steps import refused, run_recipe
from short_trainings import write_rows
from transformers import AutoTokenizer

from trimtab.pipelines.planning import schema
from trimtab.rewards._vocabulary import identity

TOOLS = [
    [{"type": "function", "function": {"name": "weather", "parameters": {"city": {"type": "string"}}}}],
    [{"type": "function", "function": {"name": "songs", "parameters": {"artist": {"type": "string"}}}}],
    None,
]
TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{{ opening or '' }}{% endif %}"
)


def of_another(step, folder):
    """The rows of a step, as if another vocabulary had sampled them."""
    table = pq.read_table(step.output / "train.parquet")
    place = table.column_names.index("vocabulary")
    path = folder / "other.parquet"
    pq.write_table(table.set_column(place, "vocabulary", pa.array(["another"] * len(table))), path)
    return str(path)


@pytest.fixture(scope="session")
def with_tools(model, tmp_path_factory):
    """A folder with the model, whose template shows tools and the setting `opening`."""
    folder = tmp_path_factory.mktemp("tools") / "model"
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def told(with_tools, tmp_path_factory):
    """sample -> score -> pair, curate -> mix, of prompts with tools and settings."""
    folder = tmp_path_factory.mktemp("told")
    rows = []
    for number, tools in enumerate(TOOLS):
        prompt = [{"role": "user", "content": f"say {number}"}]
        settings = {"chat_template_kwargs": {"opening": "a b"}} if number == 2 else {}
        rows.append({"prompt": prompt, "tools": tools, **settings})
    prompts = write_rows(folder / "prompts.jsonl", rows)
    real = write_rows(
        folder / "real.jsonl", [{"messages": rows[0]["prompt"] + [{"role": "assistant", "content": "b"}]}]
    )
    pair = {"kind": "pair", "completions": "$score", "reward": "as"}
    return run_recipe(folder, {
        "sample": {"model": {"model_name_or_path": with_tools}, "prompts": prompts, "num_generations": 4,
                   "generate": {"max_new_tokens": 6}, "sample_batch_size": 5},
        "score": {"completions": "$sample", "rewards": {"as": {"kind": "length", "target": 3, "unit": "characters"}}},
        "pair": pair,
        "ends": {**pair, "select": "ends"},
        "curate": {"completions": "$score", "reward": "as"},
        "mix": {"synthetic": ["$curate"], "real": real, "real_fraction": 0.25},
    })  # fmt: skip


def test_a_policy_is_asked_with_the_tools_and_settings_of_each_row(told, with_tools):
    tokenizer = AutoTokenizer.from_pretrained(with_tools)
    rows = rows_of(told["sample"])
    assert len(rows) == 12
    for row in rows:
        number = row["prompt_index"]
        prompt, opening = [{"role": "user", "content": f"say {number}"}], "a b" if number == 2 else ""
        asked = tokenizer.apply_chat_template(
            prompt, tools=TOOLS[number], add_generation_prompt=True, opening=opening, return_dict=True
        )
        assert row["prompt_ids"] == asked["input_ids"]
    assert {row["vocabulary"] for row in rows} == {identity(tokenizer)}


@pytest.mark.parametrize("name", ["score", "pair", "ends", "curate", "mix"])
def test_what_a_template_is_told_stays_with_the_prompt(told, name):
    rows = load_dataset("parquet", data_files=str(told[name].output / "train.parquet"), split="train")
    for row in rows:
        if row.get("source") != "real":
            number = int(row["prompt"][0]["content"].removeprefix("say "))
            assert row["tools"] == TOOLS[number]
            assert (row["chat_template_kwargs"] or {}) == ({"opening": "a b"} if number == 2 else {})


def test_trl_trains_what_was_sampled_with_tools(told, with_tools, tmp_path):
    train = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "gradient_checkpointing": False}
    block = {"model": {"model_name_or_path": with_tools}, "train": train}
    run_recipe(tmp_path, {"dpo": {**block, "data": str(told["pair"].output)},
                          "sft": {**block, "data": str(told["mix"].output)}})  # fmt: skip


def test_a_reward_model_is_calibrated_with_the_tools_that_it_was_trained_with(told, with_tools, tmp_path):
    pairs = str(told["pair"].output)
    train = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "gradient_checkpointing": False}
    block = {"model": {"model_name_or_path": with_tools}, "data": pairs, "eval_data": pairs, "train": train}
    block["audit"] = {"overlap": "warn"}
    step = run_recipe(tmp_path, {"reward": block})["reward"]
    rows = load_dataset("parquet", data_files=f"{pairs}/train.parquet", split="train")
    columns = {name: rows[name][:] for name in ("tools", "chat_template_kwargs")}
    reward = schema.load_reward({"kind": "reward_model", "path": str(step.output)})
    scores = [reward(rows["prompt"][:], rows[side][:], **columns) for side in ("chosen", "rejected")]
    mean = sum(map(sum, scores)) / (2 * len(rows))
    without = sum(reward(rows["prompt"][:], rows["chosen"][:]))
    calibration = json.loads((step.output / "reward_calibration.json").read_text())
    assert calibration["mean"][0] == pytest.approx(mean, abs=1e-5)
    assert abs(without - sum(scores[0])) > 1e-3


def test_no_kl_of_a_policy_with_another_vocabulary(chained, model, tmp_path):
    scored = {"ours": str(chained["score"].output), "theirs": of_another(chained["score"], tmp_path)}
    block = {"kind": "compare", "scored": scored, "baseline": "ours", "reference": {"model_name_or_path": model}}
    step = run_recipe(tmp_path, {"compared": block})["compared"]
    result = json.loads((step.output / "evaluation.json").read_text())
    assert result["policies"]["ours"]["kl"]["mean"] == pytest.approx(0, abs=1e-4)
    assert result["policies"]["theirs"]["kl"] is None
    assert "theirs: no KL, its vocabulary is not that of the reference" in (step.output / "summary.txt").read_text()
    assert "lengths in tokens are of different vocabularies" in result["notes"][-1]


@pytest.mark.parametrize("key", ["reference", "trained", "first"])
def test_a_monitor_compares_within_one_vocabulary(chained, model, tmp_path, capsys, key):
    other = of_another(chained["score"], tmp_path)
    block = {"kind": "monitor", "scored": other, key: {"model_name_or_path": model}}
    if key == "first":
        block["first"] = str(chained["score"].output)
    said = refused(tmp_path, {"monitor": block}, capsys)
    assert f"stages.monitor.{key}: " in said
    assert "another vocabulary" in said


def test_lists_of_another_vocabulary_are_refused_before_a_training(lists, block, tmp_path, capsys):
    stages = {"prefer": {**block, "data": of_another(lists["ranked"], tmp_path)}}
    assert "data: row 0 was sampled with another vocabulary" in refused(tmp_path, stages, capsys)


def test_a_prompt_that_the_template_refuses_is_named(with_tools, tmp_path, capsys, write):
    tokenizer = AutoTokenizer.from_pretrained(with_tools)
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}a"
    shutil.copytree(with_tools, tmp_path / "refuses")
    tokenizer.save_pretrained(tmp_path / "refuses")
    rows = [{"prompt": [{"role": role, "content": "a"}]} for role in ("user", "system")]
    block = {"model": {"model_name_or_path": str(tmp_path / "refuses")}, "prompts": write("prompts.jsonl", rows)}
    said = refused(tmp_path, {"sample": block}, capsys)
    assert "prompts.jsonl, row 1: the chat template says: no system" in said
