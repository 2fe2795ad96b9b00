"""Whether wandb's server answers, asked once for a run: without a network there are offline files, and no waiting."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from trimtab.pipelines.recording import tracking

SECONDS = 4.0
MODE = "WANDB_MODE"


def settle() -> str | None:
    """Turns wandb offline, for this process and those it starts, where a key is set and no server answers.

    Returns the sentence that says so. Not asked without a key, or where WANDB_MODE has decided.
    """
    if os.environ.get(MODE) or not tracking.has_key():
        return None
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if _answers(server):
        return None
    os.environ[MODE] = "offline"
    return f"{server} does not answer: wandb keeps offline files, which `wandb sync` takes (docs/tracking.md)"


def _answers(server: str) -> bool:
    """Whether a server sends anything back within SECONDS, an error included."""
    replies: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(server, timeout=SECONDS).close()
            replies.append(True)
        except urllib.error.HTTPError:
            replies.append(True)
        except (OSError, ValueError):
            replies.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # the look-up of a name knows no time limit
    thread.start()
    thread.join(SECONDS)
    return replies == [True]
