"""What all commands share: Hydra composes, mistakes are answered in one line with an exit code.

0 done; 1 a bug, with its traceback; 2 anything wrong in the command or config; 3 data invalid;
4 diverged; 75 preempted and saved.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import detector
from detector.config.schema import walk
from detector.errors import ConfigError, Preempted, UserError, did_you_mean

PACKAGE = Path(detector.__file__).parent
CONFIGS = next(f for f in (PACKAGE / "configs", PACKAGE.parent / "configs") if f.is_dir())
"""The yaml files: a wheel holds them inside the package, a checkout beside it."""

VERSION_BASE = "1.3"

HYDRAS_OWN = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "logging.FileHandler",
    "logging.StreamHandler",
}
"""What Hydra's part of a config may name for Hydra to call."""

Run = Callable[[DictConfig], None]


def main(config_name: str, run: Run) -> None:
    """Composes `configs/CONFIG_NAME.yaml` with the command's overrides and calls `run` with it.

    Exits with the code of the error where there is one. Hydra's flags work: --help, --cfg, --info,
    --multirun, ... No folder or file of Hydra's own is written.
    """
    answered(lambda: _main(config_name, run, sys.argv[1:]))


def answered(call: Callable[[], None]) -> None:
    """Calls; a mistake of the user's is printed as one line, and the exit code is its own."""
    try:
        call()
    except UserError as error:
        _exit(error)
    except (HydraException, OmegaConfBaseException) as error:
        _exit(ConfigError(explain(error)))


def _main(config_name: str, run: Run, argv: list[str]) -> None:
    args = parse(argv)
    config = compose(args.config_name or config_name, args)
    if not wants_hydra(args):
        run(config)
        return
    errors: list[UserError] = []
    with tempfile.TemporaryDirectory() as folder:
        own = own_overrides(config_name, folder)
        # Beside the other overrides: argparse takes them as one group.
        position = argv.index(args.overrides[0]) if args.overrides else len(argv)
        sys.argv[1:] = [*argv[:position], *own, *argv[position:]]
        hydra.main(str(CONFIGS), config_name, VERSION_BASE)(_job(run, errors))()
    if errors:
        sys.exit(errors[0].exit_code)


def _job(run: Run, errors: list[UserError]) -> Run:
    """`run` as a job of a multirun: the others go on after an error, except where told to stop.

    Hydra would print a line of its own before passing an exception on.
    """

    def job(config: DictConfig) -> None:
        try:
            run(config)
        except Preempted as error:
            _exit(error)
        except UserError as error:
            errors.append(error)
            _print(error)

    return job


def _exit(error: UserError) -> NoReturn:
    _print(error)
    sys.exit(error.exit_code)


def _print(error: UserError) -> None:
    prefix = "" if isinstance(error, Preempted) else "error: "
    print(f"{prefix}{error}", file=sys.stderr)


