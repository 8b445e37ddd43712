"""A config, or user code that calls ``from_pretrained``, as the quantized model it would give, on the meta device.

No weight is read. Modules are replaced by the quantizer of the installed transformers, so what is quantized and what
is skipped is decided by the code that decides it in a real load.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kbitlint.errors import KbitlintError, TargetError, one_line
from kbitlint.extras import load_bitsandbytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Source:
    """Where a config comes from, and how it may be read."""

    name: str
    """A folder, or a Hub id."""
    revision: str | None = None
    trust_remote_code: bool = False

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of transformers' own loaders."""
        return {"revision": self.revision} if self.revision else {}


@dataclass(frozen=True, slots=True)
class Built:
    """A model and what the reader must know about how it was built."""

    model: nn.Module
    notes: tuple[str, ...] = ()


def load_config(source: Source) -> Any:
    """The config of a checkpoint folder or Hub id; remote code runs only with ``trust_remote_code``.

    Raises TargetError in one line for everything that can be wrong with it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source.name, trust_remote_code=source.trust_remote_code, **source.arguments())
    except Exception as error:
        raise TargetError(source.name, _why_no_config(error)) from error


def _why_no_config(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "its config asks for remote code, which is never run unless you pass --trust-remote-code"
    if "model type" in text or "model_type" in text:
        found = re.search(r"model type [`'\"]?([\w-]+)", text)
        import transformers

        name = f" {found.group(1)!r}" if found else ""
        return (
            f"the installed transformers {transformers.__version__} does not know the model type{name}; "
            "upgrade it, or pass --trust-remote-code where the checkpoint brings its own code"
        )
    if "Repo id must" in text or "not a local folder" in text or "404" in text:
        return "no such folder, and no such model on the Hub (or it is private: log in with `hf auth login`)"
    if any(sign in text for sign in ("offline", "couldn't connect", "Can't load", "Connection", "cached")):
        return "its config is neither in the cache nor reachable on the Hub; check the name, the network and HF_HUB_OFFLINE"
    return f"its config cannot be read: {one_line(error)}"


def model_class(config: Any, source: Source) -> Any:
    """The class that ``architectures`` of the config names, or the one that the config's type is mapped to."""
    import transformers

    names = list(getattr(config, "architectures", None) or ())
    remote = getattr(config, "auto_map", None) or {}
    if source.trust_remote_code:
        for auto in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModel"):
            if auto in remote:
                from transformers.dynamic_module_utils import get_class_from_dynamic_module

                return get_class_from_dynamic_module(remote[auto], source.name, **source.arguments())
    for name in names:
        if hasattr(transformers, name):
            return getattr(transformers, name)
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
    """What ``--quantize`` stands for, with the model's own dtype as compute dtype."""
    from transformers import BitsAndBytesConfig

    load_bitsandbytes(f"--quantize {name}")
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=name, bnb_4bit_compute_dtype=dtype)


def dtype_of(config: Any, *, quantized: bool) -> torch.dtype:
    """The dtype in which ``from_pretrained`` loads what is not quantized, where the caller names none.

    transformers 5 takes the checkpoint's; transformers 4 takes float32, and float16 for bitsandbytes.
    """
    own = getattr(config, "dtype", None)
    own = own if own is not None else getattr(config, "torch_dtype", None)
    if isinstance(own, str):
        own = getattr(torch, own.removeprefix("torch."), None)
    if _major_version() < 5:
        return torch.float16 if quantized else torch.float32
    return own if isinstance(own, torch.dtype) else torch.float32


def build(source: Source, quantize: str | None = None) -> Built:
    """Build what ``from_pretrained(source, ...)`` would load, on the meta device.

    Args:
        source: The checkpoint; only its config is read.
        quantize: How an unquantized checkpoint will be quantized on load, one of ``kbitlint.target.QUANTIZATIONS``.
            A checkpoint's own ``quantization_config`` wins, and a note says so.
    """
    config = load_config(source)
    notes: list[str] = []
    own = getattr(config, "quantization_config", None)
    wanted = None if quantize in (None, "none") else quantize
    if own is not None and quantize is not None:
        notes.append(f"config.json's own quantization_config ({_method(own)}) wins over --quantize {quantize}")
    dtype = dtype_of(config, quantized=own is not None or wanted is not None)
    chosen = own
    if own is None and wanted is not None:
        chosen = quantization_config(wanted, dtype)
        notes.append(f"quantized on load as {wanted} (--quantize), compute dtype {_short(dtype)}")
    try:
        cls = model_class(config, source)
        model = instantiate(cls, config, chosen, dtype, pre_quantized=own is not None)
    except KbitlintError:
        raise
    except Exception as error:
        raise TargetError(source.name, f"cannot be built from its config: {one_line(error)}") from error
    if own is not None and _major_version() >= 5:
        _keep_stored_dtypes(model, Path(source.name))
    return Built(model, tuple(notes))


def _method(config: Any) -> str:
    value = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    return str(getattr(value, "value", value))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _major_version() -> int:
    import transformers

    return int(transformers.__version__.split(".")[0])


