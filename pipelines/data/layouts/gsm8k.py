"""Layout `gsm8k`: GSM8K's `question` and its worked `answer`, which ends with "#### 42".

data: {path: openai/gsm8k, name: main, layout: gsm8k}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import MESSAGES, TEXT, Layout, Row, message

if TYPE_CHECKING:
    from datasets import Features

CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass(kw_only=True)
class Gsm8k(Layout):
    """The column `answer` becomes the number alone, for a reward.

    With `calculator`, marks such as <<2+2=4>> stay in the solution.
    """

    calculator: bool = False

    title: ClassVar[str] = "GSM8K's"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("question", "answer"),)

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        return super().fits(features, first) and isinstance(first["answer"], str) and "#### " in first["answer"]

    def gives(self, names: Iterable[str]) -> dict[str, str]:
        return {"prompt": MESSAGES, "completion": MESSAGES, "answer": TEXT}

    def convert(self, row: Row) -> Iterator[Row]:
        solution = row["answer"]
        _, mark, number = solution.rpartition("####")
        if not mark:
            raise ValueError("the answer has no '####' before its number")
        if not self.calculator:
            solution = CALCULATOR.sub("", solution)
        yield {
            "prompt": [message("user", row["question"])],
            "completion": [message("assistant", solution)],
            "answer": number.strip().replace(",", ""),
        }
