"""Writes the reference pages, docs/stages.md, rewards.md and layouts.md, from the dataclasses of all kinds.

python scripts/docs.py                  # after a change of the fields of a stage, a reward or a layout
python scripts/docs.py --check          # writes nothing: 1 when a page is stale
python scripts/docs.py --output pages   # into another folder than docs/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines import ROOT
from trimtab.pipelines.reporting import reference


def main(words: list[str] | None = None) -> int:
    """0, or 1 when `--check` meets a page that is stale."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab docs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is stale")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="FOLDER", help="where the pages are")
    options = parser.parse_args(words)
    stale = 0
    for name in reference.PACKAGES:
        path, text = options.output / name, reference.page(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is stale: make docs", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
