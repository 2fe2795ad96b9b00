"""Writes a recipe from those of other programs: files, or a command line behind --.

    trimtab import zephyr/sft.yaml zephyr/dpo.yaml --output zephyr.yaml     # two files, one chain
    trimtab import run_grpo.sh --table                                      # what becomes of every key
    trimtab import -- trl dpo --model_name_or_path org/model --dataset_name org/pairs

Reads configurations and launch lines of TRL, alignment-handbook, open-r1, SPPO, LLaMA-Factory, axolotl, OpenRLHF and
verl. Nothing of them is executed. What has no counterpart stands at the top of the recipe, with what to do about it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.importing import recipe
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import environment


def main(words: list[str] | None = None) -> int:
    """0 for a recipe that plans, 1 where the planner still refuses something, 2 for what cannot be read."""
    words = sys.argv[1:] if words is None else words
    words, line = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab import",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="*", metavar="FILE", help="a YAML file, a shell script, or 'a command line'")
    parser.add_argument("--output", "-o", type=Path, metavar="RECIPE", help="where to write it; else it is printed")
    parser.add_argument("--table", action="store_true", help="print what became of every key, and no recipe")
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there")
    options = parser.parse_args(words)
    if options.output and options.output.exists() and not options.force:
        return environment.fail(f"{options.output} is there already: another name, or --force")
    environment.prepare()
    try:
        imported = recipe.convert(options.sources, line)
    except RecipeError as error:
        return environment.fail(str(error))
    if options.output:
        options.output.write_text(imported.text, encoding="utf-8")
    print(imported.table if options.table else options.output or imported.text, end="\n" if options.output else "")
    for mistake in imported.mistakes:
        environment.fail(f"the recipe does not plan yet: {mistake}")
    return 1 if imported.mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
