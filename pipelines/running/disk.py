"""What the disk refuses, as a sentence: what was not written, how much is free, and that nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails (input/output error)",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENAMETOOLONG: "the name is too long for this disk",
    errno.EACCES: "there is no permission to write",
    errno.EPERM: "there is no permission to write",
}
ABOUT_A_PATH = (
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.EROFS,
)  # of a run's disk by their path
# how torch, safetensors and Arrow say it, without a number
FULL = re.compile(r"iostream error|No space left on device|os error 28|PytorchStreamWriter failed|file write failed")
CLEARLY = 0.5  # of what is forecast: less than that is no matter of a guess
GOES_ON = "Nothing that is done is lost, and the same command goes on once that is mended"


class Refused(Exception):
    """The disk does not take what has to be written, with the sentence of `refusal`."""


def require_room(folder: Path, needed: float) -> None:
    """Raises OSError where the disk has clearly no room for what a step is forecast to write, in its folder."""
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())  # of the launch before
    if shutil.disk_usage(folder).free + there < CLEARLY * needed:
        reason = f"{os.strerror(errno.ENOSPC)}: about {needed / 1e6:,.1f} MB are to come"
        raise OSError(errno.ENOSPC, reason, str(folder / "output"))


def refusal(error: BaseException, folder: Path) -> str | None:
    """The sentence for an exception that is of the disk on which `folder` lies, or would; None for any other."""
    for link in _chain(error):
        number = link.errno if isinstance(link, OSError) else None
        if number is None and FULL.search(str(link)):
            number = errno.ENOSPC
        named = link.filename if isinstance(link, OSError) else None
        path = Path(str(named)) if named else folder
        is_ours = path.absolute().is_relative_to(folder.absolute())
        if number in REFUSALS and (is_ours or number not in ABOUT_A_PATH):
            what = f"{path} was not written" if named and is_ours else f"no more can be written in {folder}"
            what += _need(link)
            return f"{REFUSALS[number]}: {what}; {_free(folder)}. {GOES_ON}"
    return None


def _need(error: BaseException) -> str:
    """What is said of the need, where the disk was not even tried."""
    said = error.strerror if isinstance(error, OSError) else None
    prefix = f"{os.strerror(errno.ENOSPC)}: "
    return f" ({said.removeprefix(prefix)})" if said and said.startswith(prefix) else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _free(folder: Path) -> str:
    there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB are free there"
