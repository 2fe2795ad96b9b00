"""Recipes in the formats of other programs become recipes that plan, with every key accounted for."""

from pathlib import Path

import pytest
import yaml

from trimtab.pipelines.importing import chain, formats, recipe, shell, sources
from trimtab.pipelines.importing.draft import Verdict
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.scripts import import_recipe, run

RECIPES = sorted((Path(__file__).parent / "recipes").iterdir())
GRPO = dict.fromkeys(("reinforce", "remote", "dapo"), "grpo")
KINDS = {"cpt": "sft", "orpo": "dpo", "apo": "dpo", "rm": "reward", "opd": "distill", **GRPO}


def imported(name: str) -> recipe.Imported:
    return recipe.convert([str(Path(__file__).parent / "recipes" / name)])


def block(name: str) -> dict:
    (stage,) = yaml.safe_load(imported(name).text)["stages"].values()
    return stage


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_plans_and_every_key_is_accounted_for(path):
    converted = recipe.convert([str(path)])
    assert converted.mistakes == ()
    (name,) = converted.stages
    word = path.stem.split("-")[-1]
    assert name in (KINDS.get(word), *path.stem.replace("ppo-rm", "ppo").split("-"))
    (source,) = sources.gather([str(path)])
    accounted = [entry.key.removeprefix("trl.") for entry in converted.stages[name].entries]
    top = {key.split(".")[0] for key in accounted} | set(accounted)
    blocks = {key for key, value in source.values.items() if isinstance(value, dict) and key == "trl"}
    assert set(source.values) - blocks <= top
    assert len(accounted) == len(set(accounted))
    assert not [entry for entry in converted.stages[name].entries if entry.verdict is Verdict.UNKNOWN]
    assert all(entry.why for entry in converted.stages[name].entries if entry.verdict is Verdict.DROPPED)


def test_there_are_enough_of_them():
    assert len(RECIPES) >= 25
    programs = {formats.translate(source)[0] for path in RECIPES for source in sources.gather([str(path)])}
    assert programs == set(formats.words())


def test_old_keys_get_their_new_names():
    stage = block("handbook-sft.yaml")
    assert stage["model"]["dtype"] == "bfloat16"
    train = stage["train"]
    assert (train["warmup_steps"], train["max_length"], train["eval_strategy"]) == (0.1, 2048, "epoch")
    assert (train["dataset_num_proc"], train["save_total_limit"]) == (8, 2)
    assert stage["data"]["datasets"][1] == {"path": "HuggingFaceH4/no_robots", "split": "train_sft[:50%]"}
    assert stage["eval_data"]["datasets"][0] == {"path": "HuggingFaceH4/ultrachat_200k", "split": "test_sft"}


def test_batches_of_prompts_become_batches_of_completions():
    stage = block("verl-grpo.sh")
    assert (stage["batch_size"], stage["train"]["generation_batch_size"]) == (256 * 5, 1024 * 5)
    assert stage["train"]["beta"] == 0.001
    stage = block("openrlhf-reinforce.sh")
    assert (stage["batch_size"], stage["train"]["generation_batch_size"]) == (1024, 128 * 16)
    assert (stage["train"]["epsilon"], stage["train"]["epsilon_high"]) == (0.2, 0.27)


def test_rewards_by_name_become_blocks_and_those_that_are_not_here_are_named():
    rewards = block("openr1-grpo.yaml")["rewards"]
    assert rewards["accuracy"] == {"kind": "math", "column": "solution"}
    assert rewards["tag_count"] == {"kind": "reward_model", "path": "your/tag_count", "weight": 0.5}
    assert "reward 'tag_count': no reward of this name" in imported("openr1-grpo.yaml").text.replace("\n#     ", " ")


def test_a_function_that_is_here_is_used_as_it_is(tmp_path):
    source = "def reward_func(queries, prompts, labels, **kwargs):\n    return [0.0]\n"
    (tmp_path / "reward_func.py").write_text(source)
    line = "python3 -m openrlhf.cli.train_ppo_ray --pretrain org/m --prompt_data org/p --label_key answer "
    (tmp_path / "run.sh").write_text(line + "--remote_rm_url reward_func.py --advantage_estimator rloo")
    converted = recipe.convert([str(tmp_path / "run.sh")])
    path = str(tmp_path / "reward_func.py")
    rewards = yaml.safe_load(converted.text)["stages"]["rloo"]["rewards"]
    assert rewards == {"function": {"kind": "openrlhf_function", "path": path, "label": "answer"}}
    assert converted.mistakes == ()


def test_the_registry_of_datasets_at_hand_is_read(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"ours": {"hf_hub_url": "org/ours", "formatting": "sharegpt"}}')
    (tmp_path / "sft.yaml").write_text("{model_name_or_path: org/m, stage: sft, dataset: ours, cutoff_len: 64}")
    stage = yaml.safe_load(recipe.convert([str(tmp_path / "sft.yaml")]).text)["stages"]["sft"]
    assert stage["data"] == {"path": "org/ours", "layout": "sharegpt"}


def test_several_files_are_one_chain():
    folder = Path(__file__).parent / "recipes"
    names = ("handbook-sft.yaml", "trl-reward.yaml", "handbook-dpo.yaml", "openrlhf-ppo.sh")
    converted = recipe.convert([str(folder / name) for name in names])
    stages = yaml.safe_load(converted.text)["stages"]
    models = {name: stage["model"]["model_name_or_path"] for name, stage in stages.items()}
    assert models == {"sft": "mistralai/Mistral-7B-v0.1", "reward": "$sft", "dpo": "$sft", "ppo": "$dpo"}
    assert stages["ppo"]["rewards"]["reward"]["path"] == "$reward"
    assert converted.mistakes == ()


