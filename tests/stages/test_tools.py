"""A policy that calls a tool: GRPO's rollout runs it, the answer has what it said, and the reward reads that."""

import json

import pytest
from outputs import metrics_of
from run_steps import run_recipe

ANSWERS = 4  # to two prompts
CALL = '<tool_call>\n{"name": "double", "arguments": {"number": 3}}\n</tool_call>'
TOOL = '''
from pathlib import Path

def double(number: int) -> str:
    """Doubles a number.

    Args:
        number: what is doubled.

    Returns:
        Twice as much.
    """
    with Path(__file__).with_name("calls").open("a") as file:
        file.write(f"{number}\\n")
    return f"it is {2 * number}"

def told(completions, **columns):
    """How many messages of an answer are the tool's."""
    said = [[message["content"] for message in answer if message["role"] == "tool"] for answer in completions]
    return [float(messages.count("it is 6")) for messages in said]
'''


@pytest.fixture
def caller(model, tmp_path):
    """A model with the template of a family that calls tools, and a call of one as a single token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.chat_template_utils import qwen3_instruct_2507_chat_template

    folder = tmp_path / "caller"
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = qwen3_instruct_2507_chat_template
    tokenizer.add_tokens([CALL, "<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token = "<|im_end|>"
    policy = AutoModelForCausalLM.from_pretrained(model)
    policy.resize_token_embeddings(len(tokenizer))
    policy.config.max_position_embeddings = 4096
    policy.config.eos_token_id = policy.generation_config.eos_token_id = tokenizer.eos_token_id
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_policy_learns_from_answers_in_which_a_tool_has_spoken(caller, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_tools.py").write_text(TOOL)
    asked = [[{"role": "user", "content": f"double {number}"}] for number in range(4)]
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": CALL}]} for prompt in asked]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in asked))
    stages = {
        "sft": {"model": {"model_name_or_path": caller}, "data": str(tmp_path / "calls.jsonl"),
                "train": {"max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "max_length": 512,
                          "lr_scheduler_type": "constant"}},
        "grpo": {"model": {"model_name_or_path": "$sft"}, "data": str(tmp_path / "prompts.jsonl"),
                 "tools": ["own_tools.double"],
                 "rewards": {"told": {"kind": "trl_function", "path": f"{tmp_path / 'own_tools.py'}:told"}},
                 "must_learn": False,  # where all answers have called alike
                 "train": {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": ANSWERS,
                           "max_completion_length": 200, "max_tool_calling_iterations": 2, "learning_rate": 1e-3}},
    }  # fmt: skip
    metrics = metrics_of(run_recipe(tmp_path, stages)["grpo"])
    calls = (tmp_path / "calls").read_text().split()
    assert set(calls) == {"3"}
    assert 0.5 < metrics["train/rewards/told/mean"] <= len(calls) / ANSWERS  # what is cut off an answer is not in it
    assert metrics["train/tools/call_frequency"] == len(calls) / ANSWERS
    assert metrics["train/tools/failure_frequency"] == 0
