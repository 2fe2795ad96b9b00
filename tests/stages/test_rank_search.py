"""Layers between two models, ranked by what a reward says of their completions, and a search that is killed."""

import json
import re
import shutil

import pytest
import torch
from outputs import logits, metrics_of
from run_steps import refused, run_recipe, write_recipe
from short_trainings import BRIEF, say, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.running import failures, labelling, runner
from trimtab.pipelines.sampling import transformers_engine
from trimtab.pipelines.scoring.policy_worth import PolicyWorth


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """The model, and one whose layers were moved."""
    folder = tmp_path_factory.mktemp("trained")
    moved = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            if "layers" in name:
                weight += 0.3 * weight.std() * torch.randn_like(weight)
    moved.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def stage(model, trained, prompts, **options):
    return {
        "kind": "rank_search",
        "model": {"model_name_or_path": trained},
        "base": model,
        "prompts": prompts,
        "rewards": {"brief": BRIEF},
        "reward": "brief",
        "rounds": 2,
        "points": 3,
        "ranked": 2,
        "line": 2,
        "generate": {"max_new_tokens": 5},
        **options,
    }


def weights(folder):
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


def test_the_artifact_lies_where_the_scales_say(model, trained, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(6))
    block = stage(model, trained, prompts, eval_prompts=prompts)
    step = run_recipe(tmp_path, {"search": block, "control": {**block, "method": "random"}})["search"]
    metrics = metrics_of(step)
    assert metrics["asked"] == 2 * (3 + 2 + 1)
    assert {"gain/mean", "gain/stderr", "reward/best", "distance"} <= set(metrics)
    scales = json.loads((step.output / "vector.json").read_text())
    assert list(scales) == ["0", "1"], "what no training has moved is not searched"
    base, end, made = weights(model), weights(trained), weights(step.output)
    for name, weight in made.items():
        scale = next((value for layer, value in scales.items() if f"layers.{layer}." in name), 0.0)
        torch.testing.assert_close(weight, base[name] + scale * (end[name] - base[name]))
    logged = [row["reward/best"] for row in tracking.read(step.dir / "metrics.jsonl") if "reward/best" in row]
    assert len(logged) == 2
    assert logits(step.output).isfinite().all()


def test_a_search_that_was_killed_asks_nothing_again(model, trained, tmp_path, monkeypatch):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(6))
    step = run_recipe(tmp_path, {"search": stage(model, trained, prompts)})["search"]
    scales = (step.output / "vector.json").read_text()
    asked = step.dir / "ranks.jsonl"
    whole = asked.read_text()
    assert whole.count("\n") == 4
    (step.dir / "done.json").unlink()
    shutil.rmtree(step.output)
    asked.write_text(whole[:-3])  # torn in its last line
    calls = []
    drawn = PolicyWorth.drawn
    monkeypatch.setattr(PolicyWorth, "drawn", lambda *given: calls.append(given) or drawn(*given))
    path = str(tmp_path / "recipe.yaml")
    assert runner.train(path) == 0
    assert len(calls) == 3, "the last line search alone"
    assert (Recipe.load(path).steps[0].output / "vector.json").read_text() == scales
    assert asked.read_text() == whole


def of_one(model, prompts, **options):
    """The stage without a second model."""
    return {key: value for key, value in stage(model, model, prompts, **options).items() if key != "base"}


def test_a_soft_prompt_is_the_embeddings_of_its_tokens_and_nothing_else(thinker, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(4))
    asked = {"kind": "preface", "prompts": prompts, "text": "<|thinking|><|/thinking|>"}
    block = of_one(thinker, "$asked", tokens=["<|thinking|>", "<|/thinking|>"])
    step = run_recipe(tmp_path, {"asked": asked, "search": block})["search"]
    vector = json.loads((step.output / "vector.json").read_text())
    ids = AutoTokenizer.from_pretrained(thinker).convert_tokens_to_ids(block["tokens"])
    before, after = weights(thinker), weights(step.output)
    assert len(vector) == 2 * 16
    for name, weight in after.items():
        if "embed_tokens" not in name:
            assert torch.equal(weight, before[name])
            continue
        moves = torch.tensor(list(vector.values())).reshape(2, 16)
        torch.testing.assert_close(weight[ids], before[name][ids] + before[name].std() * moves)
        others = torch.ones(len(weight), dtype=bool)
        others[ids] = False
        assert torch.equal(weight[others], before[name][others])


