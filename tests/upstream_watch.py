"""What the code of other packages does with the members of an object: which it reads, and which it sets."""

import importlib
import inspect
import sys
from types import CodeType, ModuleType
from typing import Any

PACKAGES = ("trl", "transformers", "accelerate")


class Watch:
    """Names of members, as the code of PACKAGES has used them: while an object was made, and after."""

    def __init__(self):
        self.made, self.read_while_made, self.read, self.set = False, set(), set(), set()


def watched(cls: type) -> type:
    """A subclass whose `watch` says what other packages have read and set of its instances."""

    class Watched(cls):
        watch = Watch()

        def __init__(self, *args: Any, **kwargs: Any):
            self.watch.made = False
            super().__init__(*args, **kwargs)
            self.watch.made = True

        def __getattribute__(self, name: str) -> Any:
            if _is_theirs(sys._getframe(1)):
                watch = Watched.watch
                (watch.read if watch.made else watch.read_while_made).add(name)
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if _is_theirs(sys._getframe(1)):
                Watched.watch.set.add(name)
            super().__setattr__(name, value)

    Watched.__name__ = cls.__name__
    return Watched


def _is_theirs(frame: Any) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in PACKAGES


class Reads(dict):
    """A dictionary that remembers which of its keys were asked for."""

    def __init__(self, content: dict[str, Any]):
        super().__init__(content)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def find(path: str) -> Any:
    """The module, class or member that an import path names; None where there is none."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            target: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for name in parts[count:]:
            target = getattr(target, name, None)
        return target
    return None


def parameters(function: Any) -> tuple[str, ...]:
    """The names of a function's parameters, without `self`."""
    return tuple(name for name in inspect.signature(function).parameters if name != "self")


def looks_up(module: ModuleType, name: str) -> bool:
    """Whether functions of the module look that name up when they run, so that one that is put there is used."""
    code = compile(inspect.getsource(module), str(module.__file__), "exec")
    return any(_mentions(function, name) for function in _inside(code))


def _inside(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _mentions(code: CodeType, name: str) -> bool:
    return name in code.co_names or any(_mentions(part, name) for part in _inside(code))
