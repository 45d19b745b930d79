"""What all commands share: Hydra composes, mistakes are answered in one line with an exit code.

0 done; 1 a bug, with its traceback; 2 anything wrong in the command or config; 3 data invalid;
4 diverged; 75 preempted and saved; 130 Ctrl-C, where there was nothing to save.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1

import hydra
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.cli import described, typed, yaml_files
from detector.cli.endings import interrupted
from detector.cli.yaml_files import CONFIGS
from detector.config.schema import walk
from detector.errors import ConfigError, Preempted, StorageError, UserError, did_you_mean
from detector.runtime.output import is_closed_pipe, steady_output

VERSION_BASE = "1.3"

SET_BY_HYDRA = ("hydra.searchpath", "hydra.runtime", "hydra.overrides", "hydra.job")
"""What Hydra writes into its own part of a config while it composes: where files lie and what the
command says. `hydra.job` is looked at key by key."""

OF_THE_JOB = ("hydra.job.name", "hydra.job.config_name", "hydra.job.override_dirname")

RUNS_CODE = ("plugins", "slurm")
"""Keys whose values are run: modules to import, and commands for a cluster's job."""

Run = Callable[[DictConfig], None]

yaml_files.install()


def main(config_name: str, run: Run) -> None:
    """Composes `configs/CONFIG_NAME.yaml` with the command's overrides and calls `run` with it.

    Exits with the code of the error where there is one. Hydra's flags work: --help, --cfg, --info,
    --multirun, ... No folder or file of Hydra's own is written.
    """
    answered(lambda: _main(config_name, run, sys.argv[1:]), config_name)


def say_loading() -> None:
    """A word on a terminal before configs and libraries are loaded, which takes seconds; the next
    line takes its place. None where something is asked for by a flag."""
    is_asked = any(word.startswith("-") for word in sys.argv[1:])
    is_shown = sys.stderr is not None and sys.stderr.isatty()  # None where it was closed
    if is_shown and os.environ.get("RANK", "0") == "0" and not is_asked:
        print("\rloading PyTorch ...", end="\r", file=sys.stderr, flush=True)


def answered(call: Callable[[], None], name: str) -> None:
    """Calls; a mistake of the user's is printed as one line, and the exit code is its own.

    name: of the command, for what the system says of a file, a disk or memory: it knows no key.
    """
    with steady_output() as (out, _):
        try:
            call()
        except UserError as error:
            _exit(error)
        except (HydraException, OmegaConfBaseException) as error:
            _exit(ConfigError(explain(error)))
        except KeyboardInterrupt:
            sys.exit(interrupted())
        except Exception as error:
            line = of_the_system(error)
            if line is None:
                raise  # a bug, which its traceback explains
            _exit(ConfigError(f"{name}: {line}"))
    if name != "train" and out.failure is not None and not is_closed_pipe(out.failure):
        _exit(StorageError(f"{name}: what it says could not be written"))  # a run has files too


def of_the_system(error: Exception) -> str | None:
    """What is said of an error whose cause lies outside of this program; None of any other.

    A file that is a folder, a disk that is full, a yaml or text that is none, too little memory.
    """
    if isinstance(error, OSError) and error.errno is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([" and ".join(names), error.strerror or ""]).removeprefix(": ")
    if isinstance(error, yaml.YAMLError):
        return f"a yaml file cannot be read: {yaml_files.fault(error)}"
    if isinstance(error, UnicodeError):
        return f"a text cannot be read or written: {error}"
    torch = sys.modules.get("torch")  # where it was not imported, it has not failed
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return "out of memory; smaller images or batches, or a smaller model"
    return None


def _main(config_name: str, run: Run, argv: list[str]) -> None:
    args = parse(argv)
    config_name = args.config_name or config_name
    if args.multirun:
        _run_each(config_name, run, args)
        return
    for line in typed.given_twice(args.overrides):
        print(line, file=sys.stderr)
    config = compose(config_name, args)
    if args.help and args.config_path is None and (CONFIGS / f"{config_name}.yaml").exists():
        values = OmegaConf.to_container(config, resolve=False)
        flat = {path: value for path, _, value in walk(values)}
        print(described.usage(config_name, flat, choices(config_name, args)))
        return
    if not wants_hydra(args):
        run(config)
        return
    with tempfile.TemporaryDirectory() as folder:
        # In words that mean the same to Hydra as to `compose`, which has checked them.
        own = [*search_path(args), *own_overrides(config_name, folder)]
        sys.argv[1:] = [*shown(args), *args.overrides, *own]
        hydra.main(str(config_folder(args)), config_name, VERSION_BASE)(run)()


