"""What lies in an output directory, what runs there, what differs, and what can go.

    python scripts/store.py ls runs                        # every step: its names, recipes, size, age and key metric
    python scripts/store.py status recipes/mine.yaml       # what is done, what runs and how far it is, what is next
    python scripts/store.py compare mine.yaml              # the points of its sweep, as a table and a page
    python scripts/store.py diff mine.yaml other.yaml      # options, hashes of data and metrics that differ
    python scripts/store.py diff runs/mine/dpo other.yaml:dpo
    python scripts/store.py prune runs                     # what can go, with sizes; --yes removes it

Nothing is changed, but by `prune --yes`.
"""

from __future__ import annotations

import argparse
import sys

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.running import comparing, differences, listing, progress, pruning
from trimtab.scripts import _arguments


def main(words: list[str] | None = None) -> int:
    """The exit code: 0, 2 where there is nothing to look at, and 1 of a diff that finds one."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ls = commands.add_parser("ls", help="every step of an output directory")
    prune = commands.add_parser("prune", help="checkpoints of finished steps, and steps of no recipe")
    for command in (ls, prune):
        command.add_argument("root", nargs="?", default="runs", metavar="OUTPUT_DIR", help="by default: runs")
    prune.add_argument("--yes", action="store_true", help="remove what is listed")
    status = commands.add_parser("status", help="what of a recipe is done, what runs, and what is next")
    compare = commands.add_parser("compare", help="the points of a recipe's sweep, as a table and a page")
    for command in (status, compare):
        command.add_argument("recipe", help="a YAML file, or a shipped recipe by its name")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="those that the recipe was run with")
        command.add_argument(
            "--trust", action="store_true", help="consent to the code that the recipe names, as it is now"
        )
    diff = commands.add_parser("diff", help="two recipes or two steps")
    for side in ("first", "second"):
        diff.add_argument(side, help="a recipe, recipe:step, or the folder of a step")
    options = parser.parse_args(words)
    if options.command == "ls":
        return listing.ls(options.root)
    if options.command in ("status", "compare"):
        look = progress.status if options.command == "status" else comparing.compare
        return look(_arguments.shipped(options.recipe), options.overrides, trusting=options.trust)
    if options.command == "diff":
        return differences.diff(options.first, options.second, _arguments.shipped)
    return pruning.prune(options.root, really=options.yes)


if __name__ == "__main__":
    sys.exit(main())