def test_settings_move_between_their_ends_and_are_what_is_drawn_with(model, tmp_path, monkeypatch):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(4))
    ends = {"temperature": [0.2, 1.8], "max_new_tokens": [1, 9]}
    configs = []
    make = transformers_engine.settings
    monkeypatch.setattr(transformers_engine, "settings", lambda *given: configs.append(make(*given)) or configs[-1])
    block = of_one(model, prompts, settings=ends, generate={"max_new_tokens": 5, "top_k": 7}, mu=3)
    step = run_recipe(tmp_path, {"search": block})["search"]
    found = json.loads((step.output / "vector.json").read_text())
    assert [(0.2 <= config.temperature <= 1.8, config.top_k) for config in configs] == [(True, 7)] * len(configs)
    lengths = [config.max_new_tokens for config in configs]
    assert {1, 9} <= set(lengths) <= set(range(1, 10)), "a spread of three times the range reaches both ends"
    assert configs[2 * 3].max_new_tokens in lengths
    written = json.loads((step.output / "generation_config.json").read_text())
    assert {key: written[key] for key in ends} == found
    assert found["max_new_tokens"] == 1, "which is what the reward wants"
    for name, weight in weights(step.output).items():
        assert torch.equal(weight, weights(model)[name])


def test_weights_of_rewards_move_towards_the_one_that_chooses_well(model, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(6))
    rewards = {"brief": BRIEF, "wordy": {"kind": "length", "target": 40, "unit": "characters"}}
    block = of_one(
        model, prompts, choose={"brief": 0.015, "wordy": 1}, rewards=rewards, num_generations=4, mu=1, rounds=6
    )
    step = run_recipe(tmp_path, {"search": {**block, "eval_prompts": prompts}})["search"]
    found = json.loads((step.output / "vector.json").read_text())
    assert found["brief"] / found["wordy"] > 1 / 40, "a character weighs 40 times as much for brief answers"
    assert metrics_of(step)["gain/mean"] > 0


def test_people_put_policies_in_order_and_the_search_waits_for_them(model, trained, tmp_path, capsys):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(3))
    block = stage(model, trained, prompts, oracle="people", rounds=1, rewards={}, reward={}, mu=3, stride=4)
    path = str(write_recipe(tmp_path, {"search": block}, wandb=False))
    step = Recipe.load(path).steps[0]
    shown = []
    for waits in (1, 2):
        assert runner.train(path) == failures.WAITS
        assert re.search(r"search waits for people: (\d) of \1 questions", capsys.readouterr().out)
        folder = labelling.asked(tmp_path / "runs" / "test")
        shown.append(folder.sheet)
        shortest = [
            sorted(range(len(one.answers)), key=lambda k, one=one: len(one.answers[k]))
            for one in folder.sheet.questions
        ]
        given = [
            Judgement(one.id, "ann", "ranked", tuple(order[: folder.sheet.ranked]))
            for one, order in zip(folder.sheet.questions, shortest, strict=True)
        ]
        folder.add(given)
        assert waits == 1 + (step.dir / "ranks.jsonl").exists()
    assert runner.train(path) == 0
    assert [sheet.ranked for sheet in shown] == [2, 1], "the points in order, then the best of the line"
    assert all(2 <= len(question.answers) <= 3 for sheet in shown for question in sheet.questions)
    asked = [json.loads(line) for line in (step.dir / "ranks.jsonl").read_text().splitlines()]
    assert [len(told) for told in asked] == [3, 3]
    assert all(0 <= share <= 1 for told in asked for share in told)


def test_what_cannot_be_searched_is_told(model, trained, tmp_path, capsys):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(3))

    def told(**options):
        return refused(tmp_path, {"search": stage(model, trained, prompts, **options)}, capsys)

    assert "search.ranked: must be at most `points`, 3, got 4" in told(ranked=4)
    assert "search.rounds: must be at least 1, got 0" in told(rounds=0)
    assert "search.mu: must be above 0, got 0" in told(mu=0)
    assert "search.engine: the policy changes at every point" in told(engine="vllm")
    assert "search.reward: no reward 'brif' in the scores, did you mean 'brief'?" in told(reward="brif")
    assert "name one of base, tokens, settings and choose, which is what moves: got base and tokens" in told(
        tokens=["a"]
    )
    assert "which is what moves: got none" in told(base=None)
    assert "search.settings.temperatur: is no number of `generate`" in told(base=None, settings={"temperatur": [0, 1]})
    assert "search.settings.top_p: expected ends that are" in told(base=None, settings={"top_p": [0.5, 2]})
    assert "search.num_generations: one answer leaves no choice" in told(base=None, choose={"brief": 1})
    assert "search.reward: name the reward that says which policy is better" in told(reward={})
    assert "search.points: people see 10 answers side by side, and 9 at most" in told(oracle="people", points=10)
    assert "search.tokens: '<|no|>' is no token of the vocabulary: `kind: add_tokens`" in told(
        base=None, tokens=["<|no|>"]
    )
    assert "search.base: " in told(base=trained)
    assert "itself: nothing lies between them" in told(base=trained)