def _run_each(config_name: str, run: Run, args: argparse.Namespace) -> None:
    """The runs of a multirun, one after another; all are composed before the first begins.

    The others go on after an error, except where told to stop. Hydra composes only: its launcher
    would set variables and write logs as a config says.
    """
    jobs = [argparse.Namespace(**{**vars(args), "overrides": words}) for words in sweep(args)]
    configs = [compose(config_name, job) for job in jobs]
    errors: list[UserError] = []
    for i, (job, config) in enumerate(zip(jobs, configs, strict=True)):
        if len(jobs) > 1:
            print(f"#{i}: {' '.join(job.overrides)}", flush=True)
        sys.argv[1:] = [*flags(job), *job.overrides]  # for who asks how this run was started
        try:
            run(config)
        except Preempted as error:
            _exit(error)
        except UserError as error:
            errors.append(error)
            _print(error)
    if errors:
        sys.exit(errors[0].exit_code)


def sweep(args: argparse.Namespace) -> Iterator[list[str]]:
    """The overrides of each run of a multirun: `loss=focal,ssd seed=0` gives two."""
    parsed = OverridesParser.create().parse_overrides(args.overrides)
    check_choices(parsed)
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    swept = [o for o in parsed if o.is_sweep_override()]
    for words in BasicSweeper.split_arguments(swept, None)[0]:
        yield [*fixed, *words]


def flags(args: argparse.Namespace) -> list[str]:
    """The flags that say where the configs are."""
    named = {
        "--config-name": args.config_name,
        "--config-path": args.config_path,
        "--config-dir": args.config_dir,
    }
    return [word for flag, value in named.items() if value is not None for word in (flag, value)]


def shown(args: argparse.Namespace) -> list[str]:
    """The flags of what Hydra is to show instead of a run."""
    switches = {
        "--help": args.help,
        "--hydra-help": args.hydra_help,
        "--shell-completion": args.shell_completion,
        "--resolve": args.resolve,
    }
    named = {"--cfg": args.cfg, "--info": args.info, "--package": args.package}
    words = [flag for flag, value in switches.items() if value]
    return [*words, *(w for flag, value in named.items() if value for w in (flag, value))]


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
    """Whether the command asks for something to be shown instead of a run."""
    shows = args.help or args.hydra_help or args.cfg or args.info
    return bool(shows or args.shell_completion)


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
    """The composed config.

    Raises ConfigError where the config would set how Hydra works, or names code to run that the
    command line does not name. A config from elsewhere (--config-dir, --config-path) is data.
    """
    args.overrides = typed.understood(config_name, args.overrides)
    parsed = OverridesParser.create().parse_overrides(args.overrides)
    check_choices(parsed)
    refuse_hydra(parsed)
    refuse_other_groups(config_name, parsed)
    overrides = [*args.overrides, *search_path(args)]
    with hydra.initialize_config_dir(str(CONFIGS), version_base=VERSION_BASE):
        own = hydra.compose(overrides=[], return_hydra_config=True)
    with hydra.initialize_config_dir(str(config_folder(args)), version_base=VERSION_BASE):
        config = hydra.compose(config_name, overrides, return_hydra_config=True)
    require_own(config.hydra, own.hydra)
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    refuse_code(config, parsed)
    return config


def choices(config_name: str, args: argparse.Namespace) -> dict[str, str]:
    """What is chosen of each group, by a preset too."""
    overrides = [*args.overrides, *search_path(args)]
    with hydra.initialize_config_dir(str(CONFIGS), version_base=VERSION_BASE):
        config = hydra.compose(config_name, overrides, return_hydra_config=True)
    return {str(group): str(name) for group, name in config.hydra.runtime.choices.items()}


def config_folder(args: argparse.Namespace) -> Path:
    """The folder that the command's main yaml is in."""
    return Path(args.config_path).resolve() if args.config_path else CONFIGS


