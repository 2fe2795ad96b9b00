"""Conversations written as one text, in which a marker opens every turn."""

from __future__ import annotations

import re

from trimtab.pipelines.data.layouts import Row, message

USER, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def turns(text: str, user: str = USER, assistant: str = ASSISTANT) -> list[Row]:
    """The messages of a text; spaces around a turn are cut, and the first marker needs no line breaks before it.

    A last, empty turn of the assistant's is the place for an answer and no message. Raises ValueError for a text that
    does not begin with a marker.
    """
    roles = {user.strip(): "user", assistant.strip(): "assistant"}
    started = text.lstrip()
    opener = next((marker for marker in (user, assistant) if started.startswith(marker.strip())), None)
    if opener is None:
        raise ValueError(f"a text begins with {started[:40]!r}, not with {user.strip()!r} or {assistant.strip()!r}")
    _, *pieces = re.split(f"({re.escape(user)}|{re.escape(assistant)})", opener + started[len(opener.strip()) :])
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    messages = [message(roles[marker.strip()], content.strip()) for marker, content in pairs]
    is_place = messages[-1] == message("assistant", "")
    return messages[:-1] if is_place else messages
