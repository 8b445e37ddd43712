"""Facts of a repository on the Hub, from its configs and safetensors headers. Weights are never downloaded.

huggingface_hub fetches the first bytes of each file by range request (``HfApi.get_safetensors_metadata``).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import socket
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.facts.checkpoint import CheckpointFacts, Damage, Tensor
from kbitlint.files.json_object import read_json
from kbitlint.files.packing import packing_of
from kbitlint.files.safetensors import MAX_TENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that a connection to the Hub may take, and for which the answer holds.
_PATIENCE, _HOLDS = 3.0, 60.0
UNREACHED = "the headers of its weights cannot be had from the Hub"


def local_only() -> dict[str, bool]:
    """Return the arguments that keep a download to the cache if the Hub takes no connection from here.

    huggingface_hub (2.4, utils/_http.py) repeats each request five times, which takes half a minute on a machine without a
    network. A proxy decides by itself, and so does HF_HUB_OFFLINE.
    """
    from huggingface_hub import constants  # an optional dependency

    if constants.HF_HUB_OFFLINE is True or _has_proxy():
        return {}
    return {"local_files_only": True} if _is_unreached() else {}


def _has_proxy() -> bool:
    return bool({"http", "https", "all"} & urllib.request.getproxies().keys())


def _is_unreached() -> bool:
    """Return whether the Hub takes no connection from here."""
    from huggingface_hub import constants  # an optional dependency

    return not _takes_connections(str(constants.ENDPOINT), int(time.monotonic() / _HOLDS))


class _Unreached:
    """huggingface_hub's switch of its offline mode: on if the Hub takes no connection, which is found out when it is read.

    transformers reads it for folders of this machine too, for which nothing may be asked.
    """

    def __bool__(self) -> bool:
        """Return whether the Hub takes no connection; False for a reader outside huggingface_hub."""
        reader = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001  # the reader decides whether a request follows
        return reader.startswith("huggingface_hub.") and _is_unreached()


@contextmanager
def offline_if_unreached() -> Iterator[None]:
    """Let code inside the ``with`` statement take the cache at once if the Hub takes no connection; see ``local_only``."""
    if importlib.util.find_spec("huggingface_hub") is None:
        yield
        return
    from huggingface_hub import constants  # an optional dependency

    before = constants.HF_HUB_OFFLINE
    if not before and not _has_proxy():
        constants.HF_HUB_OFFLINE = _Unreached()  # it is asked for its truth only
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@functools.lru_cache(maxsize=1)
def _takes_connections(endpoint: str, _: int) -> bool:
    place = urllib.parse.urlsplit(endpoint)
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname or "", port), timeout=_PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def read_hub(name: str, revision: str | None = None) -> CheckpointFacts | None:
    """Return the facts of a repository. If its headers are not available, the facts contain the config only.

    None means that not even config.json is available.
    """
    from huggingface_hub import HfApi, hf_hub_download  # an optional dependency
    from huggingface_hub.errors import SafetensorsParsingError  # as above

    local = local_only()
    config = _config(lambda: hf_hub_download(name, "config.json", revision=revision, **local))
    if config is None:
        return None
    facts = CheckpointFacts(name, config)
    if local:
        return dataclasses.replace(facts, unread=(Damage(name, UNREACHED),))
    try:
        metadata = HfApi().get_safetensors_metadata(name, revision=revision)
    except SafetensorsParsingError as error:
        return dataclasses.replace(facts, damages=(Damage("model.safetensors", str(error).partition("\n")[0]),))
    except Exception:  # noqa: BLE001  # offline, gated, no safetensors: the exceptions differ between versions of huggingface_hub
        return dataclasses.replace(facts, unread=(Damage(name, UNREACHED),))
    tensors = dict(_tensors(metadata))
    if len(tensors) > MAX_TENSORS:
        return dataclasses.replace(facts, unread=(Damage(name, f"names more than {MAX_TENSORS} tensors"),))
    return dataclasses.replace(facts, tensors=tensors, packing=packing_of(tensors))


def _config(download: Callable[[], str]) -> dict[str, Any] | None:
    try:
        return read_json(Path(download()))
    except TargetError:
        raise
    except Exception:  # noqa: BLE001  # building the model raises the same error with a message
        return None


def _tensors(metadata: Any) -> Iterator[tuple[str, Tensor]]:
    for file, content in metadata.files_metadata.items():
        for name, tensor in content.tensors.items():
            start, end = tensor.data_offsets
            yield name, Tensor(str(tensor.dtype), tuple(tensor.shape), start, end, file)
