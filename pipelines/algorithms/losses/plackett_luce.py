"""The Plackett-Luce likelihood of a ranking under implicit rewards: `dpo` by the name of its list form."""

from __future__ import annotations

from trimtab.pipelines.algorithms.losses.dpo import dpo as plackett_luce

__all__ = ["plackett_luce"]
