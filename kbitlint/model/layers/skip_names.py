"""Names of modules to leave unquantized that match no module, as transformers compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kbitlint.facts.requests import DeadSkip
from kbitlint.model.attributes import attribute
from kbitlint.runtime.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator


def dead_skips(base: Any, modules: Collection[str], packed: Iterable[str], linears: Iterable[str]) -> Iterator[DeadSkip]:
    """Yield the entries of ``llm_int8_skip_modules`` that match no linear layer, if layers below them are packed.

    An entry that matches no module at all is yielded too. One that matches an embedding or a norm spares what was never packed.

    Args:
        base: The model, whose config records the list.
        modules: The paths of all modules, without the names that PEFT inserts.
        packed: The paths of the quantized layers.
        linears: The paths of the linear layers that are not quantized.
    """
    config = attribute(attribute(base, "config"), "quantization_config")
    listed = config.get("llm_int8_skip_modules") if isinstance(config, dict) else attribute(config, "llm_int8_skip_modules")
    packed = [*packed]
    layers = [*packed, *linears]
    for name in map(str, listed if isinstance(listed, (list, tuple)) else ()):
        if any(_spares(name, path) for path in layers):
            continue
        below = [path for path in packed if f".{name}." in f".{path}."]
        if below or not any(_spares(name, path) for path in modules):
            yield DeadSkip(name, len(below), below[0] if below else "")


def _spares(name: str, path: str) -> bool:
    """Return whether an entry spares a module (``should_convert_module`` of transformers 5.23).

    transformers 4 compares it with each part of the path as well. What it spares counts as spared.
    """
    return path.endswith(name) or matches(rf"(?:{name})(?:(?<=\.)|(?=\.|$))", path) is not False or _spared_by_4(name, path)


def _spared_by_4(name: str, path: str) -> bool:
    import transformers  # takes a second to import; the model comes from it

    return transformers.__version__.startswith("4.") and (f"{name}." in path or name == path)
