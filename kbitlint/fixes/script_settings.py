"""Settings of a run in the text of its script: which of them the script takes, and the text with some of them changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.errors import TargetError
from kbitlint.facts.values import Call
from kbitlint.fit_result import Owner
from kbitlint.fixes.changes import LEAST_UNSAFE_PRICE, are_taken
from kbitlint.fixes.files import FixedFile, edited
from kbitlint.upstream.signatures.lookup import takes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kbitlint.facts.source import SourceFacts
    from kbitlint.facts.training import Training
    from kbitlint.facts.values import Value
    from kbitlint.fit_result import Change, Setting
    from kbitlint.source.documents import Document
    from kbitlint.violation import Edit

#: (owner, name) of every setting that a change of ``kbitlint.fixes.changes`` makes
NAMES = (
    (Owner.ARGUMENTS, "optim"),
    (Owner.ARGUMENTS, "gradient_checkpointing"),
    (Owner.ARGUMENTS, "gradient_checkpointing_kwargs"),
    (Owner.ARGUMENTS, "per_device_train_batch_size"),
    (Owner.ARGUMENTS, "gradient_accumulation_steps"),
    (Owner.ARGUMENTS, "max_length"),
    (Owner.QUANTIZATION, "bnb_4bit_use_double_quant"),
    (Owner.QUANTIZATION, "bnb_4bit_quant_storage"),
    (Owner.ADAPTERS, "r"),
)
#: those that change what is learned, or from which tokens
_UNSAFE = frozenset(((Owner.ARGUMENTS, "max_length"), (Owner.ADAPTERS, "r")))
#: a name -> the name that wins if a call passes both (transformers 5.23)
_RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def writable(facts: SourceFacts, *, unsafe: bool) -> frozenset[tuple[Owner, str]]:
    """Return the settings that a script takes: one call decides each for all of its trainings, and takes the name.

    Args:
        facts: The facts of the script.
        unsafe: Whether settings that change the training itself count.
    """
    calls = {owner: _call(facts, owner) for owner in Owner}
    known = {owner: call for owner, call in calls.items() if call is not None}
    return frozenset(
        (owner, name)
        for owner, name in NAMES
        if owner in known
        and (unsafe or (owner, name) not in _UNSAFE)
        and takes(known[owner].callee, name, facts.versions)
        and _can_be_written(known[owner], _spelled(known[owner], name))
    )


def _can_be_written(call: Call, name: str) -> bool:
    """Return whether a script's text holds a setting, or may get it. A setting of a file that the script loads stays there."""
    argument = call.argument(name)
    return call.complete if argument is None else argument.span.end > argument.span.start


def _spelled(call: Call, name: str) -> str:
    """Return the name under which a call passes a setting."""
    renamed = _RENAMED.get(name, name)
    return renamed if call.argument(renamed) is not None else name


def _call(facts: SourceFacts, owner: Owner) -> Call | None:
    """Return the call of the file that takes an owner's settings for all trainings; None if there is no single one."""
    found = [_of(training, owner) for trainings in facts.trainings() for training in trainings]
    calls = {call.span: call for call in found if isinstance(call, Call)}
    if len(calls) != 1 or not all(isinstance(call, Call) for call in found):
        return None
    call = next(iter(calls.values()))
    named = owner is Owner.ARGUMENTS or call.callee.rpartition(".")[2] == owner.value
    return call if named and not facts.is_imported(call) else None


def _of(training: Training, owner: Owner) -> Value:
    if owner is Owner.ARGUMENTS:
        return training.arguments
    if owner is Owner.QUANTIZATION:
        return training.model.quantization
    return None if training.model.adapters is None else training.model.adapters.config


def are_written_by(changes: Iterable[Change], names: frozenset[tuple[Owner, str]]) -> bool:
    """Return whether settings of a script make all of these changes."""
    return all(are_taken(change.settings, names) for change in changes)


def rewritten(document: Document, name: str, changes: Iterable[Change]) -> FixedFile:
    """Return a script with the settings of some changes. Nothing is written.

    Args:
        document: The script.
        name: Its name in reports.
        changes: Changes whose settings are all writable.

    Raises:
        FixError: The text would be unsound.
        TargetError: A setting has no place any more.
    """
    before, edits = document, list["Edit"]()
    for setting in (setting for change in changes for setting in change.settings):
        again, done = edited(document, [_edits(document.facts, setting, name)], name)
        if again is None:
            raise TargetError(name, f"cannot be read after {setting.name} is set; it was left as it was")
        document = again
        edits += done
    return FixedFile(before.path, name, before.raw, document.raw, document.encoding, tuple(edits), len(edits))


def _edits(facts: SourceFacts, setting: Setting, name: str) -> tuple[Edit, ...]:
    call = _call(facts, setting.owner)
    if call is None:
        raise TargetError(name, f"has no single {setting.owner.value} that takes {setting.name}")
    return facts.set_value(call, _spelled(call, setting.name), setting.value)


def left_to_do(changes: Iterable[Change], names: frozenset[tuple[Owner, str]]) -> Iterator[str]:
    """Yield in words the changes that the script does not take, with the reason."""
    for change in changes:
        if not are_taken(change.settings, names):
            unsafe = change.price >= LEAST_UNSAFE_PRICE and change.settings
            yield f"{change.name} ({'--unsafe-fixes writes it' if unsafe else change.flags})"
