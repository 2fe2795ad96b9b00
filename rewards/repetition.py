"""Reward kind `repetition`: a penalty for repeated n-grams of words.

rewards: {varied: {kind: repetition, ngram_size: 3}}
"""

from dataclasses import dataclass
from typing import Any

from trimtab.rewards import text


@dataclass(kw_only=True)
class Repetition:
    """`max_penalty` times the share of repeated n-grams (trl.rewards.get_repetition_penalty_reward): 0 is best.

    trl counts tokens, we count words, so that the score does not depend on whose tokenizer wrote the text.
    """

    ngram_size: int = 3
    max_penalty: float = -1.0

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        from trl.rewards import get_repetition_penalty_reward

        penalty = get_repetition_penalty_reward(self.ngram_size, self.max_penalty)
        return penalty(completion_ids=[text(completion).split() for completion in completions])
