"""Names in a config -> classes of this package.

A config names a part (`name: focal`) and states its options; nothing in a config is ever imported
or called by path, so that loading somebody's checkpoint cannot run code.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from detector.config.ranges import checked
from detector.config.schema import Plug, coerce_options, options_of
from detector.errors import ConfigError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """The classes that one group of the config may name.

    kind: the config's group, the first word of its messages. module: the package (or module) whose
    files are imported on first use, so that a new file is all that a new entry needs.
    """

    def __init__(self, kind: str, module: str) -> None:
        self.kind = kind
        self.module = module
        self._classes: dict[str, type[Any]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: the class answers to `name`, and its options stay in their ranges,
        whoever constructs it."""

        def decorate(cls: C) -> C:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is taken by {self._classes[name]}")
            self._classes[name] = cls
            if inspect.isfunction(cls.__init__):
                cls.__init__ = checked(cls.__init__)
            return cls

        return decorate

    @property
    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """The class of a name. Raises ConfigError, naming all and the nearest."""
        self._load()
        if name not in self._classes:
            hint = did_you_mean(name, self._classes)
            raise ConfigError(
                f"{self.kind}={name}: unknown{hint}; allowed: {', '.join(self.names)}"
            )
        return self._classes[name]

    def build(self, plug: Plug, *context: Any) -> T:
        """The part itself: `context` as positional arguments, the plug's options as keywords.

        Raises ConfigError for an unknown name, an unknown option, or a value that is not allowed.
        """
        cls = self.get(plug.name)
        options = self.check(plug)
        try:
            return cls(*context, **options)
        except ConfigError as error:
            raise ConfigError(f"{self.kind}.{error}") from None

    def check(self, plug: Plug) -> Mapping[str, Any]:
        """The plug's options, each of the type that the constructor declares."""
        return coerce_options(options_of(self.get(plug.name)), plug.options, self.kind)

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.module)
        for info in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self.module}.{info.name}")
        self._loaded = True


LOSSES: Registry[Any] = Registry("loss", "detector.losses")
BOX_LOSSES: Registry[Any] = Registry("box_loss", "detector.box_losses")
MATCHERS: Registry[Any] = Registry("matcher", "detector.matchers")
BACKBONES: Registry[Any] = Registry("backbone", "detector.models.backbones")
NECKS: Registry[Any] = Registry("neck", "detector.models.necks")
DATASETS: Registry[Any] = Registry("data", "detector.data.readers")
SAMPLERS: Registry[Any] = Registry("sampler", "detector.data.samplers")
AUGMENTATIONS: Registry[Any] = Registry("augment", "detector.data.augmentations")
OPTIMIZERS: Registry[Any] = Registry("optim", "detector.optim.optimizers")
SCHEDULES: Registry[Any] = Registry("schedule", "detector.optim.schedules")

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry
    for registry in (
        LOSSES,
        BOX_LOSSES,
        MATCHERS,
        BACKBONES,
        DATASETS,
        AUGMENTATIONS,
        OPTIMIZERS,
        SCHEDULES,
        NECKS,
        SAMPLERS,
    )
}
"""By kind, which is the key of the part in a config."""


def import_plugins(names: Iterable[str]) -> None:
    """Imports modules that register parts of a user's own.

    To be called with names that come from the command line or the user's own yaml, never with
    those in a checkpoint: importing runs code. The working directory is searched last.
    Raises ConfigError for a module that is not there.
    """
    for name in names:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and what it imports is not
            raise ConfigError(
                f"plugins: there is no module {name}; a module that can be imported from "
                f"{os.getcwd()} or is installed is needed"
            ) from None


def require_known(parts: Mapping[str, Plug], plugins: Iterable[str], source: str) -> None:
    """Raises ConfigError where a checkpoint names parts that only its plugins know.

    parts: by kind. plugins: as the checkpoint lists them; they are named, not imported.
    """
    for kind, plug in parts.items():
        if plug.name not in REGISTRIES[kind].names and plugins:
            listed = ",".join(plugins)
            raise ConfigError(
                f"{source}: {kind}={plug.name} is not known here; it was made with plugins, which "
                f"run code and are imported only if you say so: plugins=[{listed}]"
            )
