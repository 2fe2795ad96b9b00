"""The user's mistakes: the one exception that names their place, and the words that people get wrong."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

# Keys that public recipes still carry and the installed trl/transformers no longer know, with their successors.
RENAMED = {
    "batch_size": "the batch of a training stands beside its `train`; a stage that samples has 'sample_batch_size'",
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
    """A mistake of the user's, at `path` (`("stages", "dpo", "train", "beta")`), in one line.

    `place` ("file:line") and `line` are filled in by the document.
    """

    def __init__(self, message: str, path: Sequence[str] = ()):
        self.message, self.path = " ".join(message.split()), tuple(map(str, path))
        self.place, self.line = "", 0
        super().__init__(self.message)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, ".".join(self.path), self.message) if part)

    @property
    def mistakes(self) -> tuple[RecipeError, ...]:
        """The single mistakes that this is about: itself, or those of a RecipeErrors."""
        return (self,)


class RecipeErrors(RecipeError):
    """Several mistakes that one look has found, each a line."""

    def __init__(self, mistakes: Sequence[RecipeError]):
        super().__init__("; ".join(str(mistake) for mistake in mistakes))
        self._mistakes = tuple(mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self._mistakes))

    @property
    def mistakes(self) -> tuple[RecipeError, ...]:
        return self._mistakes


class Mistakes:
    """Keeps mistakes while the look goes on, one for each place."""

    def __init__(self) -> None:
        self.kept: list[RecipeError] = []

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Keeps the RecipeError that ends the block, which goes on behind it."""
        try:
            yield
        except RecipeError as error:
            self.add(error)

    def add(self, error: RecipeError) -> None:
        """Keeps every mistake of the error; a second one at the same place may only follow from the first."""
        for mistake in error.mistakes:
            places = [other.path or other.message for other in self.kept]
            if (mistake.path or mistake.message) not in places:
                self.kept.append(mistake)

    def raise_any(self) -> None:
        """Raises what was kept: the one RecipeError, or a RecipeErrors."""
        if len(self.kept) == 1:
            raise self.kept[0]
        if self.kept:
            raise RecipeErrors(self.kept)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    return next(iter(difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)), None)


def suggest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the nearest known word, or ""."""
    near = nearest(word, known)
    return f", did you mean {near!r}?" if near else ""


class Waiting(Exception):
    """A step waits for people, as the message says: nothing is wrong, and the same command goes on with it."""


class Interrupted(Exception):
    """A step was asked to stop by the signal `number`; what it has finished is kept, as the message says."""

    def __init__(self, message: str, number: int):
        self.number = number
        super().__init__(message)
