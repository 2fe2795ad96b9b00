"""The keys of `generate`: which of transformers' GenerationConfig a sampler honours, and in which range.

A completion is drawn token by token, kept as its token ids, and given its log-probabilities under the policy itself.
So a key is honoured where its effect is on those ids, and refused where it would be ignored or would change what the
dataset's columns mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.pipelines.planning import memos
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest

MAX_NEW_TOKENS = 256  # unless the recipe says otherwise


@dataclass(frozen=True)
class Range:
    """The numbers that a key takes: from `low` to `high`, without `low` itself where that is `above`."""

    kind: type
    low: float
    high: float | None = None
    above: bool = False

    def __contains__(self, value: object) -> bool:
        kinds = (int,) if self.kind is int else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        in_low = value > self.low if self.above else value >= self.low
        return in_low and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        number = "a whole number" if self.kind is int else "a number"
        low = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        return f"{number} {low}" + ("" if self.high is None else f" and at most {self.high:g}")


RANGES = {
    "max_new_tokens": Range(int, 1),
    "min_new_tokens": Range(int, 0),
    "temperature": Range(float, 0, above=True),
    "top_k": Range(int, 0),
    "top_p": Range(float, 0, 1, above=True),
    "min_p": Range(float, 0, 1),
    "top_h": Range(float, 0, 1, above=True),
    "typical_p": Range(float, 0, 1, above=True),
    "epsilon_cutoff": Range(float, 0, 1),
    "eta_cutoff": Range(float, 0, 1),
    "repetition_penalty": Range(float, 0, above=True),
    "no_repeat_ngram_size": Range(int, 0),
}
HINTS = {
    "temperature": "for the likeliest tokens write `do_sample: false`",
    "top_k": "0 keeps all tokens",
    "top_p": "1 keeps all tokens",
}
# the value of each key that changes the distribution, with which completions are the policy's own
PLAIN = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "top_h": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
}
STOPS = ("eos_token_id", "stop_strings")
COSTS = ("use_cache", "cache_implementation", "disable_compile", "prefill_chunk_size")
ARITHMETIC = ("renormalize_logits", "remove_invalid_values")
HONOURED = ("max_new_tokens", *STOPS, *PLAIN, *COSTS, *ARITHMETIC)

BEAMS = (
    "num_beams",
    "num_beam_groups",
    "early_stopping",
    "length_penalty",
    "diversity_penalty",
    "constraints",
    "force_words_ids",
)
OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
REFUSED = {
    "num_return_sequences": "the number of completions is the stage's key `num_generations`",
    "max_length": "counts the prompt, and the padding of the batch that it happens to be in: use `max_new_tokens`",
    "min_length": "counts the prompt, and the padding of the batch that it happens to be in: use `min_new_tokens`",
    "max_time": "completions would depend on the machine's speed: use `max_new_tokens`",
    "pad_token_id": "is the tokenizer's, or its end token, and changes no completion: remove it",
    "bos_token_id": "is the tokenizer's, which renders the prompts: remove it",
    "decoder_start_token_id": "belongs to encoder-decoder models, which are not sampled here",
    "forced_bos_token_id": "belongs to encoder-decoder models, which are not sampled here",
    "forced_eos_token_id": "would make a completion that was cut look like one that has ended",
    **dict.fromkeys(BEAMS, "beam search does not sample: its answers come with no chance of being drawn"),
    **dict.fromkeys(OUTPUTS, "token ids and log-probabilities have columns of their own"),
}
# values by which a refused key changes nothing
HARMLESS = {"num_return_sequences": 1, "num_beams": 1, "length_penalty": 1.0, "early_stopping": False}
HARMLESS |= dict.fromkeys(OUTPUTS, False)


def check(generate: Mapping[str, Any], path: Sequence[str]) -> None:
    """Raises RecipeError, at the keys below `path`, for a block that a sampler does not honour as it is written."""
    mistakes = Mistakes()
    for key, value in generate.items():
        with mistakes.collected():
            _check_key(key, value, (*path, key))
    mistakes.raise_any()
    least, most = generate.get("min_new_tokens") or 0, generate.get("max_new_tokens")
    if most is not None and least > most:
        raise RecipeError(f"is {least}, more than max_new_tokens, which is {most}", (*path, "min_new_tokens"))
    memos.recalled("generation", dict(generate), lambda: _construct(generate, path))


def check_ranges(values: Mapping[str, Any], path: Sequence[str]) -> None:
    """Raises RecipeError for a number that no distribution over tokens is made by."""
    for key, allowed in RANGES.items():
        value = values.get(key)
        if value is not None and value not in allowed:
            hint = f": {HINTS[key]}" if key in HINTS else ""
            raise RecipeError(f"expected {allowed}, got {value!r}{hint}", (*path, key))


def check_training(train: Any, path: Sequence[str]) -> None:
    """Raises RecipeError for keys of trl.GRPOConfig, at `path`, by which it would sample otherwise than it learns."""
    check_ranges(vars(train), path)
    given = train.generation_kwargs
    if train.use_vllm or not isinstance(given, Mapping):  # vLLM's keys are others
        return
    for key, value in given.items():
        place = (*path, "generation_kwargs", key)
        if hasattr(train, key) and key in RANGES:
            raise RecipeError(f"write `{key}` in the `train` block: trl computes log-probabilities by that one", place)
        if key == "max_new_tokens":
            raise RecipeError("write `max_completion_length` in the `train` block, which trl masks by", place)
        if key in STOPS:
            raise RecipeError("trl masks completions by the model's own end tokens: remove it", place)
        if key == "do_sample" and value is False:
            raise RecipeError(
                "all completions of a prompt would be equal, and nothing could be learned of them", place
            )
    check(given, (*path, "generation_kwargs"))


def reshaped(generate: Mapping[str, Any]) -> list[str]:
    """The settings, in words, by which completions are not drawn from the policy itself but from a changed one."""
    changed = {key: value for key, value in generate.items() if key in PLAIN and value not in (None, PLAIN[key])}
    return [f"{key}: {value}" for key, value in changed.items()]


def _check_key(key: str, value: Any, place: tuple[str, ...]) -> None:
    if key not in {*HONOURED, *REFUSED, *HARMLESS} and key not in memos.recalled("generation", "keys", _keys):
        raise RecipeError(f"unknown key for GenerationConfig{suggest(key, HONOURED)}", place)
    if value is None or (key in HARMLESS and value == HARMLESS[key]):
        return
    if key in REFUSED:
        raise RecipeError(f"{REFUSED[key]} (got {value!r})", place)
    if key not in HONOURED:
        raise RecipeError(f"is not honoured here (these are: {', '.join(HONOURED)})", place)
    check_ranges({key: value}, place[:-1])
    if key == "do_sample" and not isinstance(value, bool):
        raise RecipeError(f"expected true or false, got {value!r}", place)
    if key == "eos_token_id" and not all(token in Range(int, 0) for token in listed(value)):
        raise RecipeError(
            f"expected a token's id or a list of them, got {value!r}: `stop_strings` takes text, and the tokenizer's "
            "own end tokens stop in any case",
            place,
        )
    if key == "stop_strings" and not all(isinstance(word, str) and word for word in listed(value)):
        raise RecipeError(f"expected a text or a list of them, got {value!r}", place)


def _keys() -> list[str]:
    """The keys of transformers' GenerationConfig."""
    from transformers import GenerationConfig

    return sorted(GenerationConfig().to_dict())


def _construct(generate: Mapping[str, Any], path: Sequence[str]) -> None:
    """Makes the configuration that the sampler will make, whose own checks raise ValueError."""
    from transformers import GenerationConfig

    try:
        GenerationConfig(**generate)
    except (TypeError, ValueError) as error:
        named = next((key for key in generate if f"`{key}`" in str(error)), None)
        raise RecipeError(str(error), (*path, named) if named else path) from error


def listed(value: Any) -> list[Any]:
    """The value of `eos_token_id` or `stop_strings` as a list: none, one or several."""
    return value if isinstance(value, list) else [] if value is None else [value]
