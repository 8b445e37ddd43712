"""Special tokens that a script writes into its texts, and that the tokenizer of its checkpoint does not have."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from kbitlint.source.nodes import last_name, walk
from kbitlint.upstream.special_tokens import tokens_it_lacks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: signs of a script that gives its tokenizer tokens
_GIVES = ("add_special_tokens(", "add_tokens(", ".eos_token =", ".bos_token =", "eos_token=", "bos_token=", "get_chat_template")


def literal_tokens(module: ast.Module, text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (token, checkpoint, line) of each token that a text of the file ends or starts with, and that is none.

    The checkpoint is that of the only tokenizer of the file.
    """
    if "Tokenizer" not in text or any(sign in text for sign in _GIVES):
        return
    nodes = list(walk(module))
    names = {_checkpoint(node, nodes) for node in nodes if isinstance(node, ast.Call) and _loads_tokenizer(node)}
    lacks = tokens_it_lacks(names.pop() or "") if len(names) == 1 else ()
    if not lacks or not any(one in text for one in lacks):
        return
    name = next(_checkpoint(node, nodes) or "" for node in nodes if isinstance(node, ast.Call) and _loads_tokenizer(node))
    seen: set[str] = set()
    for written, line in _written(nodes):
        found = next((one for one in lacks if written.rstrip().endswith(one) or written.lstrip().startswith(one)), "")
        if found and found not in seen:
            seen.add(found)
            yield found, name, line


def _loads_tokenizer(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and last_name(node.func.value) == "AutoTokenizer" and bool(node.args)


def _checkpoint(load: ast.Call, nodes: list[ast.AST]) -> str | None:
    """Return the checkpoint that a load names: a text, or a name that the file binds once, to a text; None for others."""
    given = load.args[0]
    if isinstance(given, ast.Name):
        stores = [one for one in nodes if isinstance(one, ast.Name) and one.id == given.id and isinstance(one.ctx, ast.Store)]
        values = [one.value for one in nodes if isinstance(one, ast.Assign) and one.targets[0] in stores]
        given = values[0] if len(values) == len(stores) == 1 else given
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _written(nodes: list[ast.AST]) -> Iterator[tuple[str, int]]:
    """Yield (text, line) of the ends and starts of f-strings and sums, and of what ``format`` fills."""
    for node in nodes:
        parts: list[ast.expr] = []
        if isinstance(node, ast.JoinedStr) and len(node.values) > 1:
            parts = [node.values[0], node.values[-1]]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
            parts = [node.left, node.right] if isinstance(node.op, ast.Add) else [node.left]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            parts = [node.func.value]
        for part in parts:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value, part.lineno
