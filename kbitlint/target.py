"""Target strings, parsed."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

from kbitlint import lazy_patterns as re
from kbitlint.errors import TargetError, did_you_mean
from kbitlint.lazy_dataclass import dataclass
from kbitlint.violation import Surface

#: of a script, a notebook or a training configuration; a Hub id has none of them
SUFFIXES = (".py", ".ipynb", ".yaml", ".yml", ".json", ".sh", ".slurm", ".sbatch")
#: those of shell scripts, jobs of SLURM included
SHELLS = (".sh", ".slurm", ".sbatch")
_HEADERS = (".safetensors", ".safetensors.index.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_URL = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<name>[\w.-]+/[\w.-]+?)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+)(?:/.*)?)?/?(?:[?#].*)?"
)
#: most entries of a folder among which a similar name is searched
_MOST_NAMES = 2_000
_FACTORY = re.compile(r"(?P<place>.+):(?P<attribute>[A-Za-z_][\w.]*)")


class Kind(enum.Enum):
    """What a user can audit."""

    CHECKPOINT = "checkpoint folder"
    ADAPTER = "adapter folder"
    HUB = "Hub id"
    FACTORY_FILE = "factory in a file"
    FACTORY_MODULE = "factory in a module"
    FILE = "checkpoint file"
    SCRIPT = "training script, notebook or configuration"
    TREE = "folder of scripts"
    LIVE = "model or Trainer"


SURFACES = {
    Kind.CHECKPOINT: (Surface.FILES, Surface.MODEL),
    Kind.ADAPTER: (Surface.FILES, Surface.MODEL),
    Kind.HUB: (Surface.FILES, Surface.MODEL),
    Kind.FACTORY_FILE: (Surface.MODEL,),
    Kind.FACTORY_MODULE: (Surface.MODEL,),
    Kind.FILE: (Surface.FILES,),
    Kind.SCRIPT: (Surface.SOURCE,),
    Kind.TREE: (Surface.SOURCE,),
    Kind.LIVE: (Surface.MODEL,),
}
SOURCES = (Kind.SCRIPT, Kind.TREE)
FACTORIES = (Kind.FACTORY_FILE, Kind.FACTORY_MODULE)

#: JSON files of a checkpoint; any other JSON file may configure a training
CHECKPOINT_FILES = ("config.json", "adapter_config.json", "generation_config.json", "kbitlint.json")


#: the file of a diffusers pipeline, and the component that is trained, the usual one first
PIPELINE = "model_index.json"
_DENOISERS = ("transformer", "unet", "prior", "transformer_2")


@dataclass(frozen=True, slots=True)
class Target:
    """What a target string names and where it is, or the model that the caller holds."""

    text: str
    """As the user wrote it; empty for a live model."""
    kind: Kind
    place: str
    """The folder, file, module or Hub id."""
    attribute: str = ""
    """For a factory: the name of the callable."""
    revision: str | None = None
    live: Any = None
    """The model or Trainer that the caller holds; None for a target string."""
    data: bytes | None = None
    """The bytes of a script that is not read from its file, such as the text of an editor; None to read the file."""

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Return the surfaces that the target offers."""
        return SURFACES[self.kind]

    @property
    def folder(self) -> Path:
        """Return the folder of a checkpoint, of an adapter or of one of their files."""
        return Path(self.place).parent if self.kind is Kind.FILE else Path(self.place)


def text_as(name: str, data: bytes) -> Target:
    """Return the text of a script, notebook or configuration as a target.

    Args:
        name: The file that it has, or would have. Its suffix decides how the text is read.
        data: The text as bytes.

    Raises:
        TargetError: The name has none of the suffixes.
    """
    if not name.endswith(SUFFIXES):
        raise TargetError(name, f"the name of a text ends in one of {', '.join(SUFFIXES)}")
    return Target(name, Kind.SCRIPT, name, data=data)


def held(live: Any) -> Target:
    """Return a model or Trainer that the caller holds as a target."""
    return Target("", Kind.LIVE, "", live=live)