def test_two_of_a_kind_have_two_names():
    source = sources.Source("dpo.yaml", {"model_name_or_path": "org/m", "beta": 0.1, "dataset_name": "org/p"})
    drafts = [draft for _ in range(2) for draft in formats.translate(source)[1]]
    assert list(chain.linked(drafts)) == ["dpo", "dpo2"]


@pytest.mark.parametrize(
    "text",
    [
        "trl sft --model_name_or_path org/m --dataset_name org/d --output_dir $(touch PLACE)",
        "X=`touch PLACE`\ntrl sft --model_name_or_path org/m --dataset_name org/d --output_dir $X",
        "trl sft --model_name_or_path org/m --dataset_name org/d ; touch PLACE",
    ],
)
def test_nothing_that_is_read_is_executed(tmp_path, text):
    place = tmp_path / "executed"
    (tmp_path / "run.sh").write_text(text.replace("PLACE", str(place)))
    recipe.convert([str(tmp_path / "run.sh")])
    assert not place.exists()


@pytest.mark.parametrize("variables", [{"A": "x" * 1000}, {"A": "x" * 1000, "B": "$A$A$A$A", "C": "$B$B$B$B"}])
def test_a_script_that_its_variables_blow_up_is_refused(tmp_path, variables):
    lines = [f'{name}="{value}"' for name, value in variables.items()]
    use = f"${list(variables)[-1]}" * 2000
    (tmp_path / "run.sh").write_text("\n".join([*lines, f"trl sft --output_dir {use}"]))
    with pytest.raises(RecipeError, match="more than 1,048,576 characters"):
        recipe.convert([str(tmp_path / "run.sh")])


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("bnb_4bit_use_double_quant: true, load_in_4bit: true", "use_bnb_nested_quant", True),
        ("stage: sft, finetuning_type: lora, additional_target: 'embed_tokens, lm_head'", "lora_modules_to_save",
         ["embed_tokens", "lm_head"]),
    ],
)  # fmt: skip
def test_a_key_that_has_another_name_here_is_not_lost(tmp_path, text, key, value):
    (tmp_path / "sft.yaml").write_text(f"{{model_name_or_path: org/m, dataset_name: org/d, {text}}}")
    (stage,) = yaml.safe_load(recipe.convert([str(tmp_path / "sft.yaml")]).text)["stages"].values()
    assert stage["model"][key] == value


def test_an_object_in_yaml_is_refused(tmp_path):
    (tmp_path / "sft.yaml").write_text("model_name_or_path: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="not readable as YAML"):
        recipe.convert([str(tmp_path / "sft.yaml")])


def test_a_secret_is_not_shown(tmp_path):
    secret = "hf_" + "a1B2" * 8
    text = f"{{model_name_or_path: org/m, dataset_name: org/d, hub_token: {secret}, wandb_api_key: {secret[3:]}}}"
    (tmp_path / "sft.yaml").write_text(text)
    converted = recipe.convert([str(tmp_path / "sft.yaml")])
    assert secret[3:] not in converted.text + converted.table
    assert converted.mistakes == ()


def test_what_the_planner_refuses_is_left_out_with_its_reason(tmp_path):
    text = "{model_name_or_path: org/m, dataset_name: org/d, save_only_model: false, num_train_epochs: 0}"
    (tmp_path / "sft.yaml").write_text(text)
    (draft,) = recipe.convert([str(tmp_path / "sft.yaml")]).stages.values()
    assert [entry.key for entry in draft.entries if entry.verdict is Verdict.DROPPED] == ["save_only_model"]


def test_the_command_writes_a_recipe_that_plans_and_prints_the_table(tmp_path, capsys):
    source = str(Path(__file__).parent / "recipes" / "trl-dpo.sh")
    assert import_recipe.main([source, "--output", str(tmp_path / "mine.yaml")]) == 0
    assert run.main([str(tmp_path / "mine.yaml"), "--plan", f"output_dir={tmp_path}"]) == 0
    assert "1 steps, 0 done, 1 pending" in capsys.readouterr().out
    assert import_recipe.main([source, "--output", str(tmp_path / "mine.yaml")]) == 2
    assert import_recipe.main([source, "--table"]) == 0
    printed = capsys.readouterr().out
    assert "dataset_name                 renamed  dpo.data.path" in printed
    assert "15 keys: 11 kept, 1 renamed, 0 changed, 3 dropped, 0 unknown" in printed


def test_a_command_line_behind_two_dashes(capsys):
    line = "accelerate launch trl sft --model_name_or_path org/m --dataset_name=org/d --bf16"
    assert import_recipe.main(["--", *line.split()]) == 0
    stage = yaml.safe_load(capsys.readouterr().out)["stages"]["sft"]
    assert stage["train"] == {"bf16": True}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.yaml"], "no such file: nowhere.yaml"),
        ([], "nothing to import"),
        (["ls -l /"], "nothing to import"),
    ],
)
def test_what_is_none_is_said(words, message, capsys):
    assert import_recipe.main(words) == 2
    assert message in capsys.readouterr().err


def test_words_of_scripts():
    parts = ("A=1", 'B="x $A"', "OPTS=(", "  --lr 1e-5 # rate", "  --flag", ")", 'read -r -d "" more <<EOF', "m \\")
    script = "\n".join((*parts, "  --n 2", "EOF", 'run ${OPTS[@]} "$B" $more'))
    assert list(shell.commands(script)) == [["run", "--lr", "1e-5", "--flag", "x 1", "m", "--n", "2"]]
    plain, given = shell.options(["m", "a.b=1", "+c=x", "--k", "1", "2", "--neg", "-1", "--on", "$@"])
    assert plain == ["m"]
    assert given == {"a.b": "1", "c": "x", "k": ["1", "2"], "neg": "-1", "on": True}
