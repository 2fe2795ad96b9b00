"""The page of a sheet as one HTML file, which loads nothing: opened as a file or served, it is the same."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from trimtab.pipelines.labelling.questions import Sheet


def render(sheet: Sheet) -> str:
    """The page. It does not say which answers are known; its own script is the only one that a browser runs."""
    import jinja2
    from markupsafe import Markup

    folder = Path(__file__).parent
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    asked = {
        "key": sheet.key,
        "ranked": sheet.ranked,
        "reasons": sheet.reasons,
        "questions": [
            {"id": question.id, "prompt": question.prompt, "answers": question.answers} for question in sheet.questions
        ],
    }
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True)
    return environment.get_template("page.html.j2").render(
        sheet=sheet,
        asked=asked,
        style=Markup(style),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
