"""Exceptions that only a rehearsal has: of this machine, of the enclosure, or of what was stood in for."""

from __future__ import annotations

import errno
import linecache
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kbitlint.errors import KbitlintError, is_of_library, message_of, one_line
from kbitlint.rehearsal.inside import collectives
from kbitlint.rehearsal.inside.absent import is_left_out_base, is_touched
from kbitlint.runtime.enclosure import EnclosedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from kbitlint.rehearsal.inside.record import Record

#: names of exceptions for what is not on this machine
_OFFLINE = frozenset(
    (
        *("OfflineModeIsEnabled", "LocalEntryNotFoundError", "HfHubHTTPError", "RepositoryNotFoundError", "GatedRepoError"),
        *("DatasetNotFoundError", "DataFilesNotFoundError", "ConnectionError", "ConnectTimeout", "URLError", "gaierror"),
        *("LocalTokenNotFoundError", "NotAtHandError", "ConnectError", "MaxRetryError"),
    )
)
_OFFLINE_WORDS = re.compile(
    r"couldn't connect|offline mode|HF_HUB_OFFLINE|is not a local folder|cannot be found in our cached files|Couldn't reach"
    r"|Can't load (the )?(tokenizer|configuration|feature|image)|Couldn't find .* on the Hugging Face Hub"
)
_META = re.compile(r"\bmeta\b|register_meta|without data|has no data", re.IGNORECASE)
#: what torch's checkpoint writes below its message, of a tensor that is recomputed without values
_ON_META = "device(type='meta')"
_DEVICE = re.compile(r"\bCUDA\b|\bcuda\b|NVIDIA|\bnvcc\b|\bGPU\b|libcuda|libnccl|\bNCCL\b")
#: messages of native code about what Landlock refuses
_REFUSED = re.compile(r"permission denied|os error 13|cross-device link|unable to open database file", re.IGNORECASE)
#: packages whose objects hold data
_OF_DATA = frozenset(("builtins", "numpy", "torch", "pandas", "datasets", "transformers", "kbitlint", "PIL"))
#: stand-ins around functions of libraries, whose exceptions are those of the libraries
PASSING = frozenset(
    f"kbitlint.rehearsal.{name}"
    for name in (
        *("inside.writing", "trainings.loops", "trainings.trainers", "stand_ins.adapters", "stand_ins.devices"),
        *("stand_ins.generation", "stand_ins.ranks", "stand_ins.saving", "stand_ins.services", "stand_ins.tensors"),
        "stand_ins.words",
    )
)
#: messages of libraries about a package that they can do without
_UNINSTALLED = re.compile(r"\binstalled\b|pip install", re.IGNORECASE)
#: messages of Python about the arguments of a call, which depend on no values
_SIGNATURE = re.compile(r"unexpected keyword argument|required (positional|keyword-only) argument|positional arguments? but")
#: messages about the special tokens of a tokenizer, which the table of families has
_OF_TOKENIZERS = re.compile(r"does not have a padding token|no chat template")
_UNEXPECTED = re.compile(r"unexpected keyword argument")
#: exceptions of code that meets values it did not expect
_OF_VALUES = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError, AssertionError)


class NotAtHandError(OSError):
    """Something that a rehearsal can neither find on this machine nor stand in for."""


def only_here(error: BaseException, record: Record) -> str | None:
    """Return why a real run may not have an exception, as a clause; None if it has it."""
    if is_of_library(error):
        return None
    for one in _chain(error):
        if is_refused(one):
            return f"because its process may not do that: {one_line(one)}"
        if isinstance(one, EnclosedError):
            return f"because a rehearsal may not {message_of(one).partition('may not ')[2]}"
        if type(one).__name__ in _OFFLINE or (isinstance(one, OSError) and _OFFLINE_WORDS.search(message_of(one))):
            return f"because it needs what is not on this machine: {one_line(one)}"
        if isinstance(one, ImportError) and one is not error and _is_missing(one):
            return f"because a package is not installed here: {one_line(one)}"
        if collectives.is_of_gloo(one):
            return f"because gloo, which stands in for NCCL, cannot do it: {one_line(one)}"
    if demands_path(error, record):
        return missing(record)
    text = one_line(error)
    return _because_of_machine(error, text) or _because_of_stand_ins(error, record, text)


def is_refused(error: BaseException) -> bool:
    """Return whether the system refused an act that the enclosure did not name: one of native code."""
    if isinstance(error, EnclosedError):
        return False
    named = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EXDEV, errno.EFBIG)
    return named or _REFUSED.search(message_of(error)) is not None


def demands_path(error: BaseException, record: Record) -> bool:
    """Return whether the user's code itself ends the script, after it looked for a path that is not there."""
    place = record.users_frame(error)
    last = innermost(error.__traceback__)
    return (
        bool(record.missing)
        and not record.trainings
        and place is not None
        and last is not None
        and (last[1].co_filename == place[0] and _raises_there(place[0], place[1]))
    )


def missing(record: Record) -> str:
    """Return the clause that names the paths which the script looked for, and which are not here."""
    return f"because a path is not here: {', '.join(sorted(record.missing))}"


def _raises_there(file: str, line: int) -> bool:
    """Return whether a line of the user's raises or leaves by itself."""
    words = linecache.getline(file, line).split("#")[0]
    return re.search(r"\b(raise|assert|exit|_exit|quit)\b", words) is not None


