"""Argilla's records, as `dataset.records.from_json` reads them and `dataset.records.to_json` writes them.

A record has the fields `prompt`, `answer_1`, `answer_2`, ... in the order in which they are shown, which its metadata
keep. It is answered by a LabelQuestion `preference` (`answer_1`, ..., `tie`, `skip`), or where several answers are to
be named by a RankingQuestion `ranking`; a TextQuestion `reason` is read where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.pipelines.labelling.formats import shuffled, turns
from trimtab.pipelines.labelling.questions import Sheet

ANSWER = "answer_"


def recognises(content: Any) -> bool:
    """Whether it is a list of records."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "responses" in content[0]


def write(sheet: Sheet) -> dict[str, str]:
    """The records, without answers."""
    records = []
    for question in sheet.questions:
        shown = shuffled(question)
        fields = {f"{ANSWER}{number}": question.answers[place] for number, place in enumerate(shown, start=1)}
        records.append(
            {
                "id": question.id,
                "fields": {"prompt": turns(question), **fields},
                "metadata": {"shown": ",".join(map(str, shown))},
                "suggestions": {},
                "responses": {},
                "vectors": {},
            }
        )
    return {"records.json": json.dumps(records, indent=1, ensure_ascii=False) + "\n"}


def read(content: Any, sheet: Sheet) -> Iterator[dict[str, Any]]:
    """The judgements in the responses; a response without a value is none."""
    for record in content:
        shown = [int(place) for place in str(record["metadata"]["shown"]).split(",")]
        responses = record["responses"]
        reasons = {given["user_id"]: given["value"] for given in responses.get("reason", ())}
        for given in (*responses.get("preference", ()), *responses.get("ranking", ())):
            if given["value"]:
                common = {"question": record["id"], "rater": str(given["user_id"]), "shown": shown}
                yield common | {"reason": reasons.get(given["user_id"])} | _verdict(given["value"], shown)


def _verdict(value: Any, shown: list[int]) -> dict[str, Any]:
    if value in ("tie", "skip"):
        return {"verdict": value}
    named = [value] if isinstance(value, str) else [_name(one) for one in sorted(value, key=_rank)]
    return {"verdict": "ranked", "order": [shown[int(name.removeprefix(ANSWER)) - 1] for name in named]}


def _name(value: str | Mapping[str, Any]) -> str:
    return value if isinstance(value, str) else value["value"]


def _rank(value: str | Mapping[str, Any]) -> int:
    """Where a value stands in a ranking; plain ones are in their order already."""
    return 0 if isinstance(value, str) else value["rank"]
