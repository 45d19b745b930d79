"""What a reader does with data that cannot be used as they are: the keys all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

from detector.config.ranges import Between, require_ranges
from detector.config.schema import require

OnInvalid = Literal["error", "drop"]
ExifRule = Literal["error", "stored", "upright"]
Policy = Literal["on_invalid", "on_missing", "on_corrupt"]
"""Keys that say what becomes of something that cannot be used."""

MAX_DROPPED = 0.01
"""The share of the objects, images or files of a split that may be left out unless it is said."""

MIN_DROPPED = 20
"""So many may always be: of 50 objects, one is 2 %."""


class HandlingOptions(TypedDict, total=False):
    """The keys of `Handling`, as the constructors of readers take them."""

    on_invalid: OnInvalid
    max_dropped: float | None
    on_missing: OnInvalid | None
    on_corrupt: OnInvalid | None
    exif: ExifRule
    depth: tuple[float, float] | None
    max_megapixels: float
    val_share: float | None
    val_group: str | None


@dataclass(frozen=True)
class Decoding:
    """How files become pixels; see `Handling`."""

    exif: ExifRule = "stored"
    depth: tuple[float, float] | None = None


AS_STORED = Decoding()


@dataclass(frozen=True)
class Handling:
    """on_invalid: what an object, an image or a file does that makes no sense: "error" stops before
    the first step, with counts and examples; "drop" leaves it out and names it.
    max_dropped: the share of the objects, and of the images, and of the files, that "drop" may
    leave out; None: 1 %, but always 20, and never all objects of a class.
    on_missing, on_corrupt: the same as on_invalid, for images that are not there and for files that
    cannot be decoded; None: as on_invalid. With on_corrupt="drop" a file that turns out to be
    damaged in the middle of a training is replaced by another image, see `loader.TrainItems`.
    exif: of an image that is to be turned by its EXIF tag: "error" refuses it, since its boxes may
    be of the image as stored or as shown; "stored" ignores the tag, "upright" obeys it.
    depth: the (lowest, highest) value of images of more than 8 bits, which become 0 and 255; None
    refuses them. max_megapixels: of an image; larger ones are refused.
    val_share: the share of the train split that is taken for val, whose own keys are then not read;
    None: the set has a val split. val_group: what images of one scene have in common, which are
    kept in one split: "folder", or a regular expression whose first group is looked for in names.
    """

    on_invalid: OnInvalid = "error"
    max_dropped: Annotated[float | None, Between(0, 1)] = None
    on_missing: OnInvalid | None = None
    on_corrupt: OnInvalid | None = None
    exif: ExifRule = "error"
    depth: tuple[float, float] | None = None
    max_megapixels: float = 100.0
    val_share: Annotated[float | None, Between(0, 1, is_above=True, is_below=True)] = None
    val_group: str | None = None

    def __post_init__(self) -> None:
        require_ranges(self)
        require_megapixels(self.max_megapixels)
        require(
            self.depth is None or self.depth[0] < self.depth[1],
            f"depth: {list(self.depth or ())} given, [lowest, highest] is needed, as in [0,65535]",
        )

    @property
    def decoding(self) -> Decoding:
        """How the images are read."""
        return Decoding(self.exif, self.depth)

    def drops(self, policy: Policy) -> bool:
        """Whether what this key speaks of is left out, and does not stop."""
        return (getattr(self, policy) or self.on_invalid) == "drop"

    def most(self, given: int) -> int:
        """How many of `given` units of a kind may be left out."""
        if self.max_dropped is None:
            return max(MIN_DROPPED, int(MAX_DROPPED * given))
        return int(self.max_dropped * given)


def require_megapixels(value: float) -> None:
    """Raises ConfigError for a limit that cannot hold."""
    require(0 < value < float("inf"), f"max_megapixels: {value} given, above 0 is needed")
