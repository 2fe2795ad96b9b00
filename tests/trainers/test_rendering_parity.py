"""What rewards/_rendering.py makes of a row is token by token what each trainer of trl prepares of it."""

from functools import cache
from typing import Any

import datasets
import pytest
import trl
from chat_templates import AROUND, TEMPLATES, tokenizer
from datasets import Dataset
from jinja2 import TemplateError
from tiny_trainers import CPU, reward_functions

from trimtab.pipelines.trainers.listwise_reward import ListwiseRewardTrainer
from trimtab.rewards._rendering import Unrenderable, added, prompt_ids, render

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"city": {"type": "string"}}}}
OTHER_TOOL = {"type": "function", "function": {"name": "songs", "parameters": {"artist": {"type": "string"}}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


SYSTEM, ASK, ANSWER = say("system", "Be brief."), say("user", "Name a colour."), say("assistant", "It is blue.")
WARM, TEXT_PART = say("assistant", "It is warm."), {"type": "text", "text": "It is blue. "}
# (prompt, two answers, what else is in the row)
SHAPES = {
    "one turn": ([ASK], [ANSWER], [WARM], {}),
    "system": ([SYSTEM, ASK], [ANSWER], [WARM], {}),
    "turns": ([ASK, ANSWER, say("user", "Why?")], [WARM], [ANSWER], {}),
    "turns with thoughts": ([ASK, say("assistant", "<think>sky</think>Blue."), ASK], [ANSWER], [WARM], {}),
    "answer with thoughts": ([ASK], [say("assistant", "<think>\nsky\n</think>Blue.")], [ANSWER], {}),
    "prefill": ([ASK, say("assistant", "It is")], [say("assistant", " blue.")], [WARM], {}),
    "user's end": ([ASK], [ANSWER, say("user", "Thanks.")], [WARM], {}),
    "empty answer": ([ASK], [say("assistant", "")], [WARM], {}),
    "empty question": ([say("user", "")], [ANSWER], [WARM], {}),
    "only a system message": ([SYSTEM], [ANSWER], [WARM], {}),
    "spaces": ([say("user", " Why? \n")], [say("assistant", "\n It is. ")], [WARM], {}),
    "tools": ([ASK], [ANSWER], [WARM], {"tools": [TOOL, OTHER_TOOL]}),
    "tool called": ([ASK, say("assistant", "", tool_calls=[CALL]), say("tool", "12 degrees")], [WARM], [ANSWER],
                    {"tools": [TOOL]}),
    "no tools": ([ASK], [ANSWER], [WARM], {"tools": []}),
    "no thinking": ([ASK], [ANSWER], [WARM], {"chat_template_kwargs": {"enable_thinking": False}}),
    "persona": ([ASK], [ANSWER], [WARM], {"chat_template_kwargs": {"persona": "Be a cat."}}),
}  # fmt: skip
PART_SHAPES = {  # datasets does not mix them with strings
    "parts": ([say("user", [TEXT_PART])], [say("assistant", [TEXT_PART])], [say("assistant", [TEXT_PART] * 2)], {}),
}
TEXT_SHAPES = {
    "text": ("Name a colour. ", "It is blue.", "It is warm.", {}),
    "text that ends": ("Name a colour.", " blue</s>", " warm", {}),
    "text without a space": ("Name a col", "our", "d", {}),
    "empty prompt": ("", "It is blue.", "It is warm.", {}),
    "empty text": ("Name a colour.", "", " warm", {}),
}


def preference_rows(shapes: dict[str, tuple]) -> list[dict[str, Any]]:
    neutral = {"tools": None, "chat_template_kwargs": {}}  # trl takes no null for the second
    return [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, **neutral, **more}
        for prompt, chosen, rejected, more in shapes.values()
    ]


def as_dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows, on_mixed_types="use_json")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def trainer(model, tmp_path_factory):
    """A trainer of a class with a tokenizer, built once: only how it prepares rows is asked of it."""
    folder = tmp_path_factory.mktemp("parity")
    pairs = preference_rows({"text": TEXT_SHAPES["text"]}) * 2
    rows = {
        trl.SFTTrainer: [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs],
        trl.KTOTrainer: [{"prompt": "a", "completion": "b", "label": True}] * 2,
        trl.GRPOTrainer: [{"prompt": "a"}] * 2,
        ListwiseRewardTrainer: [{"prompt": "a", "completions": ["b", "c"]}] * 2,
    }
    configs = {trl.SFTTrainer: trl.SFTConfig, trl.DPOTrainer: trl.DPOConfig, trl.KTOTrainer: trl.KTOConfig,
               trl.GRPOTrainer: trl.GRPOConfig}  # fmt: skip

    @cache
    def build(cls):
        limits = {"num_generations": 2, "per_device_train_batch_size": 2} if cls is trl.GRPOTrainer else {}
        limits = limits or {"max_length": None, "per_device_train_batch_size": 2}
        args = configs.get(cls, trl.RewardConfig)(str(folder), **CPU, **limits)
        extra = {"reward_funcs": reward_functions()} if cls is trl.GRPOTrainer else {}
        return cls(model=model, args=args, train_dataset=as_dataset(rows.get(cls, pairs)), **extra)

    def told(cls, tokens):
        worker = build(cls)
        worker._tokenizer = worker.processing_class = tokens
        return worker

    return told


