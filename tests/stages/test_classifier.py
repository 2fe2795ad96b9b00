"""The stage `classifier`: labels of any kind, their names in the model, and what a reward reads of them."""

import pytest
from outputs import metrics_of
from run_steps import refused, run_recipe
from transformers import AutoConfig, AutoTokenizer

from trimtab.rewards.classifier import Classifier

TRAIN = {"max_steps": 20, "learning_rate": 3e-2, "per_device_train_batch_size": 12, "gradient_checkpointing": False}


def texts(names):
    """Rows whose first word says their label."""
    words = ["a a", "b b", "say c"]
    return [{"text": f"{words[i % len(names)]} {i}", "label": names[i % len(names)]} for i in range(12)]


@pytest.mark.parametrize("lora", [{}, {"use_peft": True, "lora_r": 4}])
@pytest.mark.parametrize("names", [["red", "green", "blue"], [7, 1, 40]], ids=["words", "numbers"])
def test_the_model_names_its_classes_and_a_reward_reads_them(names, lora, model, write, tmp_path):
    rows = texts(names)
    data = write("rows.jsonl", rows)
    block = {"model": {"model_name_or_path": model, **lora}, "data": data, "eval_data": data, "train": TRAIN}
    block["audit"] = {"overlap": "warn"}
    step = run_recipe(tmp_path, {"classifier": block})["classifier"]
    config = AutoConfig.from_pretrained(step.output)
    assert AutoTokenizer.from_pretrained(step.output).pad_token == AutoTokenizer.from_pretrained(model).pad_token
    assert config.id2label == dict(enumerate(map(str, sorted(names))))
    assert config.label2id == {str(name): number for number, name in enumerate(sorted(names))}
    accuracy = metrics_of(step)["eval/accuracy"]
    assert lora or accuracy > 0.9
    reward = Classifier(path=str(step.output), separator="\t", turns=0)
    reward.render = lambda prompt, completion: completion
    scores = reward([""] * 12, [row["text"] for row in rows], label=[row["label"] for row in rows])
    assert sum(scores) / 12 == pytest.approx(accuracy)
    with pytest.raises(ValueError, match="label 5 is none of "):
        reward([""], ["a"], label=[5])


def test_labels_in_another_order_than_the_models_are_refused(model, write, tmp_path):
    block = {"model": {"model_name_or_path": model}, "data": write("rows.jsonl", texts(["red", "blue"])),
             "train": {**TRAIN, "max_steps": 1}}  # fmt: skip
    path = str(run_recipe(tmp_path, {"classifier": block})["classifier"].output)
    with pytest.raises(ValueError, match="has its classes in the order blue, red: leave `labels` out"):
        Classifier(path=path, labels=["red", "blue"])([""], ["a"], label=["red"])
    assert Classifier(path=path, labels=["B", "R"])([""], ["a"], label=["R"])[0] in (0, 1)


def test_a_label_of_eval_data_that_training_does_not_have_is_found_before_the_launch(model, write, tmp_path, capsys):
    block = {"model": {"model_name_or_path": model}, "data": write("rows.jsonl", texts(["red", "blue"])),
             "eval_data": write("test.jsonl", texts(["red", "blue", "grey"])), "train": TRAIN}  # fmt: skip
    error = refused(tmp_path, {"classifier": block}, capsys)
    assert "stages.classifier.eval_data: " in error
    assert "test.jsonl, row 2: label 'grey' does not occur in `data` (it has: 'blue', 'red')" in error
