"""Writes a first recipe, from flags or from the answers to three questions.

    trimtab init --goal dpo --data pairs.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --lora --output mine.yaml
    trimtab init                                  # asks

A goal is a kind of stage with which a recipe can begin; --help lists them. Of a local file of JSON lines the columns
say which one is meant.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.importing import starting
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import environment


def main(words: list[str] | None = None) -> int:
    """0 when the recipe is written, 2 for an answer that is missing or none."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab init",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", help="a file of rows, or a dataset's name on the hub")
    parser.add_argument("--model", help="a model's folder, or its name on the hub")
    parser.add_argument("--goal", choices=starting.goals(), help="what the training is for:" + _goals())
    parser.add_argument("--lora", action="store_true", help="train adapters, and merge them when the stage is done")
    parser.add_argument("--output", "-o", type=Path, default=Path("recipe.yaml"), metavar="FILE")
    options = parser.parse_args(words)
    if options.output.exists():
        return environment.fail(f"{options.output} is there already: name another with --output")
    try:
        data = options.data or _answer("data", "Where are the rows? (a file, or a dataset's name on the hub)")
        model = options.model or _answer("model", "Which model to start from? (a folder, or its name on the hub)")
        goal = options.goal or starting.goal_of(data) or _answer("goal", "What is it for?" + _goals())
        written = starting.text(goal, data, model, lora=options.lora)
    except RecipeError as error:
        return environment.fail(str(error))
    options.output.write_text(written, encoding="utf-8")
    print(f"{options.output}: a recipe for {goal}. Next: trimtab plan {options.output}")
    return 0


def _goals() -> str:
    return "".join(f"\n  {word:7} {start.goal} (rows: {start.rows})" for word, start in starting.goals().items())


def _answer(flag: str, question: str) -> str:
    """What a person answers. Raises RecipeError where there is nobody to ask, or no answer."""
    if not sys.stdin.isatty():
        raise RecipeError(f"--{flag} is missing, and there is no terminal to ask at")
    answer = input(f"{question}\n> ").strip()
    if not answer:
        raise RecipeError(f"no answer for --{flag}")
    return answer


if __name__ == "__main__":
    sys.exit(main())
