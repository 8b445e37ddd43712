"""Accelerator cards by the names that people use, and what a process holds on one besides its tensors.

The memory on the box is in GiB. A process can use less: the driver keeps a part, and error correction of GDDR memory takes a
sixteenth on data-centre cards. The total of an H200 is that of ``torch.cuda.mem_get_info``.
"""

from __future__ import annotations

import contextlib
import re

from kbitlint.errors import KbitlintError, did_you_mean
from kbitlint.lazy_dataclass import dataclass
from kbitlint.sizes import size_of

GIB = 2**30
#: Bytes of the CUDA context and the loaded kernels (165 to 169 MB by ``mem_get_info`` on an H200, torch 2.11, CUDA 13).
CONTEXT = 169_000_000
#: Bytes that torch's allocator reserves for each byte of the peak: the median of 43 steps on an H200 (1.02 to 1.25).
RESERVED = 1.13
#: The least of these. The allocator returns cached blocks before it gives up, so a step may run with so little.
LEAST_RESERVED = 1.02
#: The share that fragments of torch's allocator add to the peak. Public records show 4 to 18 %, less with expandable segments.
FRAGMENTS = 1.05
#: Bytes of cuBLAS' workspaces from Hopper on, one for the forward thread and one for autograd's (torch's CUDABlas.cpp).
WORKSPACE = 2 * 32 * 2**20
#: The same before Hopper: 2 x 4096 KiB and 8 x 16 KiB for each thread.
_OLDER = 2 * (2 * 4096 + 8 * 16) * 1024
#: Bytes that no card has.
LARGEST = 10 * 10**12
#: The share of its memory that a card's driver keeps for itself.
_DRIVER = 0.015


@dataclass(frozen=True, slots=True)
class Card:
    """One accelerator card."""

    name: str
    total: int
    """Bytes that a process can use."""
    workspace: int = WORKSPACE
    """Bytes of cuBLAS' workspaces: one for the forward thread and one for autograd's thread."""
    context: int = CONTEXT
    """Bytes of the context and the loaded kernels."""
    fragments: float = FRAGMENTS
    """Bytes that the allocator needs for each byte of the peak."""
    device: str = "cuda"
    """Whose kernels run: ``cuda`` or ``cpu``."""

    def on_card(self, peak: int) -> int:
        """Return the bytes that a process needs on the card if its tensors hold ``peak`` bytes at most."""
        return round(peak * self.fragments) + self.context


#: name -> (GiB, whether it is of Hopper or later)
_CARDS: dict[str, tuple[float, bool]] = {
    "T4": (16, False),
    "P100": (16, False),
    "V100": (32, False),
    "V100-16": (16, False),
    "RTX6000": (24, False),
    "RTX8000": (48, False),
    "L4": (24, False),
    "A10": (24, False),
    "A10G": (24, False),
    "A16": (16, False),
    "A30": (24, False),
    "A40": (48, False),
    "A6000": (48, False),
    "A5000": (24, False),
    "A4500": (20, False),
    "A4000": (16, False),
    "L40": (48, False),
    "L40S": (48, False),
    "RTX6000Ada": (48, False),
    "A100": (80, False),
    "A100-40": (40, False),
    "H100": (80, True),
    "H100-NVL": (94, True),
    "GH200": (96, True),
    "H200": (141, True),
    "B200": (180, True),
    "RTX-PRO-6000": (96, True),
    "2080Ti": (11, False),
    "3060": (12, False),
    "3070": (8, False),
    "3080": (10, False),
    "3080Ti": (12, False),
    "3090": (24, False),
    "3090Ti": (24, False),
    "4060": (8, False),
    "4060Ti": (16, False),
    "4060Ti-8": (8, False),
    "4070": (12, False),
    "4070Super": (12, False),
    "4070Ti": (12, False),
    "4070TiSuper": (16, False),
    "4080": (16, False),
    "4080Super": (16, False),
    "4090": (24, False),
    "5060Ti": (16, True),
    "5060Ti-8": (8, True),
    "5070": (12, True),
    "5070Ti": (16, True),
    "5080": (16, True),
    "5090": (32, True),
}
NAMES = tuple(_CARDS)
#: words of a driver's name for a card that do not tell cards apart
_BESIDE = re.compile(r"nvidia|geforce|tesla|quadro|sxm\d?|pcie|hbm\d?e?|blackwell|(?:server|workstation) edition|generation")
#: what tells two cards of one name apart
_VARIANT = re.compile(r"-(?:\d{1,2}|NVL)$")
#: characters of a text that a message repeats
_SHOWN = 60
#: data-centre cards with GDDR memory, whose error correction is on by default
_CORRECTED = frozenset(["T4", "L4", "A10", "A10G", "A16", "A40", "L40", "L40S"])
#: usable bytes where a real card said more than the number on its box
_SAID = {"H200": 150_109_880_320}


