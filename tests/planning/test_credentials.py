"""A secret in a recipe is refused with its place, and shown nowhere."""

import pytest
import yaml
from conftest import ROOT
from planned import STAGES
from run_steps import write_recipe

from trimtab.pipelines.planning.credentials import is_variable
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.scripts import cli, serve_reward

BODY = "Ab3dEf6hIj9lMn2pQr5t"
PASTED = [
    f"sk-{BODY}",
    f"hf_{BODY}",
    f"ghp_{BODY}",
    "3f9a1c" * 6,
    "Ab3dEf6hIj9lMn2pQr5tUv",
    "two words",
    "",
    7,
    [BODY],
]
REMOTE = {"kind": "remote", "url": "http://127.0.0.1:1/get_reward"}


def with_reward(block):
    return {**STAGES, "score": {"completions": "$dpo", "rewards": {"r": block}}}


@pytest.mark.parametrize("pasted", PASTED, ids=str)
def test_what_is_pasted_for_the_name_of_a_variable(pasted, tmp_path, capsys, monkeypatch):
    path = write_recipe(tmp_path, with_reward({**REMOTE, "token_env": pasted}))
    monkeypatch.setattr("sys.argv", ["trimtab", "plan", str(path), "--verbose"])
    assert cli.main() == 2
    said = "".join(capsys.readouterr())
    assert "stages.score.rewards.r.token_env: expected the name of an environment variable" in said
    assert "recipe.yaml:" in said
    assert BODY not in said
    assert not isinstance(pasted, str) or not pasted or pasted not in said


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("api_key", "letmein"),
        ("token", "letmein"),
        ("headers", {"Authorization": "letmein"}),
        ("headers", {"X-Api-Key": "letmein"}),
        ("headers", [f"Bearer letmein{BODY}"]),
        ("url", "http://me:letmein@host:5000/get_reward"),
        ("url", ["http://host/get_reward", "https://letmein@host/get_reward"]),
        ("kwargs", f'{{"token": "hf_{BODY}letmein"}}'),
        (f"sk-letmein{BODY}", 1),
    ],
)
def test_other_places_of_secrets(place, value, tmp_path):
    path = str(write_recipe(tmp_path, with_reward({**REMOTE, place: value})))
    for overrides in ((), ("seed=7",)):
        with pytest.raises(RecipeError, match="secret") as caught:
            Document.sketched(path, overrides)
        assert "letmein" not in str(caught.value)
        assert "recipe.yaml:" in str(caught.value)


@pytest.mark.parametrize("key", ["stages.score.rewards.r.token_env", "stages.nowhere.token_env", "wandb.api_key", ""])
def test_of_an_override_only_the_key_is_told(key, tmp_path):
    path = str(write_recipe(tmp_path, with_reward(REMOTE)))
    with pytest.raises(RecipeError) as caught:
        Document.read(path, [f"{key}=sk-{BODY}"])
    assert BODY not in str(caught.value)
    assert key in str(caught.value)


def test_a_servers_configuration_is_looked_at_too(write, capsys):
    path = write("server.yaml", yaml.safe_dump({"reward": {"kind": "length", "target": 3}, "token_env": f"hf_{BODY}"}))
    assert serve_reward.main(["--config", path]) == 2
    said = "".join(capsys.readouterr())
    assert "token_env: expected the name of an environment variable" in said
    assert BODY not in said


@pytest.mark.parametrize(
    "name", ["REWARD_TOKEN", "my_reward_token_2", "TOKEN2", "_T", "JUDGE_OF_THE_THIRD_ROUND_KEY", "OpenRouterKey"]
)
def test_names_of_variables(name):
    assert is_variable(name)


def test_what_is_no_secret_passes(tmp_path):
    """Special tokens, a revision behind an @, words that begin like a key, and every shipped recipe."""
    block = {
        "eos_token": "<|im_end|>",
        "data": "hf://datasets/org/name@main/rows.jsonl",
        "path": "models/sk-learn-like",
    }
    Document.read(str(write_recipe(tmp_path, {"sft": block})))
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        Document.read(str(path))
