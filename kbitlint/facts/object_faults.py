"""Facts of objects of the libraries that a script uses as something else than they are."""

from __future__ import annotations

from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ObjectFault:
    """A use of an object, a function or a result of a library that it does not allow."""

    kind: str
    """What is wrong: ``attribute``, ``keyword``, ``none``, ``class``; the rules name all of them."""
    owner: str
    """The class of the object, or the function."""
    name: str
    """The attribute, keyword, key or variable."""
    line: int
    offset: int
    """The offset of the line in the text."""
    meant: str = ""
    """The name that is meant; empty if it is not known."""
    version: str = ""
    """The library and its version that decides: ``transformers 5.0``; empty if no version allows the use."""
    detail: str = ""
    """What the use leads to."""
    file: str = ""
    """The file with the line, relative to the folder of the script; empty for the script itself."""
