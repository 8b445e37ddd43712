"""The command that starts a training: a script with arguments, or a launcher with both.

No launcher runs. Its own arguments say how many ranks there are, and which environment they see.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from kbitlint.errors import TargetError
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime import content
from kbitlint.source.launches import command_of, commands_in
from kbitlint.target import SHELLS, near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SUFFIXES = (".py", ".ipynb")
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
#: commands that start another command, which follows their own options
_STARTERS = ("srun", "mpirun", "mpiexec", "nohup", "exec", "time", "env")
_LAUNCHERS = ("accelerate", "torchrun", "deepspeed", "python", "python3", "uv", "poetry", "torch.distributed.run")
#: arguments of launchers that give the number of ranks on this machine
_RANKS = ("--num_processes", "--nproc_per_node", "--nproc-per-node", "--num_gpus", "--num-processes")
_CONFIGS = ("--config_file", "--config-file")


@dataclass(frozen=True, slots=True)
class Command:
    """A script, its arguments, and what its launcher adds."""

    script: str
    """The path of the script or notebook, or the dotted name of a module."""
    argv: tuple[str, ...] = ()
    is_module: bool = False
    launcher: str = ""
    """The name of the launcher; empty if the script is started by itself."""
    ranks: int | None = None
    """The number of processes that the launcher starts; None if it does not say."""
    launch_file: str | None = None
    """The file of ``accelerate config``; None if none is given."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the script with its arguments."""
        return " ".join((self.script, *self.argv))


def words_of(target: object, argv: Sequence[str]) -> tuple[str, ...] | None:
    """Return the words of a command that a target and its arguments are; None if the target is no script and no command.

    Args:
        target: A path, or a whole command in one string.
        argv: The arguments of the script.

    Raises:
        TargetError: The arguments are one string, or not those of a script; or the command has an open quote.
    """
    if not isinstance(target, (str, Path)):
        if argv:
            raise TargetError(f"a {type(target).__name__}", "takes no arguments: argv is for scripts")
        return None
    if isinstance(argv, str):
        raise TargetError(str(target), f"argv is a list of words, such as {argv.split()!r}")
    text = str(target)
    if text.endswith((*_SUFFIXES, *SHELLS)) and (Path(text).exists() or " " not in text):
        return (text, *argv)
    try:
        words = [text] if Path(text).exists() else shlex.split(text)
    except (ValueError, OSError) as error:
        raise TargetError(text, f"is no command: {error}") from error
    return (*words, *argv) if argv or (len(words) > 1 and _is_command(words)) else None


def _is_command(words: Sequence[str]) -> bool:
    return words[0].endswith(_SUFFIXES) or bool(_ASSIGNED.fullmatch(words[0])) or _starts_python(words[0])


def read_command(words: Sequence[str]) -> Command:
    """Return the command that a command line holds.

    Args:
        words: ``train.py --flag``, a launcher with its arguments before the script, or a shell script with one such command.

    Raises:
        TargetError: No word names a script, or there is no such file; or a shell script has several commands, or variables.
    """
    rest = list(words)
    environment: dict[str, str] = {}
    while rest and _ASSIGNED.fullmatch(rest[0]) and not rest[0].endswith(_SUFFIXES):
        name, _, value = rest.pop(0).partition("=")
        environment[name] = value
    if not rest:
        raise TargetError("rehearse", "name a script, or give the whole command after `--`")
    if rest[0].endswith(_SUFFIXES):
        return _checked(Command(rest[0], tuple(rest[1:]), environment=environment))
    if rest[0].endswith(SHELLS):
        return read_command([*(f"{name}={value}" for name, value in environment.items()), *_of_shell(*rest)])
    if Path(rest[0]).name in _STARTERS:
        rest = rest[_first(rest) or 0 :]
        if rest[0].endswith(_SUFFIXES):
            return _checked(Command(rest[0], tuple(rest[1:]), environment=environment))
    launcher = Path(rest[0]).name
    if not _is_launcher(launcher):
        raise TargetError(rest[0], "is no script (.py or .ipynb) and no launcher (accelerate, torchrun, deepspeed, python)")
    return _launched(launcher, rest[1:], environment)


def _is_launcher(name: str) -> bool:
    return name in _LAUNCHERS or name.startswith("python")


def _starts_python(word: str) -> bool:
    return _is_launcher(Path(word).name) or word.endswith(_SUFFIXES)


def _of_shell(script: str, *argv: str) -> list[str]:
    """Return the words of the one command in a shell script that starts Python; nothing of the script is run.

    Raises:
        TargetError: The script cannot be read, has no such command or several, or its command holds variables.
    """
    place = Path(script)
    try:
        found = [command_of(words[start:]) for words in commands_in(place) for start in [_first(words)] if start is not None]
    except FileNotFoundError as error:
        raise TargetError(script, f"there is no such file{near(place)}") from error
    except OSError as error:
        raise TargetError(script, f"cannot be read: {error.strerror or error}") from error
    if len(found) != 1:
        raise TargetError(script, "is a shell script, which is not run: rehearse the command in it that starts Python")
    words = [
        word if Path(word).exists() or not (place.parent / word).is_file() else str(place.parent / word) for word in found[0]
    ]
    at = next((number for number, word in enumerate(words) if word.endswith(_SUFFIXES)), 0)
    if any("$" in word for word in words[at:]):
        given = " ".join(words)
        raise TargetError(script, f"has variables in its command: rehearse it with their values: kbitlint rehearse -- {given}")
    return [*words, *argv]


def _first(words: Sequence[str]) -> int | None:
    return next((number for number, word in enumerate(words) if _starts_python(word)), None)


def _launched(launcher: str, words: list[str], environment: dict[str, str]) -> Command:
    """Return the command behind a launcher. The script is the first word that names one, or follows ``-m``."""
    ranks, launch_file, module = None, None, False
    for number, word in enumerate(words):
        name, _, inline = word.partition("=")
        value = inline or (words[number + 1] if number + 1 < len(words) else "")
        if name in _RANKS and value.isdecimal():
            ranks = int(value)
        elif name in _CONFIGS:
            launch_file = value
        elif word in ("-m", "--module"):
            module = value not in _LAUNCHERS and not value.startswith(("accelerate.", "torch.distributed."))
        elif word.endswith(_SUFFIXES) and (number == 0 or words[number - 1] not in _CONFIGS):
            own = environment | (
                {"ACCELERATE_MIXED_PRECISION": _precision(words[:number])} if _precision(words[:number]) else {}
            )
            made = Command(word, tuple(words[number + 1 :]), False, launcher, ranks, launch_file, own)  # noqa: FBT003  # is_module
            return _checked(made)
        elif module and number and words[number - 1] in ("-m", "--module"):
            return Command(word, tuple(words[number + 1 :]), True, launcher, ranks, launch_file, environment)  # noqa: FBT003  # is_module
    raise TargetError(launcher, "its command names no script (.py or .ipynb)")


def _precision(words: Sequence[str]) -> str:
    for number, word in enumerate(words):
        name, _, inline = word.partition("=")
        if name in ("--mixed_precision", "--mixed-precision"):
            return inline or (words[number + 1] if number + 1 < len(words) else "")
    return ""


def _checked(command: Command) -> Command:
    try:
        with content.opened(Path(command.script)) as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise TargetError(command.script, f"there is no such file{near(Path(command.script))}") from error
    except OSError as error:
        raise TargetError(command.script, f"cannot be read: {error.strerror or error}") from error
    if size > content.MAX_BYTES:
        raise TargetError(command.script, f"cannot be read: it is larger than {content.MAX_BYTES / 2**20:g} MiB")
    return command
