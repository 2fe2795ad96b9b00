"""Reward kind `gold`: the known true reward of the tiny world, and the two aspects of it that proxies are trained on.

The world is made in pipelines/data/tiny_world.py.

The prompt itself says what is wanted, so nothing is hidden: "Tell me about beans, oats and peas. Be polite. Use at
most 24 words." Because the truth is known, reward over-optimisation can be *measured*: train a reward model on one
aspect, push a policy against it, and watch the gold score rise and then fall while the proxy keeps rising
(Gao et al. 2023, https://arxiv.org/abs/2210.10760).

    rewards: {gold: {kind: gold}, politeness: {kind: gold, aspect: politeness}}
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards import text

PROMPT = re.compile(r"about ([a-z]+(?:, [a-z]+)*(?: and [a-z]+)?)\. Be (polite|plain)\. Use at most (\d+) words\.")
VERB = (
    r"am|appreciate|are|bore|break|burn|carry|come|cost|give|grow|hate|have|help|hold|hope|is|keep|"
    r"like|live|make|move|need|play|say|sell|shine|stay|thank|turn|wish|work"
)
SENTENCE = re.compile(rf"(?:The (?P<item>[a-z]+)|[A-Z][a-z]*) (?:{VERB})(?: [a-z]+){{1,7}}\.")
COURTESY = {"thank", "hope", "wish", "welcome", "appreciate", "glad", "friend", "pleasure"}
RUDE = {"hate", "bore", "silly", "fool"}
WEIGHTS = {"tone": 0.4, "length": 0.4, "variety": 0.1, "structure": 0.1}


def parts(prompt: str, completion: str) -> dict[str, float] | None:
    """Every part of the score of one completion, or None when the prompt is not of the tiny world.

    A sentence is well formed when it reads "Subject verb rest." or "The item verb rest."; a *detail* is one about an
    item that the prompt names; a *courtesy* is a word of COURTESY; `limit` is the prompt's word limit.

    ===========  ==========  ===================================================================================
    part         range       formula
    ===========  ==========  ===================================================================================
    covered      [0, 1]      share of the named items that have a detail
    tone         [0, 1]      2^-(excess + rude words), excess = courtesies above 2 (polite) or above 0 (plain);
                             0 when politeness was asked for and there is no courtesy
    length       [0, 1]      max(0, 1 - 2 max(0, words - limit) / limit)
    variety      [0, 1]      distinct word triples / word triples (1 for one or two words, 0 for none)
    structure    [0, 1]      share of well-formed sentences (0 for none)
    overall      [0, 1]      covered * (0.4 tone + 0.4 length + 0.1 variety + 0.1 structure): the true reward
    coverage     [0, inf)    covered + log2(1 + details): repeats count, the limit and the tone do not
    politeness   (-inf, inf) log2(1 + courtesies) - rude words: whatever tone the prompt asks for
    ===========  ==========  ===================================================================================
    """
    if (asked := PROMPT.search(prompt)) is None:
        return None
    items = set(re.split(", | and ", asked[1]))
    polite, limit = asked[2] == "polite", int(asked[3])

    words = re.findall(r"[a-z]+", completion.lower())
    sentences = [s.strip() for s in re.findall(r"[^.]+\.?", completion) if s.strip()]
    formed = [match for match in map(SENTENCE.fullmatch, sentences) if match]
    details = [match["item"] for match in formed if match["item"] in items]
    courtesies, rude = sum(w in COURTESY for w in words), sum(w in RUDE for w in words)
    triples = list(zip(words, words[1:], words[2:], strict=False))

    part = {
        "covered": len(set(details)) / len(items),
        "tone": 0.0 if polite and not courtesies else 0.5 ** (max(0, courtesies - 2 * polite) + rude),
        "length": max(0.0, 1 - 2 * max(0, len(words) - limit) / max(1, limit)),
        "variety": len(set(triples)) / len(triples) if triples else float(bool(words)),
        "structure": len(formed) / len(sentences) if sentences else 0.0,
    }
    return part | {
        "overall": part["covered"] * sum(weight * part[name] for name, weight in WEIGHTS.items()),
        "coverage": part["covered"] + math.log2(1 + len(details)),
        "politeness": math.log2(1 + courtesies) - rude,
    }


ASPECTS = ("overall", "coverage", "politeness", "covered", *WEIGHTS)


@dataclass(kw_only=True)
class Gold:
    """Reward kind `gold`: one aspect of `parts`, `overall` being the truth. Abstains on prompts of other worlds."""

    aspect: str = field(default="overall", metadata={"choices": ASPECTS})

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run: a random model's answers are all alike to a strict judge."""
        return {"kind": "length", "target": 5, "unit": "characters"}

    def __post_init__(self) -> None:
        if self.aspect not in ASPECTS:
            raise ValueError(f"gold: unknown aspect {self.aspect!r}; choose one of {', '.join(ASPECTS)}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        """Scores, one per completion (TRL's reward-function signature)."""
        scored = (parts(text(p), text(c)) for p, c in zip(prompts, completions, strict=True))
        return [None if part is None else part[self.aspect] for part in scored]
