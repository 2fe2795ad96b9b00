"""Consent to a recipe's code, before any of it is imported: by --trust, by an answer, or given before."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trimtab.pipelines.planning import consent, trust
from trimtab.pipelines.planning.consent import Code
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe

HEAD = "code of others that this recipe runs"


def load(
    path: str,
    overrides: Sequence[str] = (),
    ranks: Ranks | None = None,
    *,
    trusting: bool = False,
    refusing: bool = True,
) -> Recipe:
    """The plan of a recipe, with consent to its code; `ranks` are as in Recipe.load.

    With `trusting` all of the code is consented to; else people are asked, where there are any. Raises RecipeError,
    with `refusing` also for code that is left without consent.
    """
    recipe = Recipe.load(path, overrides, ranks)
    while _consented(_listed(recipe), recipe.document, trusting):
        recipe = Recipe.load(path, overrides, ranks)  # code that may be imported now may name more code
    if refusing:
        _require(_listed(recipe), recipe.document)
    return recipe


def allow(document: Document, *, trusting: bool = False) -> None:
    """Consent to the code of a reward server's configuration. Raises RecipeError for what is left without."""
    while _consented(consent.code_in(document.values, ()), document, trusting):
        pass
    _require(consent.code_in(document.values, ()), document)


def section(recipe: Recipe) -> str:
    """What a plan says of the code: each file with its hash, the key that names it and whether it is trusted."""
    listed = _listed(recipe)
    if not listed:
        return ""
    lines = [f"\n{HEAD}:", *_lines(listed, recipe.document)]
    if consent.withheld(listed):
        lines.append(
            "not trusted code was not imported, and what only it knows was not checked: read it, then consent"
        )
        lines.append("with --trust on the same command (each file by its content), or for good: docs/trust.md")
    return "\n".join(lines)


def handed_down(recipe: Recipe) -> dict[str, str]:
    """The variable by which workers know what their launcher has consented to."""
    given = [code.mark for code in _listed(recipe) if code.is_given and not code.is_installed]
    return {trust.HANDED: ",".join(sorted(set(given)))}


def _listed(recipe: Recipe) -> list[Code]:
    """The code of all steps, each once."""
    listed: dict[str, Code] = {}
    for step in recipe.steps:
        for code in consent.code_of(step):
            listed.setdefault(f"{code.name} {code.mark}", code)
    return list(listed.values())


def _consented(listed: Sequence[Code], document: Document, trusting: bool) -> bool:
    """Whether consent to what had none was given now, and recorded."""
    missing = consent.withheld(listed)
    is_worker = trust.HANDED in os.environ
    if not missing or is_worker or not (trusting or _asked(missing, document)):
        return False
    trust.give({code.mark: code.name for code in missing})
    return True


def _asked(missing: Sequence[Code], document: Document) -> bool:
    """What a person at a terminal answers; False where there is none, or several processes."""
    if "LOCAL_RANK" in os.environ or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{HEAD}:", *_lines(missing, document), sep="\n", file=sys.stderr)
    print("Have you read it, and may it run here? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _require(listed: Sequence[Code], document: Document) -> None:
    try:
        consent.require(listed)
    except RecipeError as error:
        raise document.locate(error) from None


def _lines(listed: Sequence[Code], document: Document) -> list[str]:
    rows = [(code.name, code.mark[:8] if code.file else "", _key(code, document), _state(code)) for code in listed]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  " + "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]


def _key(code: Code, document: Document) -> str:
    """`recipe.yaml:12 stages.score.rewards.right.path`, by which key it is there."""
    error = document.locate(RecipeError("", code.path))
    return f"{'imported, ' if code.imported else ''}{error.place} {'.'.join(code.path)}"


def _state(code: Code) -> str:
    return "installed" if code.is_installed else "trusted" if code.is_given else "NOT TRUSTED"
