"""Which branches of a file can matter, so that a path is not followed for each of the others."""

from __future__ import annotations

import ast

from kbitlint.upstream.calls import FUNCTIONS, METHODS, TRAINERS, TRAINING_ARGUMENTS, WRAPPERS
from kbitlint.upstream.quantization import QUANTIZATION_CONFIGS

#: names that do something to a model; a file without any of them in its bytes is not parsed
SEEDS = frozenset(
    {api.name.rpartition(".")[2] for api in (*FUNCTIONS, *METHODS)}
    | {name.rpartition(".")[2] for name in (*TRAINERS, *TRAINING_ARGUMENTS, *WRAPPERS)}
    | set(QUANTIZATION_CONFIGS)
    | {"from_pretrained", "requires_grad", "requires_grad_", "backward", "LoraConfig", "AdaLoraConfig", "PeftConfig"}
    | {"Accelerator", "half", "float", "bfloat16", "eval", "from_config", "_set_gradient_checkpointing", "GradScaler"}
) - {"checkpoint", "compile"}

#: at least one of these stands in every file that makes, prepares or trains a k-bit model
MARKS = tuple(
    mark.encode()
    for mark in (
        "BitsAndBytesConfig",
        "kbit_training",
        "int8_training",
        "checkpointing_enable",
        "get_peft_model",
        "PeftModel",
        "LoraConfig",
        "load_in_4bit",
        "load_in_8bit",
        "peft_config",
        "quantization_config",
        "kbitlint:",
        *QUANTIZATION_CONFIGS,
    )
)
#: what the code of a model calls itself: seen without following any path
DIRECT = (b"utils.checkpoint", b"torch.utils import checkpoint")


def worth_parsing(content: bytes) -> bool:
    """Whether a file can hold anything that a rule looks at."""
    return any(mark in content for mark in (*DIRECT, *MARKS))


def worth_following(content: bytes) -> bool:
    """Whether anything in a file makes, prepares or trains a k-bit model."""
    return any(mark in content for mark in MARKS)


class Relevance:
    """Which statements matter for a model, found once for a file."""

    def __init__(self, module: ast.Module) -> None:
        self._functions: dict[str, ast.AST] = {}
        self._flows: list[tuple[set[str], set[str]]] = []
        self._names: set[str] = set()
        self._cache: dict[int, bool] = {}
        for node in ast.walk(module):
            self._collect(node)
        self._close()
        self._calling = self._relevant_functions()

    def _collect(self, node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._functions[node.name] = node
        elif isinstance(node, ast.Call) and _called(node) in SEEDS:
            self._names |= _loads(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            self._flows.append(({name for target in targets for name in _roots(target)}, _loads(node.value)))

    def _close(self) -> None:
        grown = True
        while grown:
            before = len(self._names)
            for targets, loads in self._flows:
                if targets & self._names:
                    self._names |= loads
            grown = len(self._names) > before

    def _relevant_functions(self) -> set[str]:
        found: set[str] = set()
        grown = True
        while grown:
            before = len(found)
            for name, node in self._functions.items():
                if name not in found and any(
                    isinstance(inner, ast.Call) and (_called(inner) in SEEDS or _called(inner) in found)
                    for inner in ast.walk(node)
                ):
                    found.add(name)
            grown = len(found) > before
        return found

    def matters(self, statements: list[ast.stmt]) -> bool:
        """Whether following these statements, or not, can make a difference to a model."""
        return any(self._matters(statement) for statement in statements)

    def calls(self, statements: list[ast.stmt]) -> bool:
        """Whether anything that is called in these statements can make a difference to a model."""
        return any(
            isinstance(node, ast.Call) and self._node_matters(node) for statement in statements for node in ast.walk(statement)
        )

    def _matters(self, statement: ast.stmt) -> bool:
        known = self._cache.get(id(statement))
        if known is None:
            known = self._cache[id(statement)] = any(self._node_matters(node) for node in ast.walk(statement))
        return known

    def _node_matters(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            return _called(node) in SEEDS or _called(node) in self._calling
        if isinstance(node, ast.Return):
            return node.value is not None and bool(_loads(node.value) & self._names)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute) and target.attr in SEEDS for target in targets):
                return True
            return bool({name for target in targets for name in _roots(target)} & self._names)
        return isinstance(node, (ast.Import, ast.ImportFrom)) and any(
            (alias.asname or alias.name).partition(".")[0] in self._names | SEEDS for alias in node.names
        )


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _loads(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _roots(target: ast.AST) -> set[str]:
    """The names that an assignment changes: of ``a.b[c]`` it is ``a``, of ``a, b`` both."""
    while isinstance(target, (ast.Attribute, ast.Subscript, ast.Starred)):
        target = target.value
    if isinstance(target, (ast.Tuple, ast.List)):
        return {name for item in target.elts for name in _roots(item)}
    return {target.id} if isinstance(target, ast.Name) else set()
