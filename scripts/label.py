"""Asks people what a run waits for: serves the page on this machine, or goes by files.

    trimtab label runs/mine                          # the page, on 127.0.0.1 with a token
    trimtab label runs/mine --take ann.json          # what a page has saved, or an export of Argilla or Label Studio
    trimtab label runs/mine --give argilla --output records   # the questions as that tool's files
    trimtab label runs/mine/people                   # of several steps that ask, this one

Then the same `trimtab run` as before goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.labelling import formats
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import environment, labelling


def main(words: list[str] | None = None) -> int:
    """0 when it has ended, 2 for a folder without questions and for files that are not right."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a recipe, such as runs/mine, or of a step in it")
    parser.add_argument("--port", type=int, default=0, help="of the page; 0, the default, takes any that is free")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--take", type=Path, nargs="+", metavar="FILE", help="add the answers in files, and end")
    files.add_argument("--give", choices=formats.writers(), metavar="TOOL", help="write a tool's files, and end")
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where --give writes")
    options = parser.parse_args(words)
    environment.prepare()
    try:
        if options.take:
            labelling.take(options.run, options.take)
        elif options.give:
            labelling.give(options.run, options.give, options.output)
        else:
            labelling.serve(options.run, options.port)
    except RecipeError as error:
        return environment.fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
