"""The reference pages: examples in their language, and what the annotations of a kind say of its keys."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import trl

from trimtab.pipelines.data.forms import PREFERENCE, SCORED, Data
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.field_types import KeysOf, ModelName, WordOf, hints
from trimtab.pipelines.planning.reward_blocks import ConstrainedReward, RewardBlock
from trimtab.pipelines.reporting import docstrings, reference
from trimtab.pipelines.reporting.keys import default_text, type_text


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("apo: {rounds: 3, model: {model_name_or_path: $sft}}", "yaml"),
        ("pair: {select: all}    # all of them\npair: {select: ends}", "yaml"),
        ('{"prompt_index": 0, "choice": 2}\n{"prompt_index": 1, "ranking": [3, 0, 1]}', "json"),
        ("import trl\n\nclass Kto(TrainerStage):\n    train: trl.KTOConfig", "python"),
        ("sample    K completions of each prompt\nscore     by every reward, `monitor` then says", "text"),
        ("sat     no multipliers: minus the squared distances\nfixed   no multipliers: the weighted sum", "text"),
    ],
)
def test_an_example_is_in_the_language_that_it_parses_as(code, language):
    assert docstrings.language(code) == language


def test_prose_stays_prose_and_examples_become_code():
    text = "Kind `a`: one.\n\n    a: {b: 1}\n\n      c\n\n- `sum`: two\n  lines: of it\n\nrewards: {d: {kind: e}}\n"
    assert docstrings.markdown(text) == (
        "Kind `a`: one.\n\n```text\na: {b: 1}\n\n  c\n```\n\n- `sum`: two\n  lines: of it\n\n"
        "```yaml\nrewards: {d: {kind: e}}\n```"
    )
    assert docstrings.summary("Reward kind `a_b`: one thing,\nand another.\n\nMore.") == "one thing, and another"


@dataclass(kw_only=True)
class Block:
    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig", "monitor"))]
    data: Annotated[Data | None, PREFERENCE] = None
    scored: dict[str, Annotated[Data, SCORED]] = field(default_factory=dict)
    base: ModelName | None = None
    rewards: dict[str, RewardBlock] = field(default_factory=lambda: {"a": {"kind": "gold"}})
    held: dict[str, ConstrainedReward] = field(default_factory=dict)
    loss: Annotated[str, WordOf(kinds.LOSSES)] = "dpo"
    momentum: float | list[float] = 1e-6
    separator: str = "\n"
    arm: Literal["fresh", "warm"] = "fresh"
    path: Path | None = None
    limit: float = float("inf")
    train: trl.SFTConfig

    neutral: ClassVar[tuple[str, ...]] = ("limit",)


@pytest.mark.parametrize(
    ("key", "type_", "default"),
    [
        ("model", "keys of `trl.ModelConfig` or [`monitor`](#monitor)", "required"),
        ("data", "data or null", "`null`"),
        ("scored", "mapping of string to data", "`{}`"),
        ("base", "model or null", "`null`"),
        ("rewards", "mapping of string to [reward block](rewards.md)", "`{a: {kind: gold}}`"),
        (
            "held",
            "mapping of string to [reward block](rewards.md) with `threshold`, `constraint` and `weight`",
            "`{}`",
        ),
        ("momentum", "float or list of float", "`1.0e-06`"),
        ("separator", "string", '`"\\n"`'),
        ("arm", "`fresh` or `warm`", "`fresh`"),
        ("path", "path or null", "`null`"),
        ("limit", "float", "`.inf`"),
        ("train", "`trl.SFTConfig`", "required"),
    ],
)
def test_types_and_defaults_are_those_of_yaml(key, type_, default):
    assert type_text(hints(Block)[key]) == type_
    assert default_text(Block.__dataclass_fields__[key]) == default


def test_a_key_that_takes_a_word_lists_all_of_them():
    words = kinds.words(kinds.LOSSES)
    assert type_text(hints(Block)["loss"]) == "one of " + ", ".join(f"`{word}`" for word in words)


def part(page: str, heading: str) -> str:
    return re.split(r"^## ", page.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def test_a_stage_says_what_its_data_holds_what_is_reported_and_what_is_neutral():
    page = reference.page("stages.md")
    dpo = part(page, "dpo")
    assert "- **Rows** of `data` and `eval_data` hold `chosen` + `rejected`." in dpo
    assert "- **Report**: curves _Loss_, _Reward margin_, _Pairs ranked right_; numbers" in dpo
    neutral = "`must_learn`, `keep`, in `train` the [neutral training arguments](#neutral-training-arguments)"
    assert f"- **Neutral**: {neutral}." in dpo
    assert "`logging_steps`" in part(page, "Neutral training arguments")
    assert re.search(r"\[`score`\]\(#score\)[^.]* leaves? them\.", part(page, "compare"))
    assert "section _Evaluation_" in part(page, "compare")
    assert "one point for each round" in part(page, "monitor")
    assert "**Neutral**: `device`." in part(reference.page("rewards.md"), "reward_model")


def test_keys_that_stages_share_are_explained_once():
    page = reference.page("stages.md")
    assert page.count("| `vllm` | mapping |") == page.count("\n## Sampling\n") == 1
    assert page.count("| `lam` |") == page.count("\n## Critic settings\n") == 1
    further = "**Further keys**: `generate`, `sample_batch_size`, `engine`, `vllm`, `server`, `ray` and `audit`"
    assert further in part(page, "apo")
    assert "| `num_generations` | int | `5` |" in part(page, "apo")


@pytest.mark.parametrize("name", reference.PACKAGES)
def test_every_link_inside_a_page_leads_somewhere(name):
    page = reference.page(name)
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##? (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings
    assert all(f"| [{word}](#{word}) |" in page for word in kinds.words(reference.PACKAGES[name]))
