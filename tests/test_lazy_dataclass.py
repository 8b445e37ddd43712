"""``kbitlint.lazy_dataclass`` beside ``dataclasses``: the same classes, with less compiled."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import operator
import pickle
import sys

import pytest

from kbitlint.lazy_dataclass import _Initializer, dataclass


def classes(decorator):
    """Return classes of each form that kbitlint has, made by a decorator."""

    @decorator(frozen=True, slots=True)
    class Point:
        """A place."""

        x: int
        y: float = 0.5
        names: tuple[str, ...] = ()
        more: dict = dataclasses.field(default_factory=dict)
        note: str = dataclasses.field(default="", compare=False, repr=False)

    @decorator(frozen=True, slots=True)
    class Empty:
        """Nothing."""

    @decorator(frozen=True, slots=True)
    class Single:
        """One field."""

        value: float

    @decorator(frozen=True, slots=True, order=True)
    class Version:
        """Numbers, in their order."""

        major: int
        minor: int = 0

    @decorator(slots=True)
    class Growing:
        """A mutable one."""

        items: list = dataclasses.field(default_factory=list)
        total: int = 0

    @decorator(slots=True, eq=False)
    class Identity:
        """One that equals itself alone."""

        name: str

    @decorator(frozen=True, slots=True)
    class Checked:
        """One with methods of its own."""

        low: int
        high: int = 9

        def __post_init__(self):
            if self.low > self.high:
                raise ValueError("low is above high")

        def __repr__(self):
            return f"{self.low}..{self.high}"

        def __hash__(self):
            return self.low

    @decorator(frozen=True, slots=True)
    class Derived(Point):
        """One more field."""

        z: int = 3

    return {cls.__name__: cls for cls in (Point, Empty, Single, Version, Growing, Identity, Checked, Derived)}


LAZY, USUAL = classes(dataclass), classes(dataclasses.dataclass)
ARGUMENTS = {
    "Point": [((1,), {}), ((1, 2.5), {"note": "n"}), ((1,), {"names": ("a",), "more": {"k": 1}}), ((2,), {})],
    "Empty": [((), {})],
    "Single": [((1.5,), {}), ((float("inf"),), {})],
    "Version": [((1, 2), {}), ((1,), {}), ((2, 0), {})],
    "Growing": [((), {}), (([1],), {"total": 1})],
    "Identity": [(("a",), {}), (("a",), {})],
    "Checked": [((1,), {}), ((1, 4), {})],
    "Derived": [((1,), {}), ((1,), {"z": 4})],
}


def outcome(function, *arguments):
    """Return what a call returns, or the type and the words of its exception."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001  # the exceptions are what is compared
        return type(error), str(error).replace("__init__() ", "").rpartition(".")[2]


@pytest.mark.parametrize("name", LAZY)
def test_a_class_is_that_of_dataclasses(name):
    lazy, usual = LAZY[name], USUAL[name]

    assert str(inspect.signature(lazy)) == str(inspect.signature(usual))
    assert dataclasses.is_dataclass(lazy)
    assert [(f.name, f.type, f.default, f.compare) for f in dataclasses.fields(lazy)] == [
        (f.name, f.type, f.default, f.compare) for f in dataclasses.fields(usual)
    ]
    assert lazy.__slots__ == usual.__slots__
    assert lazy.__match_args__ == usual.__match_args__
    assert lazy.__doc__ == usual.__doc__
    assert (lazy.__hash__ is None) == (usual.__hash__ is None)


@pytest.mark.parametrize("name", LAZY)
def test_its_instances_are_those_of_dataclasses(name):
    ours, theirs = ([kinds[name](*a, **k) for a, k in ARGUMENTS[name]] for kinds in (LAZY, USUAL))

    assert list(map(repr, ours)) == list(map(repr, theirs))
    assert list(map(dataclasses.asdict, ours)) == list(map(dataclasses.asdict, theirs))
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        for one, first in zip(ours, theirs, strict=True):
            for other, second in zip(ours, theirs, strict=True):
                assert outcome(compare, one, other) == outcome(compare, first, second)
            assert outcome(compare, one, 1) == outcome(compare, first, 1)
    assert [outcome(hash, one) for one in ours if name != "Identity"] == [
        outcome(hash, one) for one in theirs if name != "Identity"
    ]


@pytest.mark.parametrize("name", LAZY)
def test_its_instances_are_changed_and_copied_like_those_of_dataclasses(name):
    (arguments, keywords), *_ = ARGUMENTS[name]

    for one in dataclasses.fields(LAZY[name]):
        ours, theirs = LAZY[name](*arguments, **keywords), USUAL[name](*arguments, **keywords)
        assert outcome(setattr, ours, one.name, 7) == outcome(setattr, theirs, one.name, 7)
        assert outcome(delattr, ours, one.name) == outcome(delattr, theirs, one.name)
    ours = LAZY[name](*arguments, **keywords)
    assert outcome(setattr, ours, "nowhere", 7)[0] in (AttributeError, dataclasses.FrozenInstanceError)
    for copied in (copy.copy(ours), copy.deepcopy(ours), dataclasses.replace(ours)):
        assert dataclasses.asdict(copied) == dataclasses.asdict(ours)
        assert type(copied) is LAZY[name]


@pytest.mark.parametrize(
    ("name", "arguments"), [("Point", ()), ("Point", (1, 2, 3, 4, 5, 6)), ("Empty", (1,)), ("Checked", (5, 1))]
)
def test_wrong_arguments_raise_what_they_raise_there(name, arguments):
    assert outcome(LAZY[name], *arguments) == outcome(USUAL[name], *arguments)


@dataclass(frozen=True, slots=True)
class Stored:
    """A class that pickle finds by its name."""

    number: int
    parts: tuple[str, ...] = ()


def test_pickle_restores_an_equal_instance():
    stored = Stored(1, ("a", "b"))

    assert [pickle.loads(pickle.dumps(stored, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)] == [stored] * (  # noqa: S301
        pickle.HIGHEST_PROTOCOL - 1
    )


def test_init_is_compiled_at_the_first_instance_and_belongs_to_its_class():
    @dataclass(frozen=True, slots=True)
    class Base:
        first: int

    class Heir(Base):
        __slots__ = ()

    assert isinstance(vars(Base)["__init__"], _Initializer)
    assert Heir(3).first == 3
    assert "__init__" not in vars(Heir)
    assert inspect.isfunction(vars(Base)["__init__"])
    assert Base(3) != Heir(3)


def test_fields_that_it_does_not_support_are_refused():
    @dataclass(slots=True)
    class Odd:
        inner: int = dataclasses.field(default=1, init=False)

    with pytest.raises(TypeError, match="inner: only fields that are usual parameters"):
        Odd()
    with pytest.raises(TypeError, match="has slots"):
        dataclass(slots=False)


def test_no_method_is_compiled_with_its_class():
    def compiled(decorator):
        calls = []
        before = sys.getprofile()
        sys.setprofile(lambda _, event, called: calls.append(called) if event == "c_call" and called is exec else None)
        try:
            classes(decorator)
        finally:
            sys.setprofile(before)
        return len(calls)

    assert compiled(dataclass) == (0 if sys.version_info < (3, 13) else len(LAZY))  # 3.13 compiles a text without methods
    assert compiled(dataclasses.dataclass) >= len(USUAL)