def instantiate(
    cls: Any,
    config: Any,
    quantization: Any,
    dtype: torch.dtype,
    *,
    pre_quantized: bool = False,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """An instance of a transformers class on the meta device, with the structure that quantized loading gives it.

    Args:
        cls: A subclass of PreTrainedModel.
        config: Its config.
        quantization: A quantization config of transformers (object or dict), or None.
        dtype: The dtype of what is not quantized.
        pre_quantized: Whether the checkpoint's tensors are packed already.
        arguments: Further arguments of the class.
    """
    with torch.device("meta"):
        model = cls._from_config(config, dtype=dtype, **(arguments or {}))
    _keep_in_float32(model, dtype)
    if quantization is not None:
        with _default_dtype(dtype):  # the quantizer makes new biases in the default dtype, as in a real load
            _quantize(model, quantization, pre_quantized=pre_quantized)
    if _major_version() >= 5:
        _require_grad_as_loaded(model)
    model.eval()
    return model  # type: ignore[no-any-return]  # transformers is not typed


def _keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Parameters that a class keeps in float32, as loading would leave them (building from a config does not)."""
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ()) if dtype is not torch.float32 else set()
    if dtype is torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not names:
        return
    pattern = re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in sorted(names)))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and pattern.search(name):
            tensor.data = tensor.data.float()


def _quantize(model: Any, quantization: Any, *, pre_quantized: bool) -> None:
    from transformers.quantizers import AutoHfQuantizer

    if _method(quantization) == "bitsandbytes":
        load_bitsandbytes("a bitsandbytes checkpoint")
    _untie(model)
    try:
        quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=pre_quantized)
        quantizer.preprocess_model(
            model=model,
            device_map={"": "cpu"},
            keep_in_fp32_modules=list(getattr(model, "_keep_in_fp32_modules", None) or ()),
        )
    except ImportError as error:
        raise KbitlintError(f"a {_method(quantization)} model needs its own package to be built: {one_line(error)}") from error
    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)
    model.tie_weights()
    if "bitsandbytes" in sys.modules:
        _pack(model)


def _keep_stored_dtypes(model: nn.Module, folder: Path) -> None:
    """Give float weights of a packed checkpoint the dtype that its file headers name.

    transformers 5 sends every tensor called ``weight`` of a packed bitsandbytes checkpoint through the converter of
    the packed ones, which keeps the stored dtype instead of casting to the config's. No weight is read.
    """
    if not folder.is_dir():
        return
    from safetensors import SafetensorError, safe_open

    stored: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                stored |= {name: file.get_slice(name).get_dtype() for name in file.keys() if name.endswith(".weight")}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as error:
            raise TargetError(path, f"its header cannot be read: {one_line(error)}") from error
    dtypes = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    for name, parameter in model.named_parameters():
        dtype = dtypes.get(stored.get(name, ""))
        if dtype is not None and parameter.is_floating_point() and not getattr(parameter, "bnb_quantized", False):
            parameter.data = parameter.data.to(dtype)


def _require_grad_as_loaded(model: nn.Module) -> None:
    """Transformers 5 makes a new trainable Parameter of every float tensor it loads, biases of packed layers too."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and not getattr(parameter, "bnb_quantized", False):
            parameter.requires_grad = True


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _untie(model: Any) -> None:
    """Loading quantizes before it ties, so a tied head is replaced with a weight of its own first."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for key in tied:
        path, _, name = key.rpartition(".")
        try:
            owner = model.get_submodule(path)
        except AttributeError:
            continue
        parameter = owner._parameters.get(name)  # noqa: SLF001  # torch has no public dictionary
        if parameter is not None:
            owner.register_parameter(name, nn.Parameter(torch.empty_like(parameter), requires_grad=parameter.requires_grad))


def _pack(model: nn.Module) -> None:
    """Give bitsandbytes layers packed weights: on meta they still have the shape and dtype of the float weight."""
    import bitsandbytes

    for module in model.modules():
        weight: Any = module._parameters.get("weight")  # noqa: SLF001  # torch has no public dictionary
        if isinstance(module, bitsandbytes.nn.Linear4bit) and isinstance(weight, bitsandbytes.nn.Params4bit):
            storage = module.quant_storage
            count = ((module.in_features * module.out_features + 1) // 2 + storage.itemsize - 1) // storage.itemsize
            weight.data = torch.empty((count, 1), dtype=storage, device="meta")
            weight.bnb_quantized = True
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt) and not module.state.has_fp16_weights:
            packed = torch.empty(weight.shape, dtype=torch.int8, device="meta")
            module.weight = bitsandbytes.nn.Int8Params(packed, requires_grad=False, has_fp16_weights=False)


def attach_adapter(base: nn.Module, folder: str | Path) -> nn.Module:
    """The base with the adapter of a folder attached by PEFT, as ``is_trainable=True`` would; no weight is read."""
    from kbitlint.extras import require

    peft = require("peft", "an adapter folder")
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode = False
        with torch.device("meta"):
            return peft.get_peft_model(base, config)  # type: ignore[no-any-return]  # peft is not typed for us
    except Exception as error:
        raise TargetError(folder, f"PEFT cannot attach this adapter to its base: {one_line(error)}") from error


@contextmanager
def without_weights() -> Iterator[list[str]]:
    """Make every ``from_pretrained`` of a model build it on the meta device; gives the names that were asked for.

    Only the loading is replaced: the user's code goes on to PEFT as it would, on a model without weights. Where
    there is no CUDA, ``torch.cuda.current_device()`` answers 0, because device maps are written with it.
    """
    from transformers import PreTrainedModel

    asked: list[str] = []
    original = PreTrainedModel.__dict__["from_pretrained"]
    current_device = torch.cuda.current_device

    def from_pretrained(cls: Any, name: Any = None, *_: Any, **kwargs: Any) -> nn.Module:
        asked.append(str(name))
        return _built_instead(cls, name, kwargs)

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    if not torch.cuda.is_available():
        torch.cuda.current_device = lambda: 0
    try:
        yield asked
    finally:
        PreTrainedModel.from_pretrained = original
        torch.cuda.current_device = current_device


#: arguments of from_pretrained that say how weights are found and placed, which no structure depends on
_LOADING = frozenset(
    [
        "attn_implementation",
        "cache_dir",
        "code_revision",
        "device_map",
        "disable_mmap",
        "force_download",
        "from_flax",
        "from_tf",
        "gguf_file",
        "ignore_mismatched_sizes",
        "key_mapping",
        "local_files_only",
        "low_cpu_mem_usage",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "offload_state_dict",
        "output_loading_info",
        "resume_download",
        "state_dict",
        "subfolder",
        "token",
        "tp_plan",
        "tp_size",
        "use_auth_token",
        "use_kernels",
        "use_safetensors",
        "variant",
        "weights_only",
        "adapter_kwargs",
        "commit_hash",
        "experts_implementation",
        "mirror",
        "proxies",
        "distributed_config",
        "device_mesh",
        "kernel_config",
        "allow_all_kernels",
        "fusion_config",
    ]
)


def _built_instead(cls: Any, name: Any, kwargs: dict[str, Any]) -> Any:
    source = Source(str(name), kwargs.pop("revision", None), bool(kwargs.pop("trust_remote_code", False)))
    config = kwargs.pop("config", None)
    quantization = kwargs.pop("quantization_config", None)
    requested = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
    attention = kwargs.get("attn_implementation")
    wants_info = kwargs.get("output_loading_info")
    rest = {key: value for key, value in kwargs.items() if key not in _LOADING and not key.startswith("_")}
    if config is None or isinstance(config, (str, Path)):
        config, rest = cls.config_class.from_pretrained(
            str(config or name), return_unused_kwargs=True, **source.arguments(), **rest
        )
    own = getattr(config, "quantization_config", None)
    chosen = own if own is not None else quantization
    dtype = getattr(torch, requested, None) if isinstance(requested, str) else requested
    if not isinstance(dtype, torch.dtype):
        dtype = dtype_of(config, quantized=chosen is not None)
    arguments = {**rest, **({"attn_implementation": _runnable(attention)} if attention else {})}
    model: Any = instantiate(cls, config, chosen, dtype, pre_quantized=own is not None, arguments=arguments)
    model.config.name_or_path = str(name)
    model.name_or_path = str(name)
    return (model, {}) if wants_info else model


def _runnable(attention: object) -> object:
    """An attention implementation that this machine can build: flash attention needs its package and a GPU."""
    return "sdpa" if isinstance(attention, str) and "flash" in attention else attention


def call_factory(resolve: Callable[[], Callable[[], Any]], target: str, *, meta: bool) -> Any:
    """Import and call the user's factory; its result is a model or a Trainer.

    Importing is part of it, because scripts load models at module level too.

    Raises TargetError where it raises, returns something else, or needs a GPU that is not there.
    """
    try:
        if meta:
            with without_weights():
                made = resolve()()
        else:
            made = resolve()()
    except KbitlintError:
        raise
    except SystemExit as error:
        raise TargetError(target, f"the factory left the program with exit status {error.code}") from error
    except Exception as error:
        text = one_line(error)
        if not torch.cuda.is_available() and re.search(r"\bcuda\b|\bgpu\b", text, re.IGNORECASE):
            how = (
                "it still asks for CUDA under --meta" if meta else "run it where there is one, or with --meta, which needs none"
            )
            raise TargetError(target, f"the factory needs CUDA, and there is none here: {how} ({text})") from error
        raise TargetError(target, f"the factory raised {text}") from error
    if isinstance(made, nn.Module) or is_trainer(made):
        return made
    what = "None" if made is None else f"a {type(made).__name__}"
    raise TargetError(target, f"the factory returned {what}; it must return a model or a Trainer")


def is_trainer(value: object) -> bool:
    """Whether the value is transformers' Trainer or one built on it: it has a model and training arguments."""
    return isinstance(getattr(value, "model", None), nn.Module) and hasattr(value, "args") and hasattr(value, "train")
