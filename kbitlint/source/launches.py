"""Commands that launch a script, in the shell scripts and READMEs beside it: its arguments and its ranks."""

from __future__ import annotations

import itertools
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint import lazy_patterns as re
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import content
from kbitlint.runtime.observations import remembered
from kbitlint.source.interpreter.objects import Constant
from kbitlint.target import SHELLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from kbitlint.source.interpreter.objects import Object

#: Number of files that are read in a folder, and of bytes in each.
_MAX_FILES = 16
_MAX_BYTES = 64_000
_FILES = ("*.s[hlb]*", "README*", "scripts/*.s[hlb]*")
_ENDS = re.compile(r"^(?:\.\.\.|…|\|\|?|&&?|;|#.*|[12&]?>{1,2}.*|`+)$")
_WORD = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'`]+")
_DOTS = ("...", "…")
_ONE = ("1", "0")


@dataclass(frozen=True, slots=True)
class Launch:
    """The command that launches a script, or the part on which several commands agree."""

    flags: Mapping[str, Object] = field(default_factory=dict)
    """The values of the options, by name without dashes."""
    ranks: str = ""
    """The launcher that starts several processes: ``torchrun in run.sh``. Empty if none certainly does."""
    fsdp: bool = False
    flattens: bool = False
    """Whether it is FSDP1, which flattens the parameters of a unit."""
    zero: int | None = None
    """The ZeRO stage that the launcher's own configuration sets."""
    cut: bool = False
    """Whether dots stand for further options."""
    processes: int | None = None
    """The number of processes; None if the command does not tell."""
    counts: bool = False
    """Whether the launcher tells an Accelerator how many batches to accumulate."""
    named: frozenset[str] = field(default=frozenset(), compare=False)
    """The options that one of the commands gives at least."""
    script: Path | None = field(default=None, compare=False)

    def written(self) -> Mapping[str, tuple[str, int]]:
        """Return (file, line) of each option that a file beside the script passes to it; see ``written_options``."""
        return written_options(self.script) if self.script is not None else {}


def launch_of(script: Path, notes: str = "") -> Launch | None:
    """Return how the files beside a script, or its own comments, launch it; None if no command names it.

    Args:
        script: The file.
        notes: Its comments and its docstring, where a command may stand.
    """
    commands = [*_commands(script.parent), *((script, words) for words in _words(notes))]
    found = [launch for place, command in commands if (launch := _read(place, command, script.name))]
    if not found:
        return None
    first, *others = found
    flags = _agreed(found)
    ranks = next((one.ranks for one in found if one.ranks), "")
    zero = first.zero if all(one.zero == first.zero for one in others) else None
    processes = first.processes if all(one.processes == first.processes for one in others) else None
    sharded, flattened = all(one.fsdp for one in found), all(one.flattens for one in found)
    counts = any(one.counts for one in found)
    cut, named = any(one.cut for one in found), frozenset(name for one in found for name in one.flags)
    return Launch(flags, ranks, sharded, flattened, zero, cut, processes, counts, named, script)


def written_options(script: Path) -> dict[str, tuple[str, int]]:
    """Return (file, line) of each option that a file beside a script passes to it, by name without dashes.

    The file's name is relative to the folder of the script. A command that names a script in another folder is left out.
    """
    found: dict[str, tuple[str, int]] = {}
    for path in dict.fromkeys(place for place, _ in _commands(script.parent)):
        lines = content.head(path, _MAX_BYTES).decode("utf-8", "replace").split("\n")
        name = path.relative_to(script.parent).as_posix()
        for first, last in _logical(lines):
            words = next(_words("\n".join(lines[first : last + 1])), ())
            at = next((number for number, word in enumerate(words) if _is_path_of(word, script)), None)
            for option, _ in _options(words[at + 1 :]) if at is not None and _launcher(words[:at]) else ():
                mark = f" __{option}"
                written = (number for number in range(first, last + 1) if mark in f" {lines[number].strip()}".replace("-", "_"))
                line = next(written, None)
                if line is not None:
                    found.setdefault(option, (name, line + 1))
    return found


