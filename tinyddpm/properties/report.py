"""What became of each identity: in words, as a table, as JSON; and where an adapter is found by name. Next: own.py."""

import importlib
import os
import sys
from dataclasses import dataclass

from tinyddpm.properties.adapter import Adapter, AdapterError
from tinyddpm.properties.cases import Case, Identity, disagreement

__all__ = ["Result", "Report", "load_adapters"]


@dataclass(frozen=True)
class Result:
    """The result for one identity.

    status: "holds", "fails", "mistake" (of the adapter) or "not checked". example: the smallest Case that shows it.
    """

    identity: Identity
    status: str
    example: Case | None = None

    @property
    def words(self):
        """What was found, and what was expected; None if it holds."""
        if self.example is None:
            return None
        try:
            return disagreement(self.identity, self.example) or "gave another result the next time"
        except AdapterError as error:
            return f"the adapter: {error}"

    def __str__(self):
        line = f"{self.status:12}{self.identity.name}: {self.identity.statement}"
        return line if self.example is None else f"{line}\n    smallest example: {self.example}\n    {self.words}"


@dataclass(frozen=True)
class Report:
    """One Result for each identity, in the order of IDENTITIES."""

    results: tuple

    def names(self, status):
        """The names of the identities of that status: "holds", "fails", "mistake" or "not checked"."""
        return [result.identity.name for result in self.results if result.status == status]

    @property
    def passed(self):
        """Whether nothing fails, and the adapter has no mistake."""
        return not self.names("fails") and not self.names("mistake")

    def __str__(self):
        return "\n".join(str(result) for result in self.results)

    def rows(self):
        """The same as dicts of strings: name, status, statement, example and words."""
        return [
            {
                "name": result.identity.name,
                "status": result.status,
                "statement": result.identity.statement,
                "example": None if result.example is None else str(result.example),
                "words": result.words,
            }
            for result in self.results
        ]

    def raise_if_failed(self):
        """Raise AssertionError if an identity fails or the adapter is wrong; it gives the smallest example of each."""
        failed, mistaken = ([r for r in self.results if r.status == status] for status in ("fails", "mistake"))
        heads = [f"{len(failed)} identities fail"] * bool(failed) + ["the adapter is wrong"] * bool(mistaken)
        if heads:
            raise AssertionError(", ".join(heads) + "\n" + "\n".join(map(str, mistaken + failed)))


def load_adapters(name):
    """The adapters that `package.module:factory` names: a function or class to call, an Adapter, or several.

    Modules are looked for in the working directory too. Raises ValueError where there is none.
    """
    module, colon, attribute = name.partition(":")
    if not module or not colon or not attribute:
        raise ValueError(f"name an adapter as package.module:factory, got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"cannot import {module}: {error}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ValueError(f"{module} has no {attribute}: {error}") from error
    if callable(found) and not isinstance(found, Adapter):
        found = found()
    adapters = [found] if isinstance(found, Adapter) else list(found) if isinstance(found, list | tuple) else [found]
    for adapter in adapters:
        if not isinstance(adapter, Adapter):
            raise ValueError(f"{name} must give an Adapter or several, got {type(adapter).__name__}")
    return adapters
