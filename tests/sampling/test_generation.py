"""The keys of `generate`: what a sampler honours does what it says, and the rest is refused with its place."""

import json
import shutil
from pathlib import Path

import pytest
import trl
from outputs import rows_of
from run_steps import refused, run_recipe
from transformers import AutoTokenizer, GenerationConfig

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.sampling import generation, transformers_engine

WRONG = [
    ({"num_return_sequences": 3}, "num_return_sequences", "`num_generations`"),
    ({"max_length": 64}, "max_length", "`max_new_tokens`"),
    ({"min_length": 4}, "min_length", "`min_new_tokens`"),
    ({"pad_token_id": 3}, "pad_token_id", "remove it"),
    ({"output_scores": True}, "output_scores", "columns of their own"),
    ({"return_dict_in_generate": True}, "return_dict_in_generate", "columns of their own"),
    ({"num_beams": 4}, "num_beams", "beam search does not sample"),
    ({"num_beam_groups": 2}, "num_beam_groups", "beam search does not sample"),
    ({"max_time": 1.5}, "max_time", "machine's speed"),
    ({"forced_eos_token_id": 1}, "forced_eos_token_id", "look like one that has ended"),
    ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens", "is not honoured here"),
    ({"max_new_token": 3}, "max_new_token", "did you mean 'max_new_tokens'?"),
    ({"max_new_tokens": 0}, "max_new_tokens", "at least 1, got 0"),
    ({"max_new_tokens": 2.5}, "max_new_tokens", "a whole number"),
    ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens", "is 9, more than max_new_tokens"),
    ({"temperature": 0}, "temperature", "`do_sample: false`"),
    ({"temperature": -1.0}, "temperature", "above 0"),
    ({"temperature": "high"}, "temperature", "above 0, got 'high'"),
    ({"top_p": 1.2}, "top_p", "at most 1"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"top_k": -1}, "top_k", "0 keeps all tokens"),
    ({"min_p": True}, "min_p", "a number"),
    ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
    ({"eos_token_id": "<|im_end|>"}, "eos_token_id", "`stop_strings`"),
    ({"stop_strings": [7]}, "stop_strings", "a text or a list of them"),
    ({"cache_implementation": "fast"}, "cache_implementation", "Choose one of"),  # transformers' own check
]


