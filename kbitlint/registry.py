"""Registry of rules: finds them, checks their shape, and selects by code, prefix or slug."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from kbitlint.errors import KbitlintError, SelectionError, did_you_mean, one_line
from kbitlint.lazy_dataclass import dataclass
from kbitlint.rule import CODE, SLUG, Meta, Rule
from kbitlint.runtime.distributions import entry_points
from kbitlint.violation import Consequence, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

ENTRY_POINT_GROUP = "kbitlint.rules"
BUILT_IN = "kbitlint_rules"
#: letters that are typed in place of digits
_DIGITS = str.maketrans("OIL", "011")


class RuleShapeError(KbitlintError):
    """A rule pack that cannot be imported or has a rule of the wrong shape. It stops the run."""


def _rules_of(package: str) -> list[type[Rule]]:
    """Return the rules of a package. Each module has one rule and is named after its slug.

    Raises:
        RuleShapeError: If the package cannot be imported, or a module does not have exactly one rule of the right
            shape.
    """
    try:
        root = importlib.import_module(package)
    except Exception as error:
        raise RuleShapeError(f"it cannot be imported: {error}") from error
    found = []
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package}.{info.name}")
        rules = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__ == module.__name__ and issubclass(value, Rule)
        ]
        if len(rules) != 1:
            raise RuleShapeError(f"{module.__name__} holds {len(rules)} rules; a module holds exactly one")
        rule = rules[0]
        _check_shape(rule, info.name)
        found.append(rule)
    return found


def _check_shape(rule: type[Rule], module: str) -> None:
    meta = getattr(rule, "meta", None)
    name = f"{rule.__module__}.{rule.__name__}"
    if meta is None:
        raise RuleShapeError(f"{name} has no meta")
    if not CODE.fullmatch(meta.code):
        raise RuleShapeError(f"{name}: code {meta.code!r} is not capital letters and three digits")
    if not SLUG.fullmatch(meta.slug):
        raise RuleShapeError(f"{name}: slug {meta.slug!r} is not words joined by hyphens")
    if module != meta.slug.replace("-", "_"):
        raise RuleShapeError(f"{name}: the module of {meta.slug!r} must be called {meta.slug.replace('-', '_')}.py")
    if not rule.checks():
        raise RuleShapeError(f"{name} overrides no check method")


@dataclass(frozen=True, slots=True)
class BrokenPack:
    """A rule pack that is left out, and why."""

    package: str
    reason: str

    def __str__(self) -> str:
        return f"the rule pack {self.package} is left out: {self.reason}"


@functools.cache
def _loaded() -> tuple[tuple[Rule, ...], tuple[BrokenPack, ...]]:
    """Return every rule, and the packs that have a fault; those of kbitlint itself have none, or the run ends."""
    rules = {rule.meta.code: rule for rule in (rule() for rule in _rules_of(BUILT_IN))}
    broken = []
    for package in entry_points(ENTRY_POINT_GROUP):
        try:
            new = [rule() for rule in _rules_of(package)]
            _must_differ(new, rules.values())
        except Exception as error:  # noqa: BLE001  # a pack is code of others, and must not end the commands that need none
            broken.append(BrokenPack(package, str(error) if isinstance(error, RuleShapeError) else one_line(error)))
        else:
            rules |= {rule.meta.code: rule for rule in new}
    return tuple(rules[code] for code in sorted(rules)), tuple(broken)


def _must_differ(new: Iterable[Rule], known: Iterable[Rule]) -> None:
    """Raise RuleShapeError if two rules share a code or slug."""
    for attribute in ("code", "slug"):
        seen = {getattr(rule.meta, attribute): rule for rule in known}
        for rule in new:
            value = getattr(rule.meta, attribute)
            if value in seen:
                raise RuleShapeError(f"{type(rule).__name__} and {type(seen[value]).__name__} share the {attribute} {value}")
            seen[value] = rule


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, built in or from the entry point group ``kbitlint.rules``, ordered by code.

    Raises:
        RuleShapeError: If a built-in rule has the wrong shape. A pack with a fault is left out; ``broken_packs`` has it.
    """
    return _loaded()[0]


def broken_packs() -> tuple[BrokenPack, ...]:
    """Return the packs that cannot be imported, have a rule of the wrong shape, or share a code or slug."""
    return _loaded()[1]


