"""`trimtab push`: a finished model to the hub, with its card, under a name that says which stage it is of."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import artifacts, views
from trimtab.pipelines.reporting import card, records
from trimtab.pipelines.reporting.numerals import size
from trimtab.pipelines.reporting.records import Record

SILENCE = 120.0  # seconds without a byte after which a hub is given up
YOU = "YOU"  # in a dry run, which asks nobody who that is


@dataclass(frozen=True)
class Parcel:
    """What goes where: the files of `folder`, with the `card`, to the repository `name`."""

    name: str
    folder: Path
    card: str

    @property
    def files(self) -> list[Path]:
        """The files, by their names in the repository."""
        return sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())

    def __str__(self) -> str:
        sizes = [(self.folder / name).stat().st_size for name in self.files]
        lines = [f"  {name}  {size(count)}" for name, count in zip(self.files, sizes, strict=True)]
        return "\n".join([f"{self.name}: {len(lines)} files, {size(sum(sizes))}", *lines])


@contextlib.contextmanager
def packed(place: Path, name: str | None, *, dtype: str | None = None, adapter: bool = False) -> Iterator[Parcel]:
    """The parcel of a finished step in a recipe's folder, `runs/mine/dpo`; its own files are not touched.

    With `dtype` the weights are copied and rounded, with `adapter` it is what LoRA has trained, without the model.
    Raises RecipeError for what is no finished model.
    """
    record = records.read(place / "output")
    folder = place / artifacts.ADAPTER if adapter else record["output"]
    if not record["done"]:
        raise RecipeError(
            f"{place} is no finished step: name its link in the folder of the recipe, as in runs/mine/dpo"
        )
    if adapter and not folder.is_dir():
        raise RecipeError(f"{place} keeps no adapter: train with `use_peft: true`, and with `keep: adapter` or `all`")
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(f"{place} is a {record['kind']}: it holds no model")
    with tempfile.TemporaryDirectory(dir=place.resolve().parent, prefix=".push-") as temporary:
        staged = Path(temporary) / "model"
        copy = shutil.copy2 if dtype else _linked
        shutil.copytree(folder, staged, copy_function=copy, ignore=shutil.ignore_patterns("optimizer", "README.md"))
        if dtype:
            from trimtab.pipelines.training.precision import cast

            cast(staged, dtype)
        written = card.render(record, _others(place), recipe=_recipe(place), commit=commit())
        (staged / "README.md").write_text(written, encoding="utf-8")
        yield Parcel(name or f"{YOU}/{place.absolute().parent.name}-{place.name}", staged, written)


def send(parcel: Parcel, *, private: bool = False) -> str:
    """Uploads a parcel in one commit and returns its address. Raises RecipeError where the hub takes none."""
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import HfHubHTTPError

    silence, get_session().timeout = get_session().timeout, SILENCE  # the library itself would wait for ever
    transport_error = HfHubHTTPError.__bases__[0]  # of the HTTP library that the hub's is made with
    api = HfApi()
    try:
        organisation, _, word = parcel.name.partition("/")
        name = f"{api.whoami()['name']}/{word}" if organisation == YOU else parcel.name
        api.create_repo(name, private=private, exist_ok=True)
        said = api.upload_folder(repo_id=name, folder_path=parcel.folder, commit_message=f"{word}, pushed by trimtab")
    except (transport_error, OSError, ValueError) as error:
        said_of_it = str(error).strip().splitlines()
        reason = said_of_it[-1] if said_of_it else type(error).__name__
        cure = "Log in with `hf auth login`" if isinstance(error, OSError) else f"Asked was {api.endpoint}"
        raise RecipeError(f"the hub did not take {parcel.name}: {reason}. {cure}") from None
    finally:
        get_session().timeout = silence
    return str(said.commit_url).partition("/commit/")[0]


def _linked(source: str, target: str) -> str:
    """A link to a file in the place of a copy."""
    Path(target).symlink_to(Path(source).resolve())
    return target


def _others(place: Path) -> list[Record]:
    """The finished steps of the recipe's folder."""
    folders = sorted(path for path in place.absolute().parent.iterdir() if (path / "done.json").is_file())
    return [records.read(folder / "output") for folder in folders]


def _recipe(place: Path) -> str:
    """The YAML of the recipe, where its file is still there."""
    plans = views.plans(place.absolute().parent)
    file = Path(plans[-1]["path"]) if plans else Path()
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def commit() -> str:
    """The commit of the checkout, "" of an installed package."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return ""
