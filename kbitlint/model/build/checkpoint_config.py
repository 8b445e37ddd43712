"""A checkpoint's config, and the class, dtype and quantization that a load would choose from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from kbitlint.errors import KbitlintError, TargetError, UnreachableError, one_line
from kbitlint.extras import load_bitsandbytes
from kbitlint.files.checkpoint import homes
from kbitlint.files.config_keys import refuse_places
from kbitlint.files.hub import local_only
from kbitlint.files.json_object import read_json
from kbitlint.lazy_dataclass import dataclass
from kbitlint.runtime.confinement import confined
from kbitlint.target import near
from kbitlint.upstream.checkpoints import measurable, nearest
from kbitlint.upstream.quantization import four_bit_arguments

#: Keys that count modules, and the most modules and labels that are built.
#: The largest public models have at most 126 layers and 512 experts.
_COUNTS = re.compile(r"layers?$|depths?$|experts?$|blocks?$|stages?$")
_MOST, _MOST_LABELS = 10_000, 1_000_000
#: Why the config of a name is not at hand.
_NOWHERE = "no such folder, and no such model on the Hub (or it is private: log in with `hf auth login`)"
_GATED = "the Hub gives its config to accounts with access only: log in with `hf auth login`"
_UNREACHABLE = (
    "there is no such folder, and as a Hub id its config is neither in the cache nor reachable: "
    "check the name, the network and HF_HUB_OFFLINE"
)


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a config, and whether its code may run."""

    name: str
    """A folder, or a Hub id."""
    revision: str | None = None
    """A revision on the Hub. None is the default branch."""
    trust_remote_code: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for transformers' own loaders."""
        return {"revision": self.revision} if self.revision else {}

    @property
    def asks(self) -> str:
        """Return the path or Hub name of the ``config.json``, for errors about its content."""
        file = Path(self.name) / "config.json"
        return str(file) if file.is_file() else f"{self.name}: config.json"

    def confined(self, *places: Path) -> AbstractContextManager[None]:
        """Confine the code of the ``with`` statement to the checkpoint's folder and further places.

        Trusted remote code is not confined.
        """
        if self.trust_remote_code:
            return nullcontext()
        folder = Path(self.name)
        own = (*homes(folder), folder / "config.json") if folder.is_dir() else ()
        return confined(self.asks, *own, *places)


def load_config(source: Source) -> Any:
    """Return the config of a checkpoint folder or Hub id. Remote code runs only with ``trust_remote_code``.

    Raises:
        TargetError: The config cannot be found, read or built. Or it requests too many modules, or a file or kernel outside the
            checkpoint.
    """
    from transformers import AutoConfig  # takes a second to import

    arguments, places = source.arguments(), tuple[Path, ...]()
    try:
        file = _config_file(source)
        if file is not None:
            values = read_json(file)
            _refuse_no_table(source, values)
            _refuse_giants(source, values)  # construction of the config itself may exhaust the memory
            if not source.trust_remote_code:
                refuse_places(source.asks, values)
            if not Path(source.name).is_dir():  # the file is in the cache now, and the config may not cause further downloads
                arguments, places = {**arguments, "local_files_only": not source.trust_remote_code}, (file.parents[2],)
        with source.confined(*places):
            config = AutoConfig.from_pretrained(source.name, trust_remote_code=source.trust_remote_code, **arguments)
    except KbitlintError:
        raise
    except Exception as error:
        raise _no_config(source, error) from error
    _refuse_giants(source, config.to_dict())
    if not source.trust_remote_code:
        refuse_places(source.asks, _implementations(config))
    return config


def load_or_assume(source: Source) -> tuple[Any, str]:
    """Return the config of a checkpoint; if it is nowhere, that of its name in the table of families, and a note that says so.

    Raises:
        TargetError: As for ``load_config``. The name of a config that is nowhere tells neither geometry nor storage.
    """
    try:
        return load_config(source), ""
    except UnreachableError as missing:
        known = measurable(source.name)
        if known is None:
            raise UnreachableError(source.name, missing.problem + nearest(source.name)) from missing
    from transformers import AutoConfig  # takes a second to import

    note = f"neither a folder, the cache nor the Hub has its config, so it is that of the table of families ({known.row})"
    return AutoConfig.for_model(**known.config), note


def _config_file(source: Source) -> Path | None:
    """Return the ``config.json`` of a folder or, after a download, of a Hub id's cache. None means a folder without one.

    Raises:
        OSError: A Hub id has no such file or cannot be reached. transformers raises it.
    """
    from transformers.utils import cached_file  # takes a second to import

    folder = Path(source.name)
    if folder.is_dir():
        file = folder / "config.json"
        return file if file.is_file() else None
    return Path(cached_file(source.name, "config.json", **source.arguments(), **local_only()))


def _refuse_no_table(source: Source, values: Mapping[str, Any]) -> None:
    """Raise TargetError if the quantization of a config is no table of settings."""
    own = values.get("quantization_config")
    if own is not None and not isinstance(own, Mapping):
        raise TargetError(source.asks, f"quantization_config must be an object, not {own!r:.60}")