def parse(text: str) -> Target:
    """Return the parsed target string.

    Raises:
        TargetError: If it is empty, names nothing that exists, or names a file of another kind.
    """
    if not text.strip():
        raise TargetError("target", "is empty")
    path = Path(text)
    found = _found(text, path)
    if found is not None:
        return found
    if "::" in text:
        raise TargetError(text, f"a function follows one colon; did you mean {text.replace('::', ':')!r}?")
    factory = _FACTORY.fullmatch(text)
    if factory:
        place, attribute = factory["place"], factory["attribute"]
        if place.endswith(".py"):
            if not Path(place).exists():  # what is there and is no file is refused where it is read
                raise TargetError(text, f"there is no file {place}{near(Path(place))}")
            return Target(text, Kind.FACTORY_FILE, place, attribute)
        if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", place):
            return Target(text, Kind.FACTORY_MODULE, place, attribute)
    url = _HUB_URL.fullmatch(text)
    if url:
        name = url["name"] + (f"@{url['revision']}" if url["revision"] else "")
        raise TargetError(text, f"is an address, not the id of a model; did you mean {name!r}?")
    name, _, revision = text.partition("@")
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1 or path.suffix in SUFFIXES
    if not looks_local and _HUB_ID.fullmatch(name):
        return Target(text, Kind.HUB, name, revision=revision or None)
    raise TargetError(text, f"there is no such file or folder{near(path)}")


def near(path: Path) -> str:
    """Return a hint for a path that leads nowhere: that it is a link, or an entry of its folder with a similar name."""
    try:
        if path.is_symlink():
            return ": it is a link that leads to none"
        names = [entry.name for entry in path.parent.iterdir()][:_MOST_NAMES]
    except (OSError, ValueError):  # ValueError: a null byte
        return ""
    return did_you_mean(str(path), (str(path.parent / name) for name in names))


def _found(text: str, path: Path) -> Target | None:
    """Return the target at a path; None if there is nothing. A pipe, device or socket is not opened."""
    try:
        if path.is_dir():
            return _folder(text, path)
        if path.is_file():
            return _file(text, path)
        if path.exists():
            raise TargetError(text, "is a pipe, a device or a socket, not a file")
    except OSError as error:  # a name that is too long, or a folder without search permission
        raise TargetError(text, f"cannot be looked at: {error.strerror or error}") from error
    return None


def is_function(text: str) -> bool:
    """Return whether a target string names a function. An audit of such a target runs the function."""
    try:
        return parse(text).kind in FACTORIES
    except TargetError:
        return False


def _folder(text: str, path: Path) -> Target:
    if (path / "adapter_config.json").is_file():
        return Target(text, Kind.ADAPTER, str(path))
    if (path / "config.json").is_file():
        return Target(text, Kind.CHECKPOINT, str(path))
    if (path / PIPELINE).is_file():
        return Target(text, Kind.CHECKPOINT, str(_denoiser(text, path)))
    return Target(text, Kind.TREE, str(path))


def _denoiser(text: str, path: Path) -> Path:
    """Return the folder of the component that a diffusion pipeline trains.

    Raises:
        TargetError: The pipeline has no such component.
    """
    found = next((path / name for name in _DENOISERS if (path / name / "config.json").is_file()), None)
    if found is None:
        raise TargetError(
            text, f"{PIPELINE} names a pipeline without {' or '.join(_DENOISERS)}; name the folder of a component"
        )
    return found


def _file(text: str, path: Path) -> Target:
    if path.name in CHECKPOINT_FILES or path.name.endswith(_HEADERS):
        return Target(text, Kind.FILE, str(path))
    if path.suffix in SUFFIXES:
        return Target(text, Kind.SCRIPT, str(path))
    raise TargetError(
        text,
        "only checkpoint folders and their JSON files, scripts (.py, .ipynb), training configurations (.yaml, .json), shell "
        "scripts (.sh, .slurm), folders and factories (file.py:function) can be checked",
    )