def sft(trainer, rows, tokens):
    """Of every row the token ids, and where the answer begins, as SFT prepares prompts with completions."""
    given = [{**row, "completion": row["chosen"]} for row in rows]
    given = [{key: value for key, value in row.items() if key not in ("chosen", "rejected")} for row in given]
    worker = trainer(trl.SFTTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(given), tokens, worker.args, False, None, "train")
    rendered = [render(tokens, row["prompt"], row["chosen"], row) for row in rows]
    expected = [[-100] * answer.start + answer.ids[answer.start :] for answer in rendered]
    return list(zip(ready["input_ids"], ready["labels"], strict=True)), [
        (answer.ids, labels) for answer, labels in zip(rendered, expected, strict=True)
    ]


def sft_messages(trainer, rows, tokens):
    """The same of whole conversations, or texts."""
    is_text = isinstance(rows[0]["prompt"], str)
    column = "text" if is_text else "messages"
    given = [{**row, column: row["prompt"] + row["chosen"]} for row in rows]
    given = [{key: row[key] for key in (column, "tools", "chat_template_kwargs")} for row in given]
    worker = trainer(trl.SFTTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(given), tokens, worker.args, False, None, "train")
    return list(ready["input_ids"]), [render(tokens, None, row[column], row).ids for row in given]


def dpo(trainer, rows, tokens):
    worker = trainer(trl.DPOTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(rows), tokens, worker.args, "train")
    expected = []
    for row in rows:
        chosen, rejected = (render(tokens, row["prompt"], row[side], row) for side in ("chosen", "rejected"))
        start = min(chosen.start, rejected.start)
        expected.append((chosen.ids[:start], chosen.ids[start:], rejected.ids[start:]))
    return list(zip(ready["prompt_ids"], ready["chosen_ids"], ready["rejected_ids"], strict=True)), expected


def kto(trainer, rows, tokens):
    given = [{**row, "completion": row["chosen"], "label": True} for row in rows]
    given = [{key: value for key, value in row.items() if key not in ("chosen", "rejected")} for row in given]
    worker = trainer(trl.KTOTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(given), tokens, worker.args, "train")
    rendered = [render(tokens, row["prompt"], row["chosen"], row) for row in rows]
    return list(zip(ready["prompt_ids"], ready["completion_ids"], strict=True)), [
        (answer.ids[: answer.start], answer.ids[answer.start :]) for answer in rendered
    ]


def reward(trainer, rows, tokens):
    worker = trainer(trl.RewardTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(rows), tokens, worker.args, "train")
    return list(zip(ready["chosen_ids"], ready["rejected_ids"], strict=True)), [
        tuple(render(tokens, row["prompt"], row[side], row).ids for side in ("chosen", "rejected")) for row in rows
    ]


def whole_reward(trainer, rows, tokens):
    """Pairs of whole conversations, without a prompt."""
    given = [{**row, **{side: row["prompt"] + row[side] for side in ("chosen", "rejected")}} for row in rows]
    given = [{key: value for key, value in row.items() if key != "prompt"} for row in given]
    worker = trainer(trl.RewardTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(given), tokens, worker.args, "train")
    return list(zip(ready["chosen_ids"], ready["rejected_ids"], strict=True)), [
        tuple(render(tokens, None, row[side], row).ids for side in ("chosen", "rejected")) for row in given
    ]


def listwise(trainer, rows, tokens):
    """Our trainer of rankings."""
    given = [{**row, "completions": [row["chosen"], row["rejected"]]} for row in rows]
    worker = trainer(ListwiseRewardTrainer, tokens)
    ready = worker._prepare_dataset(as_dataset(given), tokens, worker.args, "train")
    return list(ready["ranked_ids"]), [
        [render(tokens, row["prompt"], row[side], row).ids for side in ("chosen", "rejected")] for row in rows
    ]


def grpo(trainer, rows, tokens):
    """Prompts, which trl renders without the row's tools and settings, and with the end where a tokenizer adds one."""
    worker = trainer(trl.GRPOTrainer, tokens)
    plain = [row for row in rows if not row["tools"] and not row["chat_template_kwargs"]]
    ready = worker._tokenize_prompts([row["prompt"] for row in plain])[0]
    behind = len(added(tokens)[1])
    return [ids[: len(ids) - behind] for ids in ready], [prompt_ids(tokens, row["prompt"], row) for row in plain]


PREPARED = [sft, sft_messages, dpo, kto, reward, whole_reward, listwise, grpo]


@cache
def chats(template: str, parts: bool = False) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """The tokenizer, the rows that its template renders and those that it refuses."""
    tokens, rendered, refused = tokenizer(template, "a beginning"), [], []
    for row in as_dataset(preference_rows(PART_SHAPES if parts else SHAPES)):
        try:
            for answer in (row["chosen"], row["rejected"]):
                render(tokens, row["prompt"], answer, row)
        except Unrenderable:
            refused.append(row)
        else:
            rendered.append(row)
    return tokens, rendered, refused


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_conversation_is_rendered_as_it_is_trained(trainer, template, prepare):
    for parts in (False, True):
        tokens, rows, _ = chats(template, parts)
        if rows:
            trained, rendered = prepare(trainer, rows, tokens)
            assert trained == rendered


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_refused_is_what_trl_refuses(trainer, template):
    tokens, rows, refused = chats(template)
    assert len(rows) >= 8
    for row in refused:
        with pytest.raises((TemplateError, TypeError)):  # of jinja2, or of Python inside of the template
            sft(trainer, [row], tokens)


@pytest.mark.parametrize("prepare", PREPARED, ids=lambda prepare: prepare.__name__)
@pytest.mark.parametrize("around", AROUND)
def test_text_is_rendered_as_it_is_trained(trainer, around, prepare):
    tokens = tokenizer(around=around)
    trained, rendered = prepare(trainer, preference_rows(TEXT_SHAPES), tokens)
    assert trained == rendered
