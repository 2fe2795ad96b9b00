"""Writes the page of a run as it is now.

    trimtab report runs/mine                     # runs/mine/report.html
    trimtab report runs/mine --live              # again every few seconds, while the run goes; the browser follows

The page needs no server: open the file. The stage `report` of a recipe writes the same page when all is done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.running import environment, live


def main(words: list[str] | None = None) -> int:
    """0 when the page is written, 2 for a folder that is no recipe's."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a recipe, such as runs/mine")
    parser.add_argument("--live", action="store_true", help="go on writing it while the run goes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it")
    options = parser.parse_args(words)
    target = options.output or options.run / "report.html"
    environment.prepare()
    try:
        done = live.write(options.run, target)
        print(f"{target}: {done} steps are done")
        if options.live:
            live.follow(options.run, target)
    except RecipeError as error:
        return environment.fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
