"""How large compressed data files become: looked at piece by piece before anything reads them as a whole.

A file of a few kilobytes may stand for terabytes. What its header says of that is the word of whoever made it, so the
content itself is unpacked and counted, and no further than the limit.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import glob
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import cache_folder, fingerprint, write_atomically

RATIO = 200  # bytes out of one, of text that is text about 10
LARGEST_FREE = 256 << 20  # bytes that any file may become, whatever the ratio
DENSEST = 50_000  # bytes out of one that any format reaches
PIECE = 1 << 20
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)


def check(name: str, limit: float | None, path: Sequence[str]) -> None:
    """Raises RecipeError where a local file, or one of a folder or pattern, becomes more than `limit` GB.

    Without a limit that is RATIO times its own size, and LARGEST_FREE at least.
    """
    place = Path(name).expanduser()
    files = [Path(match) for match in glob.glob(str(place))] if "*" in name else [place]
    for file in place.rglob("*") if place.is_dir() else files:
        if file.is_file() and file.stat().st_size * DENSEST > LARGEST_FREE:
            _check(file, limit, path)


def _check(file: Path, limit: float | None, path: Sequence[str]) -> None:
    status = file.stat()
    most = max(RATIO * status.st_size, LARGEST_FREE) if limit is None else int(limit * 1e9)
    memo = cache_folder("unpacked") / fingerprint([str(file.resolve()), status.st_size, status.st_mtime_ns])
    if memo.exists() and int(memo.read_text()) <= most:
        return
    count = 0
    try:
        for piece in _pieces(file):
            count += piece
            if count > most:
                raise RecipeError(
                    f"{file} has {status.st_size / 1e6:.3g} MB and unpacks to more than {most / 1e9:.3g} GB: where "
                    "that is right, say with `unpacked_gb` of the dataset what it may become",
                    path,
                )
    except BROKEN:
        return  # whoever reads it says what is wrong with it
    with contextlib.suppress(OSError):  # a read-only home costs time, not the run
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memo, str(count))


def _pieces(file: Path) -> Iterator[int]:
    """The sizes of the pieces that a file unpacks to, none of them large; nothing of a file that is not packed."""
    with file.open("rb") as opened:
        head = opened.read(6)
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                yield from _read(functools.partial(archive.open, member))
    elif head.startswith(b"PAR1"):
        yield from _parquet(file)
    for magic, opener in OPENERS.items():
        if head.startswith(magic):
            yield from _read(functools.partial(opener, file))


def _read(opener: Callable[[], Any]) -> Iterator[int]:
    with opener() as stream:
        while piece := stream.read(PIECE):
            yield len(piece)


def _stream(codec: str, file: Path) -> Any:
    """A stream of what the file holds, by pyarrow, which datasets brings along."""
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), codec)


def _parquet(file: Path) -> Iterator[int]:
    """What the row groups of a Parquet file become: a reader takes no more than the footer says, and a byte a cell."""
    from pyarrow import parquet

    footer = parquet.ParquetFile(file).metadata
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        yield max(group.total_byte_size, group.num_rows * group.num_columns)


OPENERS: dict[bytes, Callable[[Path], Any]] = {  # by what a file begins with
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": functools.partial(_stream, "zstd"),
    b"\x04\x22\x4d\x18": functools.partial(_stream, "lz4"),
}
