"""Registries of named parts, filled by a decorator in the part's own file and by nothing else.

A registry knows the package its parts live in and imports every module of that package on first use, so adding a part
means adding a file: lists, catalogue pages and contract tests find it by themselves.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from embattle.errors import ConfigError

Part = TypeVar("Part", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered part: what it is called, how to build it, an example for the contract tests, where it comes from.

    `build` is the decorated class or factory; `example()` builds a small ready-to-use instance; `paper` names paper and
    section; `access` is what the attacker needs ("gradient", "embedding", "none"); `differs` says where ours departs
    from the source.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    example: Callable[[], Any]
    paper: str
    access: str
    differs: str

    @property
    def summary(self) -> str:
        """First line of the part's docstring."""
        return (self.build.__doc__ or "").strip().split("\n", 1)[0]


class Registry:
    """Parts of one kind by name; iterating gives their entries sorted by name."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._scanned = False

    def register(
        self,
        name: str,
        *,
        example: Callable[[], Any] | None = None,
        paper: str = "",
        access: str = "",
        differs: str = "",
    ) -> Callable[[Part], Part]:
        """Decorator that enters a class or factory under `name`.

        Raises:
            ConfigError: the name is taken.
        """

        def enter(build: Part) -> Part:
            if name in self._entries and self._entries[name].build.__module__ != build.__module__:
                raise ConfigError(f"two {self.kind}s are called {name!r}; give one of them another name")
            self._entries[name] = Entry(
                kind=self.kind, name=name, build=build, example=example or build, paper=paper, access=access,
                differs=differs,
            )  # fmt: skip
            return build

        return enter

    def _scan(self) -> None:
        if self._scanned:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, prefix=f"{self._package}."):
            importlib.import_module(module.name)
        self._scanned = True

    def __getitem__(self, name: str) -> Entry:
        """The entry called `name`; a ConfigError with the nearest names otherwise."""
        self._scan()
        if name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(name, self._entries, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ConfigError(f"no {self.kind} is called {name!r}{hint} Known: {', '.join(sorted(self._entries))}.")

    def __iter__(self) -> Iterator[Entry]:
        self._scan()
        return iter([self._entries[name] for name in sorted(self._entries)])

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries
