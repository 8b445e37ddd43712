"""The rows of the module tree: as text, and as data for the page's script."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kbitlint.memory_result import OFF, ON
from kbitlint.output.wording import printable
from kbitlint.sizes import short_count, size
from kbitlint.violation import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kbitlint.output.html.tree import Node, Tree

#: Most rows of the tree on a page without JavaScript.
_MAX_ROWS = 400


def data(tree: Tree, causes: Iterable[tuple[str, Severity]]) -> str:
    """Return the tree as JSON for the page's script; it contains no character that could end the script element."""
    document = {
        "nodes": [
            {
                **_facts(node),
                "f": list(node.causes),
                "h": [
                    [printable(child.label), [list(span) for span in child.spans], child.count, child.node]
                    for child in node.children
                ],
            }
            for node in tree.nodes
        ],
        "causes": [{"code": printable(code), "severity": severity.value} for code, severity in causes],
    }
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _facts(node: Node) -> dict[str, Any]:
    """Return the texts of a row."""
    return {
        "c": printable(node.module.class_name),
        "s": " × ".join(map(str, node.module.shape)),
        "m": node.modules,
        "n": short_count(node.numel),
        "b": size(node.nbytes),
        "d": [[_kind(name), _SHORT.get(name, printable(name)), share] for name, share in _shares(node)],
        "t": _trains(node),
        "k": _checkpoints(node),
        "a": node.module.adapter,
        "v": [[name, count] for name, count in sorted(node.severities, key=lambda pair: -_order(pair[0]))],
    }


def _order(severity: str) -> int:
    return list(Severity).index(Severity(severity))


def _shares(node: Node) -> list[tuple[str, float]]:
    return [(name, round(100 * count / node.nbytes, 2)) for name, count in node.stored if node.nbytes]


#: Short names of dtypes.
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def _kind(stored: str) -> str:
    """Return the colour class of a storage: ``full`` or ``half`` by the width of a dtype, ``packed`` for every other one."""
    if stored in ("float32", "float64"):
        return "full"
    return "half" if stored in ("float16", "bfloat16") else "packed"


def _trains(node: Node) -> str:
    if not node.trainable:
        return "frozen" if node.numel else ""
    if node.trainable == node.numel:
        return "all"
    share = 100 * node.trainable / node.numel
    return f"{share:.2g}%" if share >= 0.01 else "<0.01%"


def _checkpoints(node: Node) -> str:
    known = dict(node.checkpoints)
    total, off = sum(known.values()), known.get("no", 0)
    if not total:
        return ""
    if off == total:
        return "off"
    ways = ", ".join(way for way in known if way != "no")
    return ways if not off else f"{ways} on {total - off} of {total}"


def listed(tree: Tree) -> list[tuple[int, str, Mapping[str, Any]]]:
    """Return the (level, label, texts) of each row, depth first, for a page without JavaScript."""
    rows: list[tuple[int, str, Mapping[str, Any]]] = []
    left = _MAX_ROWS
    stack = [(1, "", tree.root)]
    while stack and left:
        level, label, node = stack.pop()
        left -= 1
        rows.append((level, label, _facts(node)))
        for child in reversed(node.children):
            times = f" ×{child.count}" if child.count > 1 else ""
            stack.append((level + 1, f"{child.label}{times}", tree.nodes[child.node]))
    return rows


def mode_now(tree: Tree) -> str:
    """Return the present mode of checkpointing; empty if the layers differ or the mode is unknown."""
    ways = {way == "no" for way, _ in tree.root.checkpoints}
    return "" if len(ways) != 1 else OFF if True in ways else ON
