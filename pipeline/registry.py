"""Components by name: data sets, segmenters, models and groups of metrics.

A component is one module that registers itself. Those of ProtoMask lie in one package; those of a
team's own package are found by its entry points.
"""

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar

from pipeline.errors import ProtoMaskError

T = TypeVar("T")


class Registry(Generic[T]):
    """The components of a kind; the module of a component is imported when it is asked for.

    Args:
        kind: what they are called in messages, as in `model`.
        package: the package whose modules register components, mostly under the module's name.
        group: the group of entry points by which other packages add components: a component's name
            and the module that registers it.
        module: the module that registers a component, where that is a package in `package`; by
            default it is called like the kind, as in `sam2.segmenter`.
    """

    def __init__(self, kind: str, package: str, group: str, module: str | None = None) -> None:
        self.kind, self.package, self.group = kind, package, group
        self.module = module or kind.replace(" ", "_")
        self._known: dict[str, T] = {}

    def add(self, name: str, component: T) -> None:
        """Registers a component under a name.

        Raises:
            ProtoMaskError: another component has this name.
        """
        if self._known.setdefault(name, component) is not component:
            raise ProtoMaskError(f"two components are called {name!r}: rename one {self.kind}")

    def names(self) -> list[str]:
        """Returns the names of all components, sorted; imports all.

        Raises:
            ProtoMaskError: the module of an entry point cannot be imported.
        """
        for module in self._modules().values():
            self._import(module)
        return sorted(self._known)

    def own(self) -> list[str]:
        """Returns the names of the modules of ProtoMask's own components; imports none."""
        return sorted(self._own_modules())

    def __getitem__(self, name: str) -> T:
        """Returns the component of a name.

        Raises:
            ProtoMaskError: there is none; the message names those there are.
        """
        if name not in self:
            raise self._unknown(name)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a component of a name.

        Imports the module of that name, and the others only if it registers no such component.
        """
        if not isinstance(name, str):
            return False
        if name not in self._known and name in (modules := self._modules()):
            self._import(modules[name])
        return name in self._known or name in self.names()

    def refuse_unknown(self, name: str) -> None:
        """Checks a name without an import, where a module is called so.

        Raises:
            ProtoMaskError: there is no such component; the message names those there are.
        """
        if name not in self._modules() and name not in self:
            raise self._unknown(name)

    def _unknown(self, name: object) -> ProtoMaskError:
        names = self.names()
        there_are = f"(there are: {', '.join(names)})"
        module = self._modules().get(str(name))
        if module:
            return ProtoMaskError(
                f"{module} registers no {self.kind} called {name!r}: give the {self.kind} the name "
                f"of its module {there_are}"
            )
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return ProtoMaskError(f"there is no {self.kind} {name!r}{hint} {there_are}")

    def _import(self, module: str) -> None:
        """Imports a module; that of an entry point may be missing, or something that it imports."""
        try:
            import_module(module)
        except ImportError as error:
            if module not in {entry.module for entry in _entries(self.group)}:
                raise
            raise ProtoMaskError(
                f"the entry point of a {self.kind} in {self.group} names the module {module}, "
                f"which cannot be imported: {error}"
            ) from error

    def _own_modules(self) -> dict[str, str]:
        """Returns the modules of the package by their names, without `base`."""
        return {
            module.name: ".".join([self.package, module.name, *[self.module] * module.ispkg])
            for module in iter_modules(import_module(self.package).__path__)
            if module.name != "base"
        }

    def _modules(self) -> dict[str, str]:
        """Returns the modules that register components, by their names.

        Raises:
            ProtoMaskError: two packages, or a package and ProtoMask, have a component of one name.
        """
        modules = self._own_modules()
        for entry in _entries(self.group):
            if modules.setdefault(entry.name, entry.module) != entry.module:
                raise ProtoMaskError(
                    f"{modules[entry.name]} and {entry.module} are both modules of a {self.kind} "
                    f"called {entry.name!r}: rename the entry point of one in {self.group}"
                )
        return modules


@cache
def _entries(group: str) -> tuple[EntryPoint, ...]:
    """Returns the entry points of installed packages; finding them reads all packages' metadata."""
    return tuple(entry_points(group=group))