def parse(argv: list[str]) -> argparse.Namespace:
    """Hydra's flags, and the overrides under `overrides`. Raises ConfigError for unknown flags."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args, unknown = parser.parse_known_args(argv)
    if unknown and unknown[0].startswith("-"):
        key = unknown[0].lstrip("-").partition("=")[0]
        value = "auto" if key == "resume" else "VALUE"
        raise ConfigError(f"{unknown[0]}: unknown flag; keys are written {key}={value}")
    if unknown:
        raise ConfigError(f"{unknown[0]}: flags such as -m come before or after all keys")
    if args.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun: refused, it would run what the file holds")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve: goes with --cfg or --help only")
    modes = [args.run, args.multirun, args.shell_completion, args.cfg, args.info]
    if sum(map(bool, modes)) > 1:
        raise ConfigError("only one of --run, --multirun, --cfg, --info, --shell-completion goes")
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def wants_hydra(args: argparse.Namespace) -> bool:
    """Whether the command asks for more than one plain run."""
    shows = args.help or args.hydra_help or args.cfg or args.info
    return bool(shows or args.multirun or args.shell_completion)


def own_overrides(config_name: str, folder: str) -> list[str]:
    """What keeps Hydra from making folders and log files in the working directory."""
    return [
        f"hydra.job.name={config_name}",
        "hydra.job.chdir=false",
        "hydra.run.dir=.",
        "hydra.output_subdir=null",
        "hydra/job_logging=none",
        f"hydra.sweep.dir={folder}",
        "hydra.sweep.subdir=.",
    ]


def compose(config_name: str, args: argparse.Namespace) -> DictConfig:
    """The composed config; of a multirun what its jobs have in common.

    Raises ConfigError where the config would have Hydra call something. A config from elsewhere
    (--config-dir) is data.
    """
    overrides = args.overrides
    parsed = OverridesParser.create().parse_overrides(overrides)
    check_choices(parsed)
    if args.multirun:
        overrides = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    if args.config_dir is not None:
        folder = Path(args.config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: {folder} is not a folder")
        quoted = str(folder).replace("'", r"\'")
        overrides = [*overrides, f"hydra.searchpath=['file://{quoted}']"]
    folder = Path(args.config_path).resolve() if args.config_path else CONFIGS
    with hydra.initialize_config_dir(str(folder), version_base=VERSION_BASE):
        config = hydra.compose(config_name, overrides, return_hydra_config=True)
    refuse_code(OmegaConf.to_container(config.hydra, resolve=False))
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The composed config of a call from Python, which has overrides and no flags.

    Raises ConfigError where they do not compose.
    """
    for word in overrides:
        if word.startswith("-"):
            raise ConfigError(f"{word}: overrides are written KEY=VALUE here, flags are refused")
    try:
        return compose(config_name, parse([*overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None


def check_choices(overrides: list[Override]) -> None:
    """Raises ConfigError for a key without letters, and for what cannot name a file of a group."""
    for override in overrides:
        group, value = override.key_or_group, override.value()
        if not group:
            raise ConfigError(f"{override.input_line}: a key is missing; see --help")
        if override.is_delete() or override.is_sweep_override() or group not in groups():
            continue
        if not isinstance(value, str | list):
            names = sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))
            raise ConfigError(
                f"{override.input_line}: a name is needed; allowed: {', '.join(names)}"
            )


def refuse_code(node: Any) -> None:
    """Raises ConfigError where Hydra's part of a config names code that is not Hydra's own.

    Hydra instantiates its launcher, sweeper and callbacks, and logging its handlers, by path.
    """
    for path, key, value in walk(node, "hydra"):
        if key in ("_target_", "()", "class") and value not in HYDRAS_OWN:
            raise ConfigError(f"{path}: {value!r} is refused, a config cannot name code to run")


def explain(error: Exception) -> str:
    """An error of Hydra's or OmegaConf's as one line that says what is allowed."""
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        group, _, name = error.missing_cfg_file.rpartition("/")
        hint = did_you_mean(name, error.options)
        return f"{group}={name}: unknown{hint}; allowed: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not understood, keys are written KEY=VALUE; see --help (a value "
            "with signs such as = or ( is written in quotes of its own: \"KEY='VALUE'\")"
        )
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        unknown = explain_unknown_key(cause, cause.parent_node)
        if unknown is not None:
            return unknown
    text = str(error) or str(cause)
    return " ".join(text.split())


def explain_unknown_key(error: OmegaConfBaseException, parent: DictConfig) -> str | None:
    """What is said where `parent` has no such key; None where it has."""
    key = str(error.key)
    if key in parent:
        return None
    path = error.full_key or key
    allowed = [str(k) for k in parent if k != "hydra"]
    if "." not in path:
        allowed += [name for name in groups() if name not in allowed]
    return (
        f"{path}: unknown key{did_you_mean(key, allowed)}; allowed: {', '.join(allowed) or 'none'}"
    )


def groups() -> Iterable[str]:
    """Names of the folders of `configs`."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())