@pytest.mark.parametrize(("block", "key", "cure"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_honoured_is_refused_at_its_key(block, key, cure):
    with pytest.raises(RecipeError) as error:
        generation.check(block, ("stages", "sample", "generate"))
    assert error.value.path == ("stages", "sample", "generate", key)
    assert cure in error.value.message


def test_every_key_of_transformers_is_honoured_or_refused():
    known = set(GenerationConfig().to_dict()) - {"_from_model_config", "transformers_version"}
    assert known & set(generation.HONOURED) & set(generation.REFUSED) == set()
    assert set(generation.HONOURED) | set(generation.REFUSED) <= known
    generation.check(dict.fromkeys(known, None), ())  # null is what each of them is when it is left out


def test_a_refused_key_may_say_what_holds_anyway():
    generation.check({"num_beams": 1, "num_return_sequences": 1, "output_scores": False}, ())


def test_settings_that_are_not_the_policys_are_named():
    assert generation.reshaped({"temperature": 1.0, "top_k": 0, "max_new_tokens": 5, "eos_token_id": 3}) == []
    assert generation.reshaped({"temperature": 0.7, "top_p": 1, "repetition_penalty": 1.3}) == [
        "temperature: 0.7",
        "repetition_penalty: 1.3",
    ]


def test_the_likeliest_tokens_are_sampled_once(model, prompts, tmp_path, capsys):
    stages = {"sample": {"model": {"model_name_or_path": model}, "prompts": prompts, "generate": {"do_sample": False}}}
    said = refused(tmp_path, stages, capsys)
    assert "stages.sample.generate.do_sample: the likeliest tokens are the same 4 times" in said
    stages["sample"]["num_generations"] = 0
    assert "stages.sample.num_generations: must be at least 1, got 0" in refused(tmp_path, stages, capsys)


def test_all_wrong_keys_are_told_of_at_once():
    with pytest.raises(RecipeError) as error:
        generation.check({"temperature": 0, "num_beams": 4, "max_new_tokens": 8, "min_length": 2}, ("generate",))
    keys = [mistake.path[-1] for mistake in error.value.mistakes]
    assert keys == ["temperature", "num_beams", "min_length"]


def test_a_stop_token_is_one_of_the_vocabulary(model, prompts, tmp_path, capsys):
    stages = {"sample": {"model": {"model_name_or_path": model}, "prompts": prompts}}
    stages["sample"]["generate"] = {"eos_token_id": [2, 5000]}
    said = refused(tmp_path, stages, capsys)
    assert "stages.sample.generate.eos_token_id: the vocabulary of" in said
    assert "and no 5000" in said


@pytest.mark.parametrize(
    ("settings", "key", "cure"),
    [
        ({"temperature": 0.0}, "temperature", "above 0"),
        ({"top_p": 2.0}, "top_p", "at most 1"),
        ({"generation_kwargs": {"temperature": 0.5}}, "generation_kwargs.temperature", "write `temperature`"),
        ({"generation_kwargs": {"max_new_tokens": 5}}, "generation_kwargs.max_new_tokens", "max_completion_length"),
        ({"generation_kwargs": {"eos_token_id": 5}}, "generation_kwargs.eos_token_id", "end tokens"),
        ({"generation_kwargs": {"do_sample": False}}, "generation_kwargs.do_sample", "would be equal"),
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs.num_beams", "beam search"),
    ],
)
def test_a_training_samples_as_it_computes_log_probabilities(settings, key, cure, tmp_path):
    train = trl.GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)
    with pytest.raises(RecipeError) as error:
        generation.check_training(train, ("train",))
    assert ".".join(error.value.path) == f"train.{key}"
    assert cure in error.value.message


def test_stops_are_the_models_and_those_of_the_recipe(model, tmp_path):
    """The model's file names two end tokens and recommends a penalty, of which only the tokens apply."""
    folder = shutil.copytree(model, tmp_path / "model")
    recommended = {"eos_token_id": [7, 8], "repetition_penalty": 1.3, "do_sample": True, "temperature": 0.2}
    (folder / "generation_config.json").write_text(json.dumps(recommended))
    config = trl.ModelConfig(model_name_or_path=str(folder))
    tokenizer = transformers_engine.load_tokenizer(config)
    settings = transformers_engine.settings(config, tokenizer, {"eos_token_id": 9, "max_new_tokens": None})
    assert settings.eos_token_id == sorted({7, 8, 9, tokenizer.eos_token_id})
    assert (settings.temperature, settings.max_new_tokens) == (1.0, 256)
    assert transformers_engine.load(config).generation_config.repetition_penalty is None


def test_a_model_without_any_end_token_is_sampled(model, prompts, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    for file, keys in (("config.json", ("eos_token_id", "pad_token_id")),
                       ("tokenizer_config.json", ("eos_token", "pad_token"))):  # fmt: skip
        written = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**written, **dict.fromkeys(keys)}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id is None
    rows = sampled(folder, prompts, tmp_path, {"max_new_tokens": 4})
    assert {(len(row["completion_ids"]), row["truncated"]) for row in rows} == {(4, True)}


def test_a_completion_ends_with_its_first_stop(model, prompts, tmp_path):
    plain = sampled(model, prompts, tmp_path / "plain", {"max_new_tokens": 12})
    token = plain[0]["completion_ids"][2]
    ended = sampled(model, prompts, tmp_path / "token", {"max_new_tokens": 12, "eos_token_id": [token]})
    assert ended[0]["completion_ids"] == plain[0]["completion_ids"][: plain[0]["completion_ids"].index(token) + 1]
    assert not ended[0]["truncated"]
    never = "\x00"
    plain = sampled(model, prompts, tmp_path / "never", {"max_new_tokens": 12, "stop_strings": never})
    word = AutoTokenizer.from_pretrained(model).decode(plain[0]["completion_ids"][1:3])
    for row in sampled(model, prompts, tmp_path / "word", {"max_new_tokens": 12, "stop_strings": word}):
        said = row["completion"][0]["content"]
        assert said.count(word) <= 1
        assert len(row["logprobs"]) == len(row["completion_ids"])
        assert word not in said or not row["truncated"]
    first = sampled(model, prompts, tmp_path / "words", {"max_new_tokens": 12, "stop_strings": [word, never]})[0]
    assert first["completion_ids"] == plain[0]["completion_ids"][:3]


def sampled(model, prompts, folder, generate):
    """The rows of a `sample` step."""
    Path(folder).mkdir(exist_ok=True)
    block = {"model": {"model_name_or_path": str(model)}, "prompts": prompts, "num_generations": 2}
    return rows_of(run_recipe(folder, {"sample": {**block, "generate": generate}})["sample"])
