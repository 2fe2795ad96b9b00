"""Trimtab: one recipe chains SFT, reward models, preference optimisation, constrained RLHF and curated retraining."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.pipelines.planning.errors import RecipeError
    from trimtab.pipelines.running.recipes import Recipe, RunFailed

__all__ = ["Recipe", "RecipeError", "RunFailed"]


def __getattr__(name: str) -> Any:
    """The names above, imported when they are asked for: a reward needs none of the pipeline."""
    if name in ("Recipe", "RunFailed"):
        from trimtab.pipelines.running import recipes

        return getattr(recipes, name)
    if name == "RecipeError":
        from trimtab.pipelines.planning.errors import RecipeError

        return RecipeError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