def find(text: str) -> Card:
    """Return the card of a name such as ``4090`` or ``NVIDIA A100-SXM4-80GB``, or a card of a size such as ``24GB``.

    A size is taken as the usable bytes; ``24GB`` is the number on a box and means GiB, as vendors use it.

    Raises:
        KbitlintError: It is neither a known card nor a size of one.
    """
    found = _named(text) or _sized(text)
    if found is not None:
        return found
    several = re.fullmatch(r"\s*(\d+)\s*[x*]\s*(\w\S*)\s*", text, re.IGNORECASE)
    if several:
        raise KbitlintError(f"--gpu {text}: names one card: pass --gpu {several[2]} --gpus {several[1]}")
    number = re.fullmatch(r"\s*([1-9]\d{0,2}(?:\.\d+)?)\s*", text)
    hint = f"; did you mean '{number[1]}GB'?" if number else did_you_mean(text, NAMES)
    raise KbitlintError(
        f"--gpu {text[:_SHOWN]}: neither a size such as 24GB nor a known card{hint}; known are {', '.join(NAMES)}"
    )


def _named(text: str) -> Card | None:
    """Return the card of a name, which may be the driver's: with its socket, and the size on its box. None for other texts.

    Raises:
        KbitlintError: The card of that name has another size.
    """
    boxed = re.search(r"(?<=[\s_-])(\d{1,3})\s*gi?b\b", text, re.IGNORECASE)
    size = float(boxed[1]) if boxed else None
    plain = _plain(text.replace(boxed[0], "") if boxed else text)
    cards = {known: card for known, card in _CARDS.items() if plain in (_plain(known), _plain(_VARIANT.sub("", known)))}
    chosen = next((known for known in cards if size == cards[known][0] or (size is None and plain == _plain(known))), None)
    if chosen is None:
        if cards:
            sizes = " or ".join(f"{gib:g}" for gib, _ in cards.values())
            raise KbitlintError(f"--gpu {text[:_SHOWN]}: {next(iter(cards))} has {sizes} GB")
        return None
    gib, new = cards[chosen]
    share = (1 - _DRIVER) * (15 / 16 if chosen in _CORRECTED else 1)
    return Card(chosen, _SAID.get(chosen, round(gib * GIB * share)), _workspace(new=new))


def _sized(text: str) -> Card | None:
    """Return a card of a size; None for other texts.

    Raises:
        KbitlintError: The size is above that of any card.
    """
    boxed = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*g(?:i?b)?\s*", text, re.IGNORECASE)
    total = 0.0
    if boxed:
        total = float(boxed[1]) * GIB * (1 - _DRIVER)
    elif re.search(r"[kmt]i?b\s*$|^\d{7,}$", text.strip(), re.IGNORECASE):
        with contextlib.suppress(ValueError, OverflowError):
            total = size_of(text)
    if total > LARGEST:
        raise KbitlintError(f"--gpu {text[:_SHOWN]}: no card has more than {LARGEST // 10**12} TB; a size is such as 24GB")
    return Card(text.strip(), round(total)) if total >= 1 else None


#: sizes of cards as on their boxes, in GB
BOXES = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180)


def smallest(nbytes: int) -> int | None:
    """Return the size of the smallest card that a process of so many bytes fits, as on its box; None if none does."""
    return next((box for box in BOXES if nbytes <= find(f"{box}GB").total), None)


def host(total: int) -> Card:
    """Return a CPU whose allocator may give out so many bytes. It has neither a context nor fragments."""
    return Card("cpu", total, 0, 0, 1.0, "cpu")


def _workspace(*, new: bool) -> int:
    return WORKSPACE if new else _OLDER


def _plain(text: str) -> str:
    """Return the name of a card without its maker, series, socket and separators."""
    plain = re.sub(r"[\s_-]", "", _BESIDE.sub("", text.lower()))
    return re.sub(r"^(?:rtx|gtx)(?!pro|[68]000)", "", plain)


def on_card(allocated: int, reserved: float = RESERVED) -> int:
    """Return the bytes that a process holds on its card when its tensors held ``allocated`` bytes at most."""
    return round(allocated * reserved) + CONTEXT
