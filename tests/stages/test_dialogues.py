"""The dialogue task: its data, the intent classifier, METEOR and the metric of a set of replies."""

import json

import pytest
import torch
from conftest import ROOT
from run_steps import run_recipe
from transformers import AutoModelForSequenceClassification

from trimtab.pipelines.planning import schema
from trimtab.pipelines.recording import artifacts
from trimtab.rewards import dialogue_metric
from trimtab.rewards.classifier import Classifier
from trimtab.rewards.dialogue_metric import DialogueMetric
from trimtab.rewards.meteor import Meteor

DIALOGUES = [
    {"dialog": ["Hello .", "Hi , how are you ?", "Fine , thanks .", "Good  to hear ."], "act": [1, 2, 1, 3]},
    {"dialog": ["Close the door .", "All right ."], "act": [3, 4]},
] * 6


@pytest.fixture(scope="module")
def steps(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dialogues")
    (folder / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DIALOGUES))
    return run_recipe(
        folder,
        {
            "dialogues": {"data": str(folder / "dialogues.jsonl"), "context": 2},
            "classifier": {
                "model": {"model_name_or_path": model},
                "data": "$dialogues/labels",
                "eval_data": "$dialogues/labels",
                "audit": {"overlap": "warn"},
                "train": {"learning_rate": 1e-2, "num_train_epochs": 12, "per_device_train_batch_size": 8},
            },
        },
    )


def test_dialogues_become_replies_prompts_and_labels(steps):
    from datasets import load_dataset

    def rows(name):
        return list(load_dataset(str(steps["dialogues"].output / name), split="train"))

    assert rows("replies")[:2] == [
        {"prompt": "Hello .\nHi , how are you ?\n", "completion": "Fine , thanks ."},
        {"prompt": "Hi , how are you ?\nFine , thanks .\n", "completion": "Good to hear ."},
    ]
    assert rows("prompts")[0] == {
        "prompt": "Hello .\nHi , how are you ?\n",
        "reference": "Fine , thanks .",
        "intent": 1,
    }
    assert rows("labels")[3] == {"text": "Close the door .\nAll right .\n", "label": 3}
    assert len(rows("labels")) == 24


def test_a_long_context_loses_its_first_turns():
    from trimtab.pipelines.stages.dialogues import Dialogues

    stage = Dialogues(data=None, max_words=5)
    assert stage._prompt(["one two three", "four five", "six"]) == "four five\nsix\n"
    assert stage._prompt(["one two three four five six"]) is None


def test_the_classifiers_adapters_are_merged_into_one_of_as_many_labels(model, write, tmp_path):
    rows = [{"text": f"{'abc'[i % 3]} {i}", "label": i % 3} for i in range(12)]
    block = {
        "model": {"model_name_or_path": model, "use_peft": True, "lora_r": 4},
        "data": write("texts.jsonl", rows),
        "train": {"max_steps": 2, "learning_rate": 1e-2, "gradient_checkpointing": False},
    }
    made = [
        run_recipe(tmp_path, {"classifier": block}, output_dir=str(tmp_path / name))["classifier"] for name in "ab"
    ]
    merged = [AutoModelForSequenceClassification.from_pretrained(step.output) for step in made]
    assert [each.num_labels for each in merged] == [3, 3]
    for one, other in zip(*(each.parameters() for each in merged), strict=True):  # also the new head and adapters
        assert torch.equal(one, other)


def test_the_classifier_learns_and_is_a_reward(steps):
    metrics = artifacts.read_done(steps["classifier"].dir)["metrics"]
    assert metrics["eval/accuracy"] == 1
    block = {"kind": "classifier", "path": str(steps["classifier"].output), "column": "intent", "labels": [1, 2, 3, 4]}
    reward = schema.load_reward(block)
    prompts = ["Hello .\n", "Hello .\n", "x\nClose the door .\n"]
    assert reward(prompts, ["Hi , how are you ?"] * 2 + ["All right ."], intent=[2, 1, 4]) == [1, 0, 1]
    likely = schema.load_reward({**block, "probability": True})(prompts[:1], ["Hi , how are you ?"], intent=[2])
    assert 0.5 < likely[0] <= 1
    with pytest.raises(ValueError, match="the data has no column 'intent'"):
        reward(prompts, ["a", "b", "c"])
    with pytest.raises(ValueError, match="intent 7 is none of 1, 2, 3, 4"):
        reward(prompts[:1], ["a"], intent=[7])
    with pytest.raises(ValueError, match="4 classes, and `labels` names 2"):
        schema.load_reward({**block, "labels": [1, 2]})(prompts[:1], ["a"], intent=[1])


def test_the_classifier_reads_the_last_turns_and_the_reply():
    reward = Classifier(path="x", turns=2)
    assert reward.render("a\nb\n c \n", "d\ne") == "b\nc\nd e\n"
    chat = [{"role": "user", "content": "a\nb"}]
    assert Classifier(path="x", turns=0).render(chat, [{"role": "assistant", "content": "c"}]) == "c\n"


def test_meteor_by_words_and_stems():
    """Worked by hand: matches over a fragmentation penalty of 0.5 (chunks / matches)^3 (Banerjee & Lavie 2005)."""
    same, stem, none = Meteor()(["p"] * 3, ["the cat sat", "The cats sat", "no"], reference=["the cat sat"] * 3)
    assert same == stem == pytest.approx(1 - 0.5 * (1 / 3) ** 3)
    assert none == 0
    # 2 of 3 words on each side, in 2 chunks: F = 2/3, penalty 0.5
    assert Meteor()(["p"], ["b x a"], reference=["a y b"]) == [pytest.approx(2 / 3 * 0.5)]
    assert Meteor()(["p"], ["a"], reference=[None]) == [None]
    with pytest.raises(ValueError, match="no column 'reference'"):
        Meteor()(["p"], ["a"])


def test_the_metric_of_a_set_of_replies():
    replies, references = ["a b c d .", "a b c d .", "e f g h"], ["a b c d .", "a b c d .", "x y z w v u"]
    found = dialogue_metric.parts(replies, references)
    assert found["unique_3"] == pytest.approx(2 / 3)  # efg, fgh
    assert found["vocab_3"] == pytest.approx(4 / 3)
    assert found["longest"] == pytest.approx(4 / 6)
    assert found["rouge_2"] == pytest.approx(2 / 3)
    assert dialogue_metric.parts(["a b"], ["x"])["longest"] == 2
    best = dialogue_metric.parts(references, references)
    assert [best[part] for part in ("bleu", "sacrebleu", "rouge_2")] == pytest.approx([1, 1, 1])
    metric = DialogueMetric(ranges={"unique_3": [0, 2], "vocab_3": [1, 2]})
    likeness = (found["sacrebleu"] + found["rouge_2"] + found["bleu"]) / 3
    diversity = (1 / 3 + 1 / 3 + found["longest"]) / 3
    assert metric(["p"] * 3, replies, reference=references) == [pytest.approx((likeness + diversity) / 2)] * 3
    with pytest.raises(ValueError, match="no part 'unik_3'"):
        DialogueMetric(ranges={"unik_3": [0, 1]})


def test_the_recipes_share_what_is_not_their_method():
    """Five files that differ in the constrained stage: a change to the rest of one is a change to all."""
    heads = {
        path.name: path.read_text().split("inputs:")[1].split("  constrained:\n")[0].split("  proxy_points:\n")[0]
        for path in (ROOT / "recipes" / "dailydialog").glob("*.yaml")
    }
    assert len(heads) == 5
    assert len(set(heads.values())) == 1