def search_path(args: argparse.Namespace) -> list[str]:
    """The override by which Hydra looks into --config-dir too. Raises ConfigError for no folder."""
    if args.config_dir is None:
        return []
    folder = Path(args.config_dir).resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir: {folder} is not a folder")
    quoted = str(folder).replace("'", r"\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


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


def refuse_other_groups(config_name: str, overrides: list[Override]) -> None:
    """Raises ConfigError for a group that the command does not compose: Hydra speaks of lists."""
    file = CONFIGS / f"{config_name}.yaml"
    if typed.takes_a_run(config_name) or not file.exists():
        return
    content = yaml.safe_load(file.read_text())
    known = [str(key) for key in content if key != "defaults"]
    defaults = [entry for entry in content.get("defaults", []) if entry != "_self_"]
    chosen = [str(key) for entry in defaults for key in entry]
    for override in overrides:
        key = str(override.key_or_group)
        is_group = key.partition(".")[0] in groups() and not str(override.input_line).startswith(
            "+"
        )
        if is_group and key.partition(".")[0] not in [*known, *chosen]:
            allowed = [*known, *chosen]
            raise ConfigError(
                f"{key}: unknown key{typed.hint(key, allowed)}; allowed: {', '.join(allowed)}"
            )


def refuse_hydra(overrides: list[Override]) -> None:
    """Raises ConfigError for a key of Hydra's own."""
    for override in overrides:
        if override.is_hydra_override():
            raise ConfigError(
                f"{override.input_line}: is refused, how Hydra works is not for a command to set"
            )


def require_own(node: DictConfig, own: DictConfig) -> None:
    """Raises ConfigError where Hydra's part of a config differs from that of no config at all.

    Hydra instantiates its launcher, sweeper and callbacks by path, sets variables, writes logs.
    """
    given, known = _values(node), _values(own)
    for path in sorted(given.keys() | known.keys()):
        if path.startswith(SET_BY_HYDRA[:3]) or path in (*OF_THE_JOB, "hydra.job"):
            continue
        if given.get(path) != known.get(path):
            value = given.get(path)
            raise ConfigError(f"{path}: {value!r} is refused, a config cannot set how Hydra works")


def _values(node: DictConfig) -> dict[str, Any]:
    """Values that hold no others, by their path; of the others only that they are there."""
    plain = OmegaConf.to_container(node, resolve=False)
    return {
        path: type(value).__name__ if isinstance(value, dict | list) else value
        for path, _, value in walk(plain, "hydra")
    }


def refuse_code(config: DictConfig, overrides: list[Override]) -> None:
    """Raises ConfigError for code that a yaml file names and the command line does not.

    The project's own files name none, so what there is has to be what the command says.
    """
    told = OmegaConf.create({})
    for override in overrides:
        key = str(override.key_or_group)
        if key.partition(".")[0] in (*RUNS_CODE, "runs"):
            OmegaConf.update(told, key, override.value(), force_add=True)
    for key in RUNS_CODE:
        value = _raw(config, key)
        if value and value != _raw(told, key):
            raise ConfigError(
                f"{key}: {value} is refused, it comes from a yaml file and what it names is run; "
                f"where you trust it, say all of it on the command line: {key}=..."
            )
    if "runs" in config and _raw(config, "runs") != _raw(told, "runs"):
        for run in _resolved(config, "runs"):
            refuse_code_in_words(shlex.split(str(run)), "runs")


def refuse_code_in_words(words: Iterable[str], key: str) -> None:
    """Raises ConfigError where overrides that a config holds name code, or flags."""
    for word in words:
        if word.lstrip("+~").partition("=")[0].partition(".")[0] in RUNS_CODE or word[:1] == "-":
            raise ConfigError(
                f"{key}: {word!r} is refused, what it names is run; it has to be on the command "
                "line itself"
            )


def _raw(node: DictConfig, key: str) -> Any:
    """What stands at a key, references as they are written; None for nothing."""
    return OmegaConf.to_container(node, resolve=False).get(key)  # type: ignore[union-attr]


def _resolved(node: DictConfig, key: str) -> list[Any]:
    value = OmegaConf.select(node, key)
    return list(value) if isinstance(value, ListConfig) else []


def explain(error: Exception) -> str:
    """An error of Hydra's or OmegaConf's as one line that says what is allowed."""
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        group, _, name = error.missing_cfg_file.rpartition("/")
        said = typed.CHOSEN.get((group, name))
        hint = f" ({said})" if said else did_you_mean(name, error.options)
        return f"{group}={name}: unknown{hint}; allowed: {', '.join(error.options)}"
    ambiguous = re.match(r"Ambiguous value for argument '([^=']+)=(.+?)'\s", str(error))
    if ambiguous:
        key, values = ambiguous.groups()
        return (
            f'{key}={values}: a list is written "{key}=[{values}]", in quotes of the shell; a run '
            "for each of several values takes --multirun"
        )
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
    known = keys_of(parent._get_root())
    if "." not in path and "loss" in allowed:  # the groups of a run, experiment among them
        allowed += [name for name in groups() if name not in allowed]
    near = did_you_mean(key, allowed) if "." in path else ""
    near = near or typed.hint(path, [*known, *allowed])
    return f"{path}: unknown key{near}; allowed: {', '.join(allowed) or 'none'}"


def keys_of(node: Any) -> list[str]:
    """Every key of a config, nested ones with dots; those of Hydra's own are left out."""
    plain = OmegaConf.to_container(node, resolve=False)
    return [path for path, _, _ in walk(plain) if "[" not in path and path[:5] != "hydra"]


def groups() -> Iterable[str]:
    """Names of the folders of `configs`."""
    return sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())
