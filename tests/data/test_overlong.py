"""Prompts that are too long: left out, cut at their left, or refused, with their row and what cures it."""

import json
import shutil

import pytest
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import write_recipe

from trimtab.pipelines.data import forms
from trimtab.pipelines.data.audit.checking import Audit, Reader
from trimtab.pipelines.planning import preflight, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.rewards._rendering import prompt_ids

PLACE = ("stages", "sample", "prompts")
ROOM = 8


def said(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


LONG = " ".join(f"word{n}" for n in range(40))
PROMPTS = [said(f"say {n}") for n in range(18)] + [
    said(LONG + " last?"),
    said(LONG, "no", "then say b", system="Brief."),
]


@pytest.fixture(scope="module")
def tokenizer(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


@pytest.fixture
def look(tokenizer, write, tmp_path):
    """Looks at prompts under a block's keys, for a policy with a context of 64 tokens."""
    step = Recipe.load(str(write_recipe(tmp_path, {"world": {}}))).steps[0]
    path = write("prompts.jsonl", [{"prompt": prompt, "n": n} for n, prompt in enumerate(PROMPTS)])

    def look(form=forms.PROMPTS, path=path, context=64, **keys):
        block = schema.instance(forms.DataMixture, schema.coerce({"path": path, **keys}, forms.Data, PLACE))
        audit = Audit(step, tokenizer=tokenizer, readers=[Reader("the policy", tokenizer, context, ROOM)])
        audit.check(block, "prompts", form)
        return audit.kept(block, "prompts", form)

    return look


def test_what_fits_is_left_as_it_was(look):
    rows, counts = look(context=1000)
    assert rows["prompt"][:] == PROMPTS
    assert counts == {"prompts/rows": 20}
    again, _ = look(context=1000, max_prompt_tokens=992, overlong="truncate_left")
    assert again["prompt"][:] == PROMPTS


def test_longer_prompts_than_are_wanted_are_left_out_and_counted(look):
    rows, counts = look(context=1000, max_prompt_tokens=30)
    assert rows["n"][:] == list(range(18))
    assert counts == {"prompts/rows": 18, "prompts/dropped/overlong": 2}


@pytest.mark.parametrize("keys", [{"max_prompt_tokens": 30}, {}])
def test_or_refused_with_their_row_and_the_cure(keys, look):
    with pytest.raises(RecipeError) as raised:
        look(overlong="error", **keys)
    assert "prompts.jsonl, row 18: the prompt has " in raised.value.message
    assert "as in 2 of 20 rows" in raised.value.message
    assert "`overlong: drop` or `overlong: truncate_left`" in raised.value.message


@pytest.mark.parametrize(("keys", "limit"), [({"max_prompt_tokens": 30}, 30), ({}, 64 - ROOM)])
def test_or_cut_at_their_left_until_every_one_fits(keys, limit, look, tokenizer):
    rows, counts = look(overlong="truncate_left", **keys)
    assert counts["prompts/rows"] == 20
    assert sum(count for name, count in counts.items() if "/truncated/" in name) in (2, 4)
    assert rows["prompt"][:18] == PROMPTS[:18]
    assert all(len(prompt_ids(tokenizer, prompt)) <= limit for prompt in rows["prompt"])
    (cut,) = rows[18]["prompt"]
    assert cut["content"].endswith("last?")
    assert cut["content"] in PROMPTS[18][0]["content"]
    assert rows[19]["prompt"] == said("then say b", system="Brief.")


def test_the_default_leaves_out_a_few_and_refuses_many(look, write):
    _, counts = look()
    assert counts == {"prompts/rows": 18, "prompts/dropped/beyond_context": 2}
    many = write("many.jsonl", [{"prompt": prompt, "n": n} for n, prompt in enumerate(PROMPTS[9:])])
    with pytest.raises(RecipeError, match="row 9: the prompt has"):
        look(path=many)
    assert look(path=many, overlong="drop")[1]["prompts/dropped/beyond_context"] == 2


def test_prompts_of_what_is_learned_are_counted_too(look, write):
    answer = [{"role": "assistant", "content": "b"}]
    path = write("sft.jsonl", [{"prompt": prompt, "completion": answer} for prompt in PROMPTS])
    _, counts = look(forms.SFT, path, max_prompt_tokens=30)
    assert counts["prompts/dropped/overlong"] == 2
    rows, counts = look(forms.SFT, path, max_prompt_tokens=30, overlong="truncate_left")
    assert (len(rows), counts["prompts/truncated/overlong"]) == (20, 2)
    chats = write("chats.jsonl", [{"messages": prompt + answer} for prompt in PROMPTS])
    with pytest.raises(RecipeError, match="these rows have messages: write `overlong: drop`"):
        look(forms.SFT, chats, max_prompt_tokens=30, overlong="truncate_left")


def test_keys_that_nobody_would_look_at_are_refused(look):
    with pytest.raises(RecipeError, match="a stage that samples or trains"):
        look(forms.COMPLETIONS, max_prompt_tokens=30)


@pytest.fixture
def chain(model, write, tmp_path):
    """A plan of a chain in which nothing has run, on a model with a context of 64 tokens and one with a longer one."""
    small = tmp_path / "small"
    shutil.copytree(model, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    prompts = write("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    train = {"max_length": 32, "max_steps": 1}
    short = {"model": {"model_name_or_path": str(small)}, "data": write("sft.jsonl", SFT_ROWS), "train": train}

    def refusals(policy, rewarded="$helpful", reward=None, **keys):
        stages = {
            "sft": short,
            "helpful": {"kind": "reward", "model": {"model_name_or_path": "$sft"}, "train": train,
                        "data": write("pairs.jsonl", PAIR_ROWS)},
            "sample": {"model": {"model_name_or_path": policy}, "prompts": {"path": prompts, **keys},
                       "generate": {"max_new_tokens": ROOM}},
            "score": {"completions": "$sample",
                      "rewards": {"helpful": {"kind": "reward_model", "path": rewarded, **(reward or {})}}},
        }  # fmt: skip
        recipe = Recipe.load(str(write_recipe(tmp_path, stages, wandb=False)))
        try:
            preflight.check(recipe, recipe.steps)
        except RecipeError as error:
            return [mistake.message for mistake in error.mistakes]
        return []

    return refusals


def test_a_reward_that_has_still_to_be_trained_cannot_read_a_prompt_and_the_plan_says_so(chain, model):
    (message,) = chain(model)
    assert "prompts.jsonl, row 18: the prompt fills the context of the reward helpful (64 tokens), as 2 do" in message
    assert "score would stop at its completions. Write `max_prompt_tokens: 56`" in message
    assert chain(model, max_prompt_tokens=56) == []
    assert chain(model, max_prompt_tokens=56, overlong="truncate_left") == []
    assert chain(model, reward={"on_failure": "abstain"}) == []


def test_so_is_a_policy_that_has_still_to_be_trained(chain):
    assert chain("$sft") == []  # two of twenty are left out
    (message,) = chain("$sft", overlong="error")
    assert "row 18: the prompt has" in message
    assert "the context of" in message