def _refuse_giants(source: Source, values: Any, at: str = "") -> None:
    """Raise TargetError if a config requests more modules or labels than can be built."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        name = f"{at}{key}"
        if isinstance(value, Mapping):
            _refuse_giants(source, value, f"{name}.")
            continue
        numbers = [number for number in (value if isinstance(value, list) else [value]) if type(number) is int]
        counts = _COUNTS.search(str(key)) and not str(key).startswith("max_")
        most = _MOST_LABELS if key == "num_labels" else _MOST if counts else None
        if most is not None and max(numbers, default=0) > most:
            raise TargetError(source.name, f"its config asks for {name}: {max(numbers)}; more than {most} are not built")


def _implementations(config: Any) -> dict[str, Any]:
    """Return the attention and expert implementations that the parts of a config request, by key.

    A value may be a kernel on the Hub (``org/name``), which transformers runs without ``trust_remote_code``.
    """
    names = ("_attn_implementation_internal", "_experts_implementation_internal")
    parts = getattr(config, "sub_configs", None) or {}
    own = {name: getattr(config, name, None) for name in names}
    return own | {name: _implementations(part) for name in parts if (part := getattr(config, name, None)) is not None}


def _no_config(source: Source, error: Exception) -> TargetError:
    """Return the error of a config that transformers cannot read, with a reason in one line."""
    reason = _why_no_config(error)
    if reason in (_NOWHERE, _GATED, _UNREACHABLE):
        return UnreachableError(source.name, reason + near(Path(source.name)))
    return TargetError(source.name, reason)


def _why_no_config(error: Exception) -> str:
    """Return the error of transformers as one line that names the cause and the remedy."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "its config asks for remote code, which is never run unless you pass --trust-remote-code"
    if "model type" in text or "model_type" in text:
        found = re.search(r"model type [`'\"]?([\w-]+)", text)
        import transformers  # takes a second to import

        name = f" {found.group(1)!r}" if found else ""
        return (
            f"the installed transformers {transformers.__version__} does not know the model type{name}; "
            "upgrade it, or pass --trust-remote-code where the checkpoint brings its own code"
        )
    if "gated repo" in text:
        return _GATED
    if "Repo id must" in text or "not a local folder" in text or "404" in text:
        return _NOWHERE
    if any(sign in text for sign in ("offline", "couldn't connect", "Can't load", "Connection", "cached")):
        return _UNREACHABLE
    return f"its config cannot be read: {one_line(error)}"


def model_class(config: Any, source: Source) -> Any:
    """Return the class named by ``architectures`` of the config, or the class that an Auto class maps the config to.

    Raises:
        TargetError: The installed transformers has no such class.
    """
    import transformers  # takes a second to import

    names = list(getattr(config, "architectures", None) or ())
    remote = getattr(config, "auto_map", None) or {}
    if source.trust_remote_code:
        for auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModel"):
            if auto in remote:
                from transformers.dynamic_module_utils import get_class_from_dynamic_module  # takes a second to import

                return get_class_from_dynamic_module(remote[auto], source.name, **source.arguments())
    for name in names:
        found = getattr(transformers, str(name), None)
        # other objects in transformers may have the same name
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    for auto in (
        "AutoModelForCausalLM",
        "AutoModelForSeq2SeqLM",
        "AutoModelForImageTextToText",
        "AutoModelForSpeechSeq2Seq",
        "AutoModelForMaskedLM",
        "AutoModel",
    ):
        mapping = getattr(getattr(transformers, auto, None), "_model_mapping", {})
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    known = f" (config.json names {', '.join(map(str, names))})" if names else ""
    raise TargetError(source.name, f"no model class of the installed transformers fits its config{known}")


def quantization_config(name: str, dtype: torch.dtype) -> Any:
    """Return the quantization config for a value of ``--quantize``. The compute dtype is the model's own dtype."""
    from transformers import BitsAndBytesConfig  # takes a second to import

    load_bitsandbytes(f"--quantize {name}")
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(bnb_4bit_compute_dtype=dtype, **four_bit_arguments(name))


def dtype_of(config: Any, *, quantized: bool) -> torch.dtype:
    """Return the dtype in which ``from_pretrained`` loads unquantized tensors if the caller passes none.

    transformers 5 uses the checkpoint's dtype. transformers 4 uses float32, and float16 for bitsandbytes.
    """
    own = getattr(config, "dtype", None)
    own = own if own is not None else getattr(config, "torch_dtype", None)
    if isinstance(own, str):
        own = getattr(torch, own.removeprefix("torch."), None)
    if major_version() < 5:
        return torch.float16 if quantized else torch.float32
    return own if isinstance(own, torch.dtype) else torch.float32


def major_version() -> int:
    """Return the major version of the installed transformers. Versions 4 and 5 load differently."""
    import transformers  # takes a second to import

    return int(transformers.__version__.split(".")[0])
