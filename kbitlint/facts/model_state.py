"""The state of a model at one point of a script, as far as the file tells. Frozen, and free of ``ast``."""

from __future__ import annotations

import dataclasses
from dataclasses import field

from kbitlint.facts.reentry import Reentry
from kbitlint.facts.values import UNKNOWN, Call, Value
from kbitlint.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class CheckpointingState:
    """The checkpointing of a model's layers, and the call that last decided it."""

    enabled: bool | None = False
    """None if it is not known."""
    reentry: Reentry = Reentry.UNKNOWN
    by: Call | None = None
    """The call whose arguments decide: ``prepare_model_for_kbit_training``, ``TrainingArguments``, ..."""
    kwargs: str = ""
    """The argument of ``by`` that contains ``use_reentrant``; empty if ``by`` takes ``use_reentrant`` itself."""
    flag: str = ""
    """The argument of ``by`` that sets ``use_reentrant`` under another name; empty if there is none.

    A program with such an argument compensates for reentry. It makes inputs require grad, and DDP does not search
    for unused parameters.
    """


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of a model."""

    by: Call
    """The call that attached or loaded the adapters."""
    config: Value = UNKNOWN
    """The call that made their configuration; UNKNOWN if the interpreter does not know it."""
    trainable: bool | None = True
    """None if it is not known."""
    dtype: Value = "float32"
    """The dtype of their weights."""
    frozen_by: Call | None = None
    """The later call that froze them; None if none did."""
    kept: bool = True
    """Whether the script keeps the PeftModel. If it drops the result of ``get_peft_model``, it keeps only the base model.

    Adapters that ``inject_adapter_in_model`` puts into a model have no such object around it.
    """

    still: frozenset[str] = frozenset()
    """The halves of LoRA, ``A`` and ``B``, that a loop over names froze."""
    zeroed: frozenset[str] = frozenset()
    """The halves that a loop over names filled with zeros."""
    muted: Call | None = None
    """The call that set the scale of the adapters to zero; None if none did."""
    merged: Call | None = None
    """The call that merged the adapters into the weights, where they stay; None if none did."""
    dropped: Call | None = None
    """The call of a function of the script that returned the PeftModel, if the script drops its result."""

    @property
    def of_saved_config(self) -> bool:
        """Return whether the config of a folder, which the script does not change, freezes the adapters."""
        mode = self.config.argument("inference_mode") if isinstance(self.config, Call) else None
        return isinstance(self.config, Call) and mode is not None and mode.span == self.config.span and self.frozen_by is None


#: the bits whose layers never keep 16 bits
_FOUR = 4
#: what a loop casts, by the name of the call that stands for it
NORMS, BIAS = "norms", "norms and biases"


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """The content of config.json of a checkpoint that a script names, if the checkpoint is on this machine."""

    model_type: str = ""
    tied: bool | None = None
    """Whether embeddings and head are tied. None if config.json does not set it and the model's class decides."""
    experts: int = 0
    remote: bool = False
    """Whether the checkpoint has code of its own."""
    dtype: str = ""
    """The dtype of its weights; empty if config.json does not set it."""
    vocabulary: int = 0
    """The number of rows of its embeddings; 0 if config.json does not set it."""
    hidden: int = 0
    """The length of a hidden state; 0 if config.json does not set it."""
    architecture: str = ""
    """The class that the checkpoint names."""
    pads: bool | None = None
    """Whether it names a padding token; None if its model's class has one by default."""
    layers: int = 0
    """The number of blocks in a stack; 0 if config.json does not set it."""
    skips: tuple[str, ...] | None = None
    """The stored ``llm_int8_skip_modules``; None if the checkpoint has no such list."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """The known state of a model at one point of a path through the file."""

    load: Call | None = None
    """The call that loaded the model; None if the file does not load it."""
    method: Value = UNKNOWN
    """The quantization method: ``bitsandbytes`` or another. None if the model is certainly not quantized.

    UNKNOWN if the interpreter does not know it.
    """
    bits: Value = UNKNOWN
    quantization: Call | None = None
    """The call that made the quantization config."""
    dtype: Value = UNKNOWN
    """The dtype of the parameters that are not quantized."""
    checkpointing: CheckpointingState = field(default_factory=CheckpointingState)
    hooks: tuple[Call, ...] = ()
    """The calls that made the output of the input embedding require grad, in their order."""
    prepared: Call | None = None
    adapters: Adapters | None = None
    base_frozen: bool | None = None
    """Whether the base model is frozen. None if no call froze or unfroze it since loading, or if it is not known."""
    chosen: bool = False
    """Whether the script chose by itself which parameters of the base model require gradients."""
    training_mode: bool | None = None
    """False after loading and ``eval()``, True after ``train()``; None if it is not known."""
    unconverted: bool = False
    """Whether transformers may leave every linear layer unquantized: a class of its own, or all of it offloaded to the CPU."""
    unpacked: Value = None
    """The bits in which bitsandbytes held its weights before ``dequantize()``, which leaves the marks of loading; else None."""
    inferred: bool = False
    """Whether the model was loaded under ``torch.inference_mode``."""
    placed: bool = True
    """Whether the process may have chosen its device before the model was loaded."""
    rows: Value = None
    """The rows of the embeddings after the last call that resized them; None if none did, UNKNOWN if they are not known."""
    settings: tuple[tuple[str, Value], ...] = ()
    """The values that the script gave to attributes of ``model.config``, the last ones first."""
    widened: Call | None = None
    """The cast to float32 of ``NORMS`` alone, or of them with the head's ``BIAS``, in a loop over parts; None without one."""
    recast: bool = False
    """Whether the script casts, or may cast, other parts of the model by themselves."""
    silenced: Call | None = None
    """The assignment that wraps the model's forward in ``no_grad``; None if there is none."""
    certain: bool = True
    """Whether the interpreter followed every operation on the model."""
    named: CheckpointConfig | None = None
    """The config of the model's checkpoint; None if it is not known."""

    def setting(self, name: str, unset: Value = UNKNOWN) -> Value:
        """Return the value that the script gave to an attribute of ``model.config``; ``unset`` if it gave none."""
        return next((value for key, value in self.settings if key == name), unset)

    @property
    def packed(self) -> bool:
        """Return whether the linear layers are certainly packed by bitsandbytes."""
        return self.method == "bitsandbytes" and not (self.unconverted or self._keeps_float)

    @property
    def integer(self) -> bool:
        """Return whether the packed weights are certainly integers, which cannot require grad."""
        return self.packed and not self._sets("bnb_4bit_quant_storage")

    @property
    def _keeps_float(self) -> bool:
        return self.bits != _FOUR and self._sets("llm_int8_has_fp16_weight")

    def _sets(self, name: str) -> bool:
        """Return whether the quantization config may set an option."""
        return self.quantization is not None and self.quantization.value(name) not in (None, False, "uint8")

    @property
    def kbit(self) -> bool:
        """Return whether the model is certainly quantized."""
        return isinstance(self.method, str)


def same_but_for_mode(one: ModelState, other: ModelState) -> bool:
    """Return whether two states are equal, their training mode aside."""
    return one is other or one == dataclasses.replace(other, training_mode=one.training_mode)


def merged(state: ModelState, call: Call | None) -> ModelState:
    """Return the state after a call has merged the adapters into the weights, or taken them out again (None)."""
    adapters = state.adapters
    return state if adapters is None else dataclasses.replace(state, adapters=dataclasses.replace(adapters, merged=call))


def has_task_head(state: ModelState) -> bool:
    """Return whether the model's class has the head of a task, of which PEFT may train a copy."""
    callee = state.load.callee if state.load is not None else ""
    return "Classification" in callee or "QuestionAnswering" in callee


def without_adapters(state: ModelState) -> ModelState:
    """Return the state after the adapters left the model. Copies of modules and biases that they trained go on to train."""
    config = state.adapters.config if state.adapters is not None else None
    further = ("modules_to_save", "trainable_token_indices", "bias")
    alone = isinstance(config, Call) and not any(config.gives(name) for name in further) and not has_task_head(state)
    return dataclasses.replace(state, adapters=None, base_frozen=state.base_frozen if alone else None)
