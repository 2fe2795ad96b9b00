"""The user's mistakes: the one exception that names their place, and the words that people get wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Keys that public recipes still carry and the installed trl/transformers no longer know, with their successors.
RENAMED = {
    "torch_dtype": "use 'dtype'",
    "warmup_ratio": "use 'warmup_steps' (a value below 1 is a share of all steps)",
    "max_seq_length": "use 'max_length'",
    "max_prompt_length": "removed by trl: filter long prompts from the data",
    "evaluation_strategy": "use 'eval_strategy'",
    "overwrite_output_dir": "remove it: every configuration has a directory of its own",
    "use_flash_attention_2": "use 'attn_implementation: flash_attention_2'",
    "preprocessing_num_workers": "use 'dataset_num_proc'",
    "dataset_mixer": "use 'data: {datasets: [{path: ...}]}'",
    "dataset_mixture": "use 'data: {datasets: [{path: ...}]}'",
    "dataset_name": "use 'data: {path: ...}'",
}
OWNED = {
    "output_dir": "the pipeline names the directory after the step's fingerprint",
    "run_name": "the pipeline names the run after the step",
    "resume_from_checkpoint": "the pipeline resumes from the step's newest complete checkpoint by itself",
    "hub_token": "secrets do not belong in a recipe: run `hf auth login` or set HF_TOKEN",
}


class RecipeError(Exception):
    """A mistake of the user's, at `path` (`("stages", "dpo", "train", "beta")`); `line` is filled in by the recipe."""

    def __init__(self, message: str, path: Sequence[str] = ()):
        super().__init__(message)
        self.message, self.path, self.place = message, tuple(map(str, path)), ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, ".".join(self.path), self.message) if part)


def suggest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the nearest known word, or ""."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""


class Interrupted(Exception):
    """The training was asked to stop, and a checkpoint of its last step is there."""
