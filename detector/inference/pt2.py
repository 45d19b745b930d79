"""Programs of `torch.export`, of any origin: what a file names is looked at before torch reads it.

torch unpickles what a .pt2 file holds, evaluates its expressions of shapes as Python, runs its
guards, and calls whatever below `torch` a node names. So all of it has to be what `write_program`
writes: tensors as plain bytes, operators of ATen, arithmetic of sizes.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  registers its NMS
from numpy.typing import NDArray
from torch import nn

from detector.errors import ConfigError
from detector.inference.meaning import METADATA
from detector.inference.onnx import example, free_shapes

RECORDS = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|models/model\.json|"
    r"data/sample_inputs/model\.pt|extra/detector|archive_format|archive_version|byteorder|"
    r"\.data/(version|serialization_id))"
)
"""What an archive may hold, by name; the sample inputs are a pickle, and have to be empty."""

OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b|__(?!and__|or__))\w+\.[a-zA-Z]\w*|"
    r"torch\.ops\.torchvision\.nms\.default|torch\.sym_(max|min|ite|not|int|float)|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|ge|gt|le|lt|eq|ne|and_|or_|getitem)|"
    r"math\.(ceil|floor|trunc)"
)
"""What a node may call."""

WORDS = frozenset(
    """Symbol Integer Float Add Mul Pow FloorDiv CleanDiv CeilDiv Mod PythonMod Min Max Where
    CeilToInt FloorToInt IntTrueDiv ToFloat Equality Eq Unequality Ne GreaterThan Ge
    StrictGreaterThan Gt LessThan Le StrictLessThan Lt And Or Not true false True False positive
    integer nonnegative int_oo""".split()  # noqa: SIM905
)
"""What an expression of sizes may name, beside its symbols such as s3 and u0."""

TREES = re.compile(r'[\w\s\[\]{}",:.]*')
TREE_TYPES = {"builtins.tuple", "builtins.list", "builtins.dict"}
"""Of the structures of inputs and outputs."""

MAX_GRAPH = 256 * 2**20
"""Bytes of the part that is not numbers; ResNet-101 has 4 million."""


def write_program(
    module: nn.Module, text: str, path: Path, *, shape: tuple[int, int, int] | None = None
) -> None:
    """A .pt2 file. text: the metadata. shape: N, H, W where they are not to stay free."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torchvision's, about torch
        program = torch.export.export(
            module,
            example(shape),
            dynamic_shapes=None if shape else free_shapes(),
            strict=False,
        )
    program._example_inputs = None  # a pickle, in a file that shall hold none
    torch.export.save(program, path, extra_files={METADATA: text})


def open_program(path: str) -> tuple[Any, str]:
    """What computes, and the metadata; see `backends`. Raises ConfigError for any other file."""
    check(path)
    extra = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        # Guards and ranges say that no map has a single cell, which the exporter took for granted;
        # the operators do not mind. Guards are Python as well.
        module: Any = program.module(check_guards=False)
        module._forward_pre_hooks.clear()
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint: {path} cannot be read as a program of torch.export: {reason}"
        ) from None
    text = extra[METADATA]

    @torch.no_grad()
    def run(images: NDArray[np.float32], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        found = module(torch.from_numpy(images), torch.from_numpy(np.ascontiguousarray(sizes)))
        return [value.numpy() for value in found]

    return run, text if isinstance(text, str) else text.decode("utf-8", "replace")


def check(path: str) -> None:
    """Raises ConfigError unless all in the file is of the kinds that `write_program` writes."""

    def refuse(reason: str) -> ConfigError:
        return ConfigError(
            f"checkpoint: {path} cannot be read as a program of torch.export: {reason}"
        )

    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if sum(record.file_size for record in records) > Path(path).stat().st_size:
                raise refuse("its records claim to be larger than the file")
            parts = {}
            for record in records:
                name = record.filename.partition("/")[2]
                if not RECORDS.fullmatch(record.filename) or name in parts:
                    raise refuse(f"it holds {record.filename}, which no export writes")
                if name.endswith(".pt") and record.file_size:
                    raise refuse(f"it holds a pickle, {record.filename}, which could run code")
                is_text = name.endswith(".json")
                if is_text and record.file_size > MAX_GRAPH:
                    raise refuse(f"{record.filename} has more than {MAX_GRAPH:,} bytes")
                parts[name] = json.loads(archive.read(record)) if is_text else None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RecursionError):
        raise refuse("it is damaged, or no such file") from None
    if "models/model.json" not in parts:
        raise refuse("it holds no program")
    for where, key, value in _walk(parts):
        reason = refusal(where, key, value)
        if reason is not None:
            raise refuse(reason)


def refusal(where: str, key: str, value: Any) -> str | None:
    """Why an entry of the file's JSON is not permitted, if so. where: the key above it."""
    if key == "use_pickle" and value is not False:
        return "it holds a pickle, which could run code"
    if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
        return f"it takes numbers from {str(value)[:80]!r}"
    if key in ("target", "as_operator") and not OPERATORS.fullmatch(str(value)):
        return f"it calls {str(value)[:80]!r}, which is no operator of a model"
    is_expression = key == "expr_str" or where == "range_constraints"
    text = str(value) if key == "expr_str" else key
    if is_expression and not is_arithmetic(text):
        return f"{text[:80]!r} is no arithmetic of sizes"
    is_tree = key in ("in_spec", "out_spec") and value
    if is_tree and not is_plain_tree(str(value)):
        return "its inputs or outputs are no plain tuples"
    if key in ("as_custom_obj", "as_graph", "custom_obj_values") and value:
        return f"it holds {key}, which no export writes"
    return None


def is_arithmetic(text: str) -> bool:
    """Whether an expression names symbols and arithmetic alone, without a dot to reach further."""
    if not re.fullmatch(r"[\w\s(),'=+\-*/%<>]*", text) or "__" in text:
        return False
    names = re.findall(r"[A-Za-z_]\w*", text)
    return all(name in WORDS or re.fullmatch(r"[su]\d+", name) for name in names)


def is_plain_tree(text: str) -> bool:
    """Whether a structure is made of tuples, lists and dicts."""
    types = re.findall(r'"type"\s*:\s*"([^"]*)"', text)
    return bool(TREES.fullmatch(text)) and set(types) <= TREE_TYPES


def _walk(value: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every key of a JSON with its value, and the key above."""
    stack = [(where, value)]
    while stack:
        above, current = stack.pop()
        if isinstance(current, dict):
            for key, own in current.items():
                yield above, key, own
                stack.append((key, own))
        elif isinstance(current, list):
            stack += [(above, own) for own in current]