def _logical(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the first and last index of the lines that the shell reads as one."""
    first = 0
    for number, line in enumerate(lines):
        if not line.endswith("\\"):
            yield first, number
            first = number + 1


def _is_path_of(word: str, script: Path) -> bool:
    """Return whether a word of a command names a script: its name, or the end of its path."""
    parts = [part for part in word.split("/") if part not in ("", ".")]
    return bool(parts) and parts == list(script.absolute().parts[-len(parts) :])


def _agreed(found: list[Launch]) -> dict[str, Object]:
    """Return the options on which commands agree; a command that is cut short says nothing of those that it leaves out."""
    names = dict.fromkeys(name for one in found for name in one.flags)
    given = {name: [one.flags.get(name) for one in found if name in one.flags or not one.cut] for name in names}
    return {
        name: values[0] for name, values in given.items() if values[0] is not None and values.count(values[0]) == len(values)
    }


def _words(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each line that names a Python file."""
    for line in text.replace("\\\n", " ").split("\n"):
        if ".py" in line and not line.lstrip().startswith("#"):
            yield tuple(word.strip("\"'") for word in _WORD.findall(line))


@remembered(64)
def _commands(folder: Path) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    """Return each line of the files beside a script that names a Python file, as (file, words)."""
    found: list[tuple[Path, tuple[str, ...]]] = []
    try:
        for path in [path for pattern in _FILES for path in content.files_like(folder, pattern) if _tells(path)][:_MAX_FILES]:
            found += [(path, words) for words in commands_in(path)]
    except (OSError, ValueError):
        return ()
    return tuple(found)


def _tells(path: Path) -> bool:
    return path.suffix in SHELLS or path.name.startswith("README")


def commands_in(path: Path) -> list[tuple[str, ...]]:
    """Return the words of each line of a file that names a Python file.

    Raises:
        OSError: The file cannot be read.
    """
    return list(_words(content.head(path, _MAX_BYTES).decode("utf-8", "replace")))


def command_of(words: Iterable[str]) -> list[str]:
    """Return the words up to the end of a command: a pipe, a redirection, a comment or the next command."""
    return list(itertools.takewhile(lambda word: _ENDS.match(word) is None, words))


def _read(place: Path, words: tuple[str, ...], script: str) -> Launch | None:
    """Return the launch of a script that one command describes; None if it does not launch the script."""
    at = next((number for number, word in enumerate(words) if word.rpartition("/")[2] == script), None)
    before = words[:at] if at is not None else ()
    launcher = _launcher(before)
    if at is None or not launcher:
        return None
    from kbitlint.source.configs.shell import value_of  # takes as long as a small script, and few scripts have a launch

    own = dict(_options(before))
    flags = {name: value_of(value) if value else Constant(True) for name, value in _options(words[at + 1 :])}  # noqa: FBT003
    several, fsdp, zero = _ranks(launcher, own, place.parent)
    cut = any(word in _DOTS for word in words[at + 1 :])
    processes = _processes(launcher, own, place.parent)
    ranks, counts = f"{launcher} in {place.name}" if several else "", "gradient_accumulation_steps" in own
    return Launch(flags, ranks, fsdp > 0, fsdp == 1, zero, cut, processes, counts)


def _launcher(words: Iterable[str]) -> str:
    names = [word.rpartition("/")[2] for word in words]
    for name, mark in (("torchrun", "torchrun"), ("accelerate launch", "accelerate"), ("deepspeed", "deepspeed")):
        if mark in names:
            return name
    if any(name in ("torch.distributed.run", "torch.distributed.launch") for name in names):
        return "torchrun"
    return "python" if any(re.fullmatch(r"python[\d.]*", name) for name in names) else ""


def _options(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of each option, up to the end of the command; an option without a value has an empty one."""
    name = ""
    values: list[str] = []
    for word in (*words, "&&"):
        ends = _ENDS.match(word) is not None
        if ends or (word.startswith("-") and not re.match(r"-\.?\d", word)):
            if name:
                yield name.lstrip("-").replace("-", "_"), values[0] if len(values) == 1 else "$" if values else ""
            given, equals, value = ("", "", "") if ends else word.partition("=")
            name, values = given, [value] if equals else []
        elif name:
            values.append(word)
        if ends:
            return


def _ranks(launcher: str, options: Mapping[str, str], folder: Path) -> tuple[bool, int, int | None]:
    """Return whether a launcher starts several processes, the version of FSDP that it sets up or 0, and its ZeRO stage."""
    if launcher == "torchrun":
        return options.get("nproc_per_node", "1") not in _ONE or options.get("nnodes", "1") not in _ONE, 0, None
    if launcher == "deepspeed":
        return options.get("num_gpus", "2") not in _ONE, 0, None
    if launcher == "python":
        return False, 0, None
    stage = options.get("zero_stage", "") if "use_deepspeed" in options else ""
    zero = int(stage) if stage.isdecimal() and len(stage) == 1 else None
    # accelerate 1.15, utils/dataclasses.py: version 1 without a choice
    fsdp = (2 if options.get("fsdp_version") == "2" else 1) if "use_fsdp" in options else 0
    several = "multi_gpu" in options or options.get("num_processes", "1") not in _ONE
    file = options.get("config_file", "")
    return _with_config(folder, file, several=several, fsdp=fsdp, zero=zero) if file else (several, fsdp, zero)


def _processes(launcher: str, options: Mapping[str, str], folder: Path) -> int | None:
    """Return the number of processes that a launcher starts; None if its command does not tell."""
    if launcher == "python":
        return 1
    if launcher == "accelerate" and "num_processes" not in options:
        launcher = "accelerate launch"
    each = options.get({"torchrun": "nproc_per_node", "deepspeed": "num_gpus"}.get(launcher, "num_processes"), "")
    nodes = options.get("nnodes", options.get("num_nodes", "1")) if launcher != "accelerate launch" else "1"
    if each.isdecimal() and nodes.isdecimal():
        return int(each) * int(nodes)
    file = options.get("config_file", "") if not each else ""
    return _of_config(folder, file).get("world_size") if file else None


def _with_config(folder: Path, file: str, *, several: bool, fsdp: int, zero: int | None) -> tuple[bool, int, int | None]:
    from kbitlint.context.strategy import Strategy  # only a launch with a configuration file needs it

    known = _of_config(folder, file)
    how, processes = known.get("strategy"), known.get("world_size")
    stage = {Strategy.ZERO3: 3}.get(how) if how is not None else None
    sharded = {Strategy.FSDP1: 1, Strategy.FSDP2: 2}.get(how, 0) if how is not None else 0
    return several or (processes or 1) > 1, fsdp or sharded, stage or zero


def _of_config(folder: Path, file: str) -> Mapping[str, Any]:
    """Return what a configuration file of accelerate sets; an empty mapping if there is none that can be read."""
    from kbitlint.context import launchers  # only a launch with a configuration file needs YAML
    from kbitlint.errors import KbitlintError  # as above

    for place in (folder / file, folder.parent / file):
        try:
            if content.is_file(place):
                return launchers.accelerate(place)
        except (KbitlintError, OSError, ValueError):
            continue
    return {}
