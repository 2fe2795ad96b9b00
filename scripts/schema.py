"""Writes the JSON schema by which editors complete and check recipes.

trimtab schema                          # where the shipped one is
trimtab schema --output schema.json     # a copy beside recipes of your own
python scripts/schema.py --check        # 1 when the shipped one is stale
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    import _checkout  # noqa: F401

from trimtab.pipelines import ROOT
from trimtab.pipelines.reporting import json_schema

SHIPPED = ROOT / "recipes" / "schema.json"


def main(words: list[str] | None = None) -> int:
    """0, or 1 when `--check` finds that the shipped schema is not that of the code."""
    parser = argparse.ArgumentParser(
        prog=None if __name__ == "__main__" else "trimtab schema",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when the shipped one is stale"
    )
    options = parser.parse_args(words)
    text = json_schema.text()
    if options.check:
        fresh = SHIPPED.is_file() and SHIPPED.read_text(encoding="utf-8") == text
        print("" if fresh else f"{SHIPPED} is stale: make docs", end="" if fresh else "\n", file=sys.stderr)
        return 0 if fresh else 1
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    print(options.output or SHIPPED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