def _because_of_machine(error: BaseException, text: str) -> str | None:
    """Return why an exception may be one of this machine and this process; None if it is not."""
    if isinstance(error, FileNotFoundError):
        return f"because a file is not here: {text}"
    if isinstance(error, ImportError) and _is_missing(error):
        return f"because a package is not installed here: {text}"
    if isinstance(error, (MemoryError, KbitlintError)):
        return f"because of the rehearsal itself: {text}"
    whole = message_of(error)
    if isinstance(error, (RuntimeError, NotImplementedError, ValueError, TypeError)) and (
        _META.search(text) or _ON_META in whole
    ):
        return f"because it needs values, which a model without weights lacks: {text}"
    if not isinstance(error, (ImportError, TypeError)) and _DEVICE.search(text) and not _is_checked_by_libraries(error):
        return f"because it asks the GPU itself: {text}"
    last = innermost(error.__traceback__)
    if last is not None and last[0].startswith("torch.cuda"):
        return f"because it asks the GPU itself: {text}"
    if _names_environment(error):
        return f"because the environment variable {text.partition(': ')[2]} is not set here"
    return None


def _because_of_stand_ins(error: BaseException, record: Record, text: str) -> str | None:
    """Return why an exception may come from what was stood in for; None if it does not."""
    last = innermost(error.__traceback__)
    if last is not None and last[0].startswith("kbitlint."):
        return f"because of the rehearsal itself: {text}"
    if record.absent and _depends_on_absent(error, record):
        return f"because it depends on a package that is not installed here ({', '.join(sorted(record.absent))}): {text}"
    if type(getattr(error, "obj", None)).__module__ == "transformers.modeling_outputs":  # answers of ``loops.py``
        return f"because it depends on results that need weights: {text}"
    made_up = (
        not _OF_TOKENIZERS.search(text)
        and isinstance(error, _OF_VALUES)
        and (_in_data(error.__traceback__) or _in_users(error, record))
    )
    if record.synthetic_data and made_up:
        return f"because it depends on the data, which were made up: {text}"
    if record.synthetic_words and made_up:
        return f"because it depends on the tokenizer, which was stood in for: {text}"
    if record.guessed and isinstance(error, _OF_VALUES) and _in_users(error, record):
        return f"because it depends on results that need weights: {text}"
    return None


def _depends_on_absent(error: BaseException, record: Record) -> bool:
    """Return whether an exception may come from the empty module of a package that is not installed."""
    if is_left_out_base(getattr(error, "obj", None)):
        return True
    if isinstance(error, (ImportError, NameError, SyntaxError)) or _is_apart_from_values(error):
        return False
    if _UNEXPECTED.search(message_of(error)):
        return is_touched(error.__traceback__)
    return is_touched(error.__traceback__) or (isinstance(error, _OF_VALUES) and _is_users_own(error, record))


def is_of_call(error: BaseException) -> bool:
    """Return whether a function was called with arguments that it does not take."""
    return isinstance(error, TypeError) and _SIGNATURE.search(message_of(error)) is not None


def _is_users_own(error: BaseException, record: Record) -> bool:
    """Return whether the innermost code is the user's."""
    last = innermost(error.__traceback__)
    return last is not None and record.is_users(last[1].co_filename)


def _in_users(error: BaseException, record: Record) -> bool:
    """Return whether the user's own code raised, as opposed to a library that it called."""
    apart = (
        isinstance(error, (ImportError, NameError))
        or _is_apart_from_values(error)
        or _SIGNATURE.search(message_of(error)) is not None
    )
    return _is_users_own(error, record) and not apart


def _is_apart_from_values(error: BaseException) -> bool:
    """Return whether an attribute is missing of an object that holds no data: a module, a class, a trainer, parsed options."""
    owner = getattr(error, "obj", None)
    if not isinstance(error, AttributeError) or owner is None:
        return False
    module = type(owner).__module__
    return isinstance(owner, (type, type(sys))) or module.split(".")[0] not in _OF_DATA


def _in_data(traceback: TracebackType | None) -> bool:
    """Return whether an exception passed through the code that reads data."""
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.startswith(("datasets.", "torch.utils.data", "pandas.")) or "collat" in traceback.tb_frame.f_code.co_name:
            return True
        traceback = traceback.tb_next
    return False


def _is_checked_by_libraries(error: BaseException) -> bool:
    """Return whether transformers, accelerate, TRL or PEFT raised on purpose. The stand-ins answer their questions."""
    last = innermost(error.__traceback__)
    return last is not None and last[0].split(".")[0] in ("transformers", "accelerate", "trl", "peft")


def _is_missing(error: ImportError) -> bool:
    """Return whether a whole package is missing, as opposed to a module of an installed one, or to a name in it."""
    if not isinstance(error, ModuleNotFoundError):
        return error.name is None or _UNINSTALLED.search(message_of(error)) is not None  # Python's own name what they lack
    package = (error.name or "").split(".")[0]
    try:
        return not package or find_spec(package) is None
    except (ImportError, ValueError):
        return True


def _names_environment(error: BaseException) -> bool:
    last = innermost(error.__traceback__)
    return isinstance(error, KeyError) and last is not None and last[0] == "os"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def innermost(traceback: TracebackType | None) -> tuple[str, Any] | None:
    """Return the module and the code of the innermost frame that does not only pass a call on to a library."""
    found = None
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module not in PASSING:
            found = (module, traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    return found
