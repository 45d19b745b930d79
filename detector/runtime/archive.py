"""Files of `torch.save`, of any origin: what they claim is compared with what they hold, first.

torch believes a file: it makes room for what a tensor is said to need, and unpacks what a zip
archive is said to hold, before anybody could object.
"""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from detector.runtime.pickles import (
    MAX_STEPS,
    Ordered,
    PlainUnpickler,
    Unreadable,
    count_steps,
    load_plain,
    written_out,
)

ZIP = b"PK\x03\x04"
"""What a zip archive begins with: files of torch since version 1.6."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What the files of older versions begin with, those that torchvision and mmdetection offer too."""

MAX_PICKLE = 64 * 2**20
"""Bytes of the part that is not numbers; a checkpoint of ResNet-101 has 200,000."""

MORE = "it is damaged, or holds more than tensors and plain values"

ITEM_SIZES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}


@dataclass(frozen=True)
class Storage:
    """Stands for the numbers of a tensor. size: of them, as claimed."""

    key: str
    size: int
    item_size: int


class Tensors:
    """Stands for one tensor, whose claims were found to fit its storage."""


def read(file: BinaryIO, *, legacy: bool = False) -> Any:
    """What `torch.save` was given, on the CPU. Never runs code of the file.

    legacy: also from a file of a torch before 1.6. Raises Unreadable, and OSError.
    """
    check(file, legacy=legacy)
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # of many kinds, whose words advise to switch `weights_only` off
        raise Unreadable(MORE) from None


def check(file: BinaryIO, *, legacy: bool = False) -> None:
    """Raises Unreadable where a file claims to hold more than it does, or what torch refuses."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(len(LEGACY))
    if start.startswith(ZIP):
        check_zip(file, size)
    elif legacy and start == LEGACY:
        check_legacy(file, size)
    else:
        raise Unreadable(f"{MORE}; it is no archive of torch's")


def check_zip(file: BinaryIO, size: int) -> None:
    """Every record as it is in the file, every tensor within its record."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise Unreadable("it is compressed, which torch does not do")
            if sum(record.file_size for record in records) > size:
                raise Unreadable("its records claim to be larger than the file")
            sizes = {r.filename.partition("/")[2]: r.file_size for r in records}
            main = [record for record in records if record.filename.endswith("/data.pkl")]
            if len(main) != 1 or len(sizes) != len(records):
                raise Unreadable(MORE)
            if main[0].file_size > MAX_PICKLE:
                raise Unreadable(f"its part without numbers has more than {MAX_PICKLE:,} bytes")
            content = archive.read(main[0])
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError):
        raise Unreadable(MORE) from None
    storages = check_claims(content)
    for storage in storages:
        if sizes.get(f"data/{storage.key}") != storage.size * storage.item_size:
            raise Unreadable("a tensor claims another size than its record has")


def check_legacy(file: BinaryIO, size: int) -> None:
    """Every tensor within its storage, all of these within the file."""
    file.seek(0)
    ends = [0]
    for _ in range(4):  # the magic number, the version, the machine, and then the content
        count_steps(file)
        ends.append(file.tell())
    if ends[4] - ends[3] > MAX_PICKLE:
        raise Unreadable(f"its part without numbers has more than {MAX_PICKLE:,} bytes")
    file.seek(ends[3])
    storages = check_claims(file.read(ends[4] - ends[3]))
    if sum(storage.size * storage.item_size for storage in storages) > size:
        raise Unreadable("its tensors claim to be larger than the file")


def check_claims(content: bytes) -> set[Storage]:
    """The storages that a pickle of torch's names. Raises Unreadable where a tensor has no place in
    its storage, and for what multiplies when it is written out."""
    storages: set[Storage] = set()

    class Claims(ClaimsUnpickler):
        def persistent_load(self, pid: Any) -> Storage:
            storage = storage_of(pid)
            storages.add(storage)
            return storage

    if written_out(load_plain(content, Claims)) > MAX_STEPS:
        raise Unreadable(f"it holds more than {MAX_STEPS:,} values")
    return storages


def storage_of(pid: Any) -> Storage:
    """What a persistent id of torch's says."""
    match pid:
        case ("storage", int(item_size), str(key), str(), int(size), *_) if size >= 0:
            return Storage(key, size, item_size)
    raise Unreadable(MORE)


class ClaimsUnpickler(PlainUnpickler):
    """Calls nothing of torch's: it compares what tensors claim with their storages."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name in ("torch", "torch.storage") and global_name in ITEM_SIZES:
            return ITEM_SIZES[global_name]
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
            return None
        if (module_name, global_name) not in STANDS_FOR:
            raise Unreadable(MORE)
        return STANDS_FOR[module_name, global_name]


def tensor_of(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Tensors:
    """Raises Unreadable for a tensor that reaches beyond its storage, or repeats its numbers."""
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise Unreadable(MORE)
    if min([offset, *size, *stride], default=0) < 0:
        raise Unreadable(MORE)
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= storage.size or count > storage.size):
        raise Unreadable("a tensor claims more numbers than its record has")
    return Tensors()


def parameter_of(tensor: Any, *_: Any) -> Any:
    """A parameter is the tensor in it."""
    return tensor


MAX_DIMENSIONS = 64
"""Of a tensor of torch's."""

STANDS_FOR: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): tensor_of,
    ("torch._utils", "_rebuild_parameter"): parameter_of,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): Ordered,
}
"""What a pickle of torch's may name, and what it gets here."""