class _LeftOut(Rule):
    """The rules of a pack that is left out: each check raises, so that the audit counts as incomplete."""

    def __init__(self, pack: BrokenPack) -> None:
        super().__init__()
        self.pack = pack

    meta = Meta("", "", Severity.ERROR, Consequence.FAILS, "")

    def check_source(self, source: object, context: object) -> NoReturn:  # noqa: ARG002  # as checks are called
        """Raise RuleShapeError."""
        raise RuleShapeError(str(self.pack))

    def check_files(self, checkpoint: object, context: object) -> NoReturn:
        """Raise RuleShapeError."""
        self.check_source(checkpoint, context)

    def check_model(self, model: object, context: object) -> NoReturn:
        """Raise RuleShapeError."""
        self.check_source(model, context)


def find(name: str) -> Rule:
    """Return the rule with this code or slug.

    Raises:
        SelectionError: If no rule has it. The message suggests the nearest name.
    """
    for rule in all_rules():
        if name.upper() == rule.meta.code or name.lower() == rule.meta.slug:
            return rule
    known = [word for rule in all_rules() for word in (rule.meta.code, rule.meta.slug)]
    hint = _where(name, known)
    raise SelectionError(f"no rule is called {name!r}{hint}")


def _where(name: str, known: Iterable[str]) -> str:
    """Return where a rule may be that no name fits: in a pack that is left out, or under a similar name."""
    if broken_packs():
        return "; " + "; ".join(map(str, broken_packs()))
    digits = name.upper()[:-3] + name.upper()[-3:].translate(_DIGITS)
    if digits in known:
        return f"; did you mean {digits!r}?"
    return did_you_mean(name, known) or "; `kbitlint rules` lists them"


def _matches(rule: Rule, selector: str) -> int:
    """Return how specifically a selector names a rule; 0 if it does not match.

    A longer prefix of the code is more specific. A slug is more specific than any code.
    """
    if selector.upper() == "ALL":
        return 1
    if selector.lower() == rule.meta.slug:
        return len(rule.meta.code) + 1
    return len(selector) + 1 if rule.meta.code.startswith(selector.upper()) else 0


Given = Mapping[str, Mapping[str, bool | float | str]]
"""code or slug of a rule -> option -> value"""


def select(selected: Iterable[str] = (), ignored: Iterable[str] = (), options: Given | None = None) -> tuple[Rule, ...]:
    """Return the selected rules with their options set. Selectors are codes, prefixes (``KB4``), slugs or ``ALL``.

    Without ``selected`` every rule is selected, and a pack that is left out makes the audit incomplete. The more specific
    selector wins: ``select=["KB401"], ignore=["KB4"]`` selects KB401.

    Raises:
        SelectionError: If a selector matches no rule.
        KbitlintError: If a rule does not declare an option, or the option's value has the wrong type.
    """
    given = {find(name).meta.code: _checked(find(name), values) for name, values in (options or {}).items()}
    selected, ignored = tuple(selected), tuple(ignored)
    rules = all_rules()
    for selector in (*selected, *ignored):
        if not selector or not any(_matches(rule, selector) for rule in rules):
            known = [word for rule in rules for word in (rule.meta.code, rule.meta.slug)]
            hint = _where(selector, known)
            raise SelectionError(f"{selector!r} selects no rule{hint}")

    def chosen(rule: Rule) -> bool:
        wanted = max((_matches(rule, selector) for selector in selected), default=0 if selected else 1)
        unwanted = max((_matches(rule, selector) for selector in ignored), default=0)
        return wanted > unwanted

    asked = not selected or any(selector.upper() == "ALL" for selector in selected)
    left_out = tuple(map(_LeftOut, broken_packs())) if asked else ()
    return (*(_with(rule, given.get(rule.meta.code)) for rule in rules if chosen(rule)), *left_out)


def _with(rule: Rule, values: Mapping[str, bool | float | str] | None) -> Rule:
    return type(rule)(values) if values else rule


def _checked(rule: Rule, values: Mapping[str, bool | float | str]) -> Mapping[str, bool | float | str]:
    """Return the values unchanged if the rule declares these options and each value has the type of its default.

    Raises:
        KbitlintError: If not.
    """
    known = {option.name: option for option in rule.options}
    for name, value in values.items():
        where = f"options.{rule.meta.code}.{name}"
        if name not in known:
            raise KbitlintError(f"{where}: {rule.meta.slug} has no such option{did_you_mean(name, known)}")
        kind = type(known[name].default)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise KbitlintError(f"{where}: must be {_KINDS[kind]}, not {value!r}")
    return values


_KINDS = {bool: "true or false", float: "a number", int: "a whole number", str: "a string"}
