"""Values of a config are checked against annotations, and messages name key and cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest

from detector.config.schema import (
    LossPlug,
    Plug,
    build,
    coerce,
    coerce_options,
    describe,
    options_of,
    refuse_resolvers,
    refuse_targets,
    require,
    require_at_least,
    walk,
)
from detector.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self) -> None:
        require(self.rate > 0, f"rate: {self.rate} given, above 0 is needed")


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    part: Plug | None = None


class Part:
    """A part with a context and two options."""

    def __init__(self, num_classes: int, *, size: int, names: tuple[str, ...] = ()) -> None:
        self.given = (num_classes, size, names)


class Plain:
    """A part without a constructor of its own."""


class TestCoerce:
    @pytest.mark.parametrize(
        ("value", "annotation", "expected"),
        [
            (3, int, 3),
            (3, float, 3.0),
            (0.5, float, 0.5),
            (True, bool, True),
            ("a", str, "a"),
            (None, int | None, None),
            (3, int | None, 3),
            (3, float | None, 3.0),
            ("a", Literal["a", "b"], "a"),
            (0.25, float | Literal["from_data"], 0.25),
            ("from_data", float | Literal["from_data"], "from_data"),
            ([1, 2.5], tuple[float, ...], (1.0, 2.5)),
            ([1, 2], tuple[float, float], (1.0, 2.0)),
            ([1, 2], Sequence[int], (1, 2)),
            ([], tuple[int, ...], ()),
            (None, tuple[int, ...] | None, None),
            ({"anything": 1}, Any, {"anything": 1}),
        ],
    )
    def test_takes_a_value_of_the_type(self, value: Any, annotation: Any, expected: Any) -> None:
        result = coerce(value, annotation, "key")
        assert result == expected
        assert type(result) is type(expected)

    @pytest.mark.parametrize(
        ("value", "annotation", "message"),
        [
            ("abc", float, "key: 'abc' is not a number"),
            ("abc", int, "key: 'abc' is not an integer"),
            (0.5, int, "key: 0.5 is not an integer"),
            (True, int, "key: True is not an integer"),
            (True, float, "key: True is not a number"),
            (1, bool, "key: 1 is not true or false"),
            (1, str, "key: 1 is not text"),
            (None, int, "key: None is not an integer"),
            (float("nan"), float, "key: nan is not a number one can use"),
            (float("inf"), float | None, "key: inf is not a number one can use"),
            ([1.0, float("-inf")], tuple[float, ...], "key[1]: -inf is not a number one can use"),
            (2**63, int, "key: an integer of more than 64 bits given"),
            (-(10**400), float, "key: an integer of more than 64 bits given"),
            ("x", float | None, "key: 'x' is not a number"),
            ("x", float | Literal["from_data"], "key: 'x' is not number or one of from_data"),
            ("focus", Literal["focal", "ssd"], "key: 'focus' is not one of focal, ssd"),
            ("ab", tuple[float, ...], "key: 'ab' is not a list of numbers"),
            (1.0, tuple[float, ...], "key: 1.0 is not a list of numbers"),
            ([1, "b"], tuple[float, ...], "key[1]: 'b' is not a number"),
            ([1], tuple[float, float], "key: 1 entries given, 2 are needed"),
            ("???", float, "key: has to be given"),
            ("???", str, "key: has to be given"),
            ("focal", Plug, "key: a part with a `name` is needed, 'focal' given"),
            ({"gamma": 1}, Plug, "key: a part with a `name` is needed, {'gamma': 1} given"),
            (3, Inner, "key: 3 given, keys and values are needed"),
        ],
    )
    def test_names_key_value_and_what_is_allowed(
        self, value: Any, annotation: Any, message: str
    ) -> None:
        with pytest.raises(ConfigError) as error:
            coerce(value, annotation, "key")
        assert str(error.value).startswith(message)

    def test_names_the_nearest_permitted_word(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean 'focal'\?"):
            coerce("focall", Literal["focal", "ssd"], "key")


class TestPlugs:
    def test_a_plug_is_a_name_and_all_other_keys(self) -> None:
        assert coerce({"name": "ssd", "ratio": 3}, Plug, "loss") == Plug("ssd", {"ratio": 3})

    def test_a_plain_plug_has_no_weight_of_its_own(self) -> None:
        assert coerce({"name": "a", "weight": 2}, Plug, "matcher") == Plug("a", {"weight": 2})

    def test_the_weight_of_a_loss_is_no_option_of_its_class(self) -> None:
        plug = coerce({"name": "focal", "weight": 2, "gamma": 1}, LossPlug, "loss")
        assert plug == LossPlug("focal", {"gamma": 1}, weight=2.0)

    def test_the_weight_of_a_loss_is_1_where_none_is_given(self) -> None:
        assert coerce({"name": "focal"}, LossPlug, "loss").weight == 1.0

    @pytest.mark.parametrize(
        ("weight", "message"),
        [
            ("heavy", "loss.weight: 'heavy' is not a number"),
            (-1, "loss.weight: -1.0 given, a number of at least 0 is needed"),
            (float("inf"), "loss.weight: inf is not a number one can use"),
        ],
    )
    def test_a_weight_has_to_be_a_number_of_at_least_0(self, weight: Any, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            coerce({"name": "focal", "weight": weight}, LossPlug, "loss")
        assert str(error.value) == message


class TestBuild:
    def test_makes_nested_dataclasses(self) -> None:
        values = {"count": 2, "inner": {"rate": 1}, "part": {"name": "a"}}
        assert build(Outer, values) == Outer(2, Inner(1.0), Plug("a", {}))

    def test_uses_defaults(self) -> None:
        assert build(Outer, {"count": 2}) == Outer(2, Inner(0.5), None)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "count: has to be given"),
            ({"count": 1, "cuont": 2}, "cuont: unknown key (did you mean 'count'?)"),
            ({"count": 1, "inner": {"rte": 2}}, "inner.rte: unknown key (did you mean 'rate'?)"),
            ({"count": 1, "inner": {"rate": "x"}}, "inner.rate: 'x' is not a number"),
            ({"count": 1, "inner": {"rate": -1}}, "inner.rate: -1.0 given, above 0 is needed"),
        ],
    )
    def test_names_the_path_of_the_key(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as error:
            build(Outer, values)
        assert str(error.value).startswith(message)


class TestOptions:
    def test_are_the_keyword_only_arguments(self) -> None:
        options = options_of(Part)
        assert list(options) == ["size", "names"]
        assert options["size"].required
        assert not options["names"].required
        assert options["names"].annotation == tuple[str, ...]

    def test_of_a_class_without_a_constructor_are_none(self) -> None:
        assert options_of(Plain) == {}

    def test_are_checked_and_converted(self) -> None:
        values = {"size": 3, "names": ["a"]}
        assert coerce_options(options_of(Part), values, "part") == {"size": 3, "names": ("a",)}

    def test_have_to_be_given_where_they_have_no_default(self) -> None:
        with pytest.raises(ConfigError, match=r"^part.size: has to be given$"):
            coerce_options(options_of(Part), {}, "part")

    def test_an_unknown_one_lists_all(self) -> None:
        with pytest.raises(ConfigError, match=r"^part.x: unknown key; allowed: size, names$"):
            coerce_options(options_of(Part), {"x": 1}, "part")

    def test_an_unknown_one_of_a_part_without_any_says_so(self) -> None:
        with pytest.raises(ConfigError, match=r"^part.x: unknown key; allowed: none$"):
            coerce_options(options_of(Plain), {"x": 1}, "part")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "integer or null"),
        (Literal["a", "b"], "one of a, b"),
        (tuple[float, ...], "list of numbers"),
        (bool, "true or false"),
        (Inner, "keys and values"),
    ],
)
def test_a_type_is_described_in_a_users_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


class TestWalks:
    TREE: ClassVar[dict[str, Any]] = {"a": {"b": [1, {"c": "x"}]}, "d": None}

    def test_everything_inside_has_a_path(self) -> None:
        assert [(path, key) for path, key, _ in walk(self.TREE)] == [
            ("a", "a"),
            ("a.b", "b"),
            ("a.b[0]", "0"),
            ("a.b[1]", "1"),
            ("a.b[1].c", "c"),
            ("d", "d"),
        ]

    def test_a_target_is_found_at_any_depth(self) -> None:
        with pytest.raises(ConfigError, match=r"^a\.b\[1\]\._target_: parts are chosen by `name`"):
            refuse_targets({"a": {"b": [1, {"_target_": "os.system"}]}})

    @pytest.mark.parametrize("text", ["", "$", "{a}", "${a}", "${a.b[0].c}", "x${a}-${b_c}"])
    def test_plain_text_and_references_are_allowed(self, text: str) -> None:
        refuse_resolvers({"a": [text]})

    @pytest.mark.parametrize(
        "text", ["${oc.env:HOME}", "${a}${b:c}", "${a.${b:c}}", "${${a}:b}", "${", "${ oc.env:A}"]
    )
    def test_any_other_interpolation_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"^a\[0\]: .* is refused; only references to other"):
            refuse_resolvers({"a": [text]})


@pytest.mark.parametrize("value", [None, 1, 2])
def test_at_least_allows_the_limit_and_none(value: int | None) -> None:
    require_at_least(1, SimpleNamespace(count=value), "count")


def test_at_least_names_key_value_and_limit() -> None:
    with pytest.raises(ConfigError, match=r"^count: 0 given, at least 1 is needed$"):
        require_at_least(1, SimpleNamespace(count=0), "count")
