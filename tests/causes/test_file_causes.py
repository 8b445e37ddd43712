"""Root causes that users reported, each as a script that is run or files that are loaded, with the exact violation.

A test is named after the id of its cause, and shows what really happens where this machine can: the script is run, the
folder loaded. ``test_model_causes.py`` counts them.
"""

from __future__ import annotations

import importlib.machinery
import json
import shutil
import sys
import textwrap
import types

import checkpoint_cases
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file

import kbitlint

pytestmark = pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the scripts are written for transformers 5")

IMPORTS = """\
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AwqConfig, BitsAndBytesConfig, GPTQConfig, QuantoConfig
from transformers import Trainer, TrainingArguments

data = [{"input_ids": list(range(1, 9)), "labels": list(range(1, 9))}] * 4
bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
args = TrainingArguments("out", max_steps=1, use_cpu=True, bf16=True, report_to=[], gradient_checkpointing=True)
"""
LOADED = "model = AutoModelForCausalLM.from_pretrained('base', quantization_config=bnb, dtype=torch.bfloat16)\n"
PREPARED = "model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={'use_reentrant': False})\n"
ADAPTED = "model = get_peft_model(model, LoraConfig(r=4, target_modules=['q_proj'], init_lora_weights=False))\n"
TRAINED = "Trainer(model=model, args=args, train_dataset=data).train()\n"
QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to run scripts in, with a tiny unquantized checkpoint called ``base``."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.checkpoint(), tmp_path / "base")
    return tmp_path


def said(target, *codes):
    """Every violation of these rules, as (code, place, severity); of a script the place is the line's text."""
    if target.is_dir():
        return [(code, place, severity) for code in codes for severity, place, _ in checkpoint_cases.findings(code, target)]
    found = kbitlint.check(str(target), select=codes).violations
    lines = target.read_text().split("\n")
    return [(v.code, lines[v.at.line - 1].strip(), v.severity.value) for v in found]


def script(folder, *parts):
    """A script in a folder."""
    path = folder / "train.py"
    path.write_text(IMPORTS + textwrap.dedent("".join(parts)))
    return path


def ran(path):
    """The names that a script leaves behind after it was run for real."""
    names = {"__name__": "__main__"}
    exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102  # the script of the test
    return names


def saved(folder, model):
    """A model saved as a checkpoint."""
    model.save_pretrained(folder)
    return folder


def edited(folder, **changes):
    """config.json with other values; None takes a key out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(1, 21, device=model.device)[None]).logits.float().cpu()


# --------------------------------------------------------------------------------------------- loading a checkpoint


def test_prequantized_config_wins_over_user_config(work):
    saved(work / "packed", tiny.load())
    eight = (
        "model = AutoModelForCausalLM.from_pretrained('packed', quantization_config=BitsAndBytesConfig(load_in_8bit=True))\n"
    )
    path = script(work, eight)

    assert said(path, "KB526") == [("KB526", eight.strip(), "warning")]
    assert type(ran(path)["model"].model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"

    assert said(script(work, eight.replace("packed", "base")), "KB526") == []


def test_request_vs_checkpoint_quantization_conflict(work):
    saved(work / "packed", tiny.load())
    other = "AutoModelForCausalLM.from_pretrained('packed', quantization_config=GPTQConfig(bits=4))\n"
    nothing = "AutoModelForCausalLM.from_pretrained('packed', quantization_config=None)\n"
    for line, error, words in ((other, ValueError, "but you are passing a GPTQConfig"), (nothing, RuntimeError, "mismatched")):
        path = script(work, line)
        assert said(path, "KB526") == [("KB526", line.strip(), "error")]
        with pytest.raises(error, match=words):
            ran(path)

    shutil.copytree(work / "packed", work / "lost")
    edited(work / "lost", quantization_config=None)
    assert said(work / "packed", "KB820", "KB821") == []
    assert said(work / "lost", "KB820", "KB821") == [("KB821", "config.json", "error")]
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        tiny.transformers.AutoModelForCausalLM.from_pretrained(work / "lost")


def test_leftover_quantization_config(work):
    assert said(work / "base", "KB820", "KB821") == []

    edited(work / "base", quantization_config=QUANTIZED)

    assert said(work / "base", "KB820", "KB821") == [("KB820", "config.json quantization_config", "error")]
    loaded = tiny.transformers.AutoModelForCausalLM.from_pretrained(work / "base")
    with pytest.raises(AssertionError):
        logits(loaded)


@pytest.mark.parametrize("value", ["True", "False", "None"])
def test_load_in_4bit_kwarg_removed(work, value):
    line = f"model = AutoModelForCausalLM.from_pretrained('base', load_in_4bit={value})\n"
    path = script(work, line)

    assert said(path, "KB522") == [("KB522", line.strip(), "error")]
    with pytest.raises(TypeError, match="unexpected keyword argument 'load_in_4bit'"):
        ran(path)

    path = script(work, "model = AutoModelForCausalLM.from_pretrained('base', quantization_config=bnb)\n")
    assert said(path, "KB522") == []
    assert ran(path)["model"].is_loaded_in_4bit


def test_compute_dtype_fp32_default(work):
    line = "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')\n"
    path = script(work, line, LOADED)

    assert said(path, "KB502") == [("KB502", line.strip(), "warning")]
    assert ran(path)["model"].model.layers[0].self_attn.q_proj.compute_dtype is torch.float32

    saved(work / "packed", ran(path)["model"])
    assert said(work / "packed", "KB502") == [("KB502", "config.json quantization_config.bnb_4bit_compute_dtype", "warning")]
    assert said(script(work, LOADED), "KB502") == []


def test_skip_modules_clears_default_lm_head(work):
    line = (
        "bnb = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=['k_proj'])\n"
    )
    path = script(work, line, LOADED)

    assert said(path, "KB523") == [("KB523", line.strip(), "warning")]
    assert type(ran(path)["model"].lm_head).__name__ == "Linear4bit"

    path = script(work, line.replace("['k_proj']", "['k_proj', 'lm_head']"), LOADED)
    assert said(path, "KB523") == []
    assert type(ran(path)["model"].lm_head) is torch.nn.Linear


def test_int8_has_fp16_weights(work):
    line = "bnb = BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)\n"
    path = script(work, line, LOADED)

    assert said(path, "KB525") == [("KB525", line.strip(), "warning")]
    assert ran(path)["model"].model.layers[0].self_attn.q_proj.weight.dtype.is_floating_point

    path = script(work, line.replace(", llm_int8_has_fp16_weight=True", ""), LOADED)
    assert said(path, "KB525") == []
    assert ran(path)["model"].model.layers[0].self_attn.q_proj.weight.dtype is torch.int8


def test_ptq_inference_only_kernel(work):
    """transformers 5 drops the argument that kept kernels without a backward pass away; ``backend`` took its place."""
    line = "config = GPTQConfig(bits=4, use_exllama=False)\n"
    path = script(work, line)

    assert said(path, "KB521") == [("KB521", line.strip(), "warning")]
    assert not hasattr(ran(path)["config"], "use_exllama")

    path = script(work, "config = GPTQConfig(bits=4, backend='auto_trainable')\n")
    assert said(path, "KB521") == []
    assert ran(path)["config"].backend == "auto_trainable"


def test_quant_method_not_trainable(work):
    """torchao's layouts of other than 8 bits; what Trainer does with a method that says so is shown by the model."""
    ao = "import torchao.quantization as ao\nfrom transformers import TorchAoConfig\n"
    load = (
        "model = AutoModelForCausalLM.from_pretrained('base', quantization_config=TorchAoConfig(ao.Int4WeightOnlyConfig()))\n"
    )

    assert said(script(work, ao, load, ADAPTED, TRAINED), "KB524") == [("KB524", TRAINED.strip(), "error")]
    assert said(script(work, ao, load.replace("Int4", "Int8"), ADAPTED, TRAINED), "KB524") == []


def test_mxfp4_silently_dequantized(work):
    edited(work / "base", quantization_config={"quant_method": "mxfp4"})

    assert said(work / "base", "KB524") == [("KB524", "config.json quantization_config.quant_method", "warning")]


# ------------------------------------------------------------------------------------------------------ preparation


class _Weights(torch.Tensor):
    """As optimum-quanto's WeightQBytesTensor: it reports the dtype of what it stands for, and refuses another one."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.to:
            raise ValueError("The dtype of a weights Tensor cannot be changed")
        return super().__torch_function__(function, types, args, kwargs or {})


def test_quanto_prepare_crash(work):
    quantized = LOADED.replace("bnb", "QuantoConfig(weights='int8')")
    prepare = "model = prepare_model_for_kbit_training(model)\n"
    assert said(script(work, quantized, prepare), "KB221") == [("KB221", prepare.strip(), "error")]
    assert said(script(work, LOADED, prepare), "KB221") == []

    model = tiny.load(kind="none")
    model.quantization_method = "quanto"
    weight = model.model.layers[0].self_attn.q_proj.weight
    model.model.layers[0].self_attn.q_proj.weight = torch.nn.Parameter(weight.data.as_subclass(_Weights))
    with pytest.raises(ValueError, match="cannot be changed"):
        prepare_model_for_kbit_training(model)


def test_kbit_prepare_on_unquantized_model(work):
    plain = LOADED.replace("quantization_config=bnb, ", "")
    path = script(work, plain, PREPARED)

    assert said(path, "KB221") == [("KB221", PREPARED.strip(), "warning")]
    model = ran(path)["model"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.is_gradient_checkpointing

    assert said(script(work, LOADED, PREPARED), "KB221") == []


def test_prepare_skips_checkpointing_for_unlisted_methods(work):
    quantized = LOADED.replace("bnb", "AwqConfig()")

    assert said(script(work, quantized, PREPARED), "KB221") == [("KB221", PREPARED.strip(), "warning")]
    assert said(script(work, quantized.replace("AwqConfig()", "GPTQConfig(bits=4)"), PREPARED), "KB221") == []


def test_kbit_prepare_implicit_reentrant(work):
    prepare = "model = prepare_model_for_kbit_training(model)\n"
    path = script(work, LOADED, prepare, ADAPTED)

    assert said(path, "KB401") == [("KB401", prepare.strip(), "info")]
    layer = ran(path)["model"].get_base_model().model.layers[0]
    assert layer._gradient_checkpointing_func.keywords == {}

    assert said(script(work, LOADED, PREPARED, ADAPTED), "KB401") == []


def test_checkpointing_enabled_twice_last_wins(work):
    prepare = "model = prepare_model_for_kbit_training(model)\n"
    path = script(work, LOADED, prepare, ADAPTED, TRAINED)

    assert said(path, "KB401") == []
    layer = ran(path)["model"].get_base_model().model.layers[0]
    assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": False}


# ---------------------------------------------------------------------------------------------------- trainability


def test_prepare_after_get_peft_model(work):
    path = script(work, LOADED, ADAPTED, PREPARED, TRAINED)

    assert said(path, "KB202") == [("KB202", PREPARED.strip(), "error")]
    assert trained(ran(path)["model"]) == 0  # and the Trainer went through its steps: a hook keeps the backward pass alive

    path = script(work, LOADED, PREPARED, ADAPTED, TRAINED)
    assert said(path, "KB202") == []
    assert trained(ran(path)["model"]) == 4


def trained(model):
    """How many parameters require grad."""
    return sum(parameter.requires_grad for parameter in model.parameters())


def test_adapter_loaded_inference_mode(work):
    ran(script(work, LOADED, PREPARED, ADAPTED, "model.save_pretrained('adapter')\n"))
    load = "model = PeftModel.from_pretrained(model, 'adapter')\n"
    path = script(work, LOADED, PREPARED, load, TRAINED)

    assert said(path, "KB202") == [("KB202", load.strip(), "error")]
    assert said(work / "adapter", "KB202") == [("KB202", "adapter_config.json inference_mode", "info")]
    assert trained(ran(path)["model"]) == 0

    path = script(work, LOADED, PREPARED, load.replace("'adapter')", "'adapter', is_trainable=True)"), TRAINED)
    assert said(path, "KB202") == []
    assert trained(ran(path)["model"]) == 4


def test_no_trainable_params_or_all_masked(work):
    ran(script(work, LOADED, PREPARED, ADAPTED, "model.save_pretrained('adapter')\n"))
    resumed = """\
        try:
            model = PeftModel.from_pretrained(model, 'adapter')
        except OSError:
            model = get_peft_model(model, LoraConfig(r=4, target_modules=['q_proj']))
    """
    path = script(work, LOADED, PREPARED, textwrap.dedent(resumed))

    assert said(script(work, LOADED, PREPARED, textwrap.dedent(resumed), TRAINED), "KB202") == [
        ("KB202", "model = PeftModel.from_pretrained(model, 'adapter')", "error")
    ]
    assert trained(ran(path)["model"]) == 0


@pytest.mark.parametrize("use", [".train()", ".evaluate(data)"])
def test_pure_kbit_model_no_adapters(work, use):
    line = f"Trainer(model=model, args=args, train_dataset=data){use}\n"
    path = script(work, LOADED, line)

    assert said(path, "KB220") == [("KB220", line.strip(), "error")]
    with pytest.raises(ValueError, match="purely quantized"):
        ran(path)

    path = script(work, LOADED, PREPARED, ADAPTED, line)
    assert said(path, "KB220") == []
    ran(path)


def test_resized_embeddings_not_trained(work):
    grown = "tokenizer.add_tokens(['<a>'])\nmodel.resize_token_embeddings(260)\n"
    tokens = "class Tokenizer:\n    def add_tokens(self, tokens):\n        return len(tokens)\ntokenizer = Tokenizer()\n"
    path = script(work, tokens, LOADED, grown, PREPARED, ADAPTED, TRAINED)

    assert said(path, "KB622") == [("KB622", "model.resize_token_embeddings(260)", "warning")]
    assert [name for name, p in ran(path)["model"].named_parameters() if p.requires_grad and "lora" not in name] == []

    rows = ADAPTED.replace("r=4", "r=4, trainable_token_indices={'embed_tokens': [256, 257]}")
    path = script(work, tokens, LOADED, grown, PREPARED, rows, TRAINED)
    assert said(path, "KB622") == []
    assert [name for name, p in ran(path)["model"].named_parameters() if p.requires_grad and "lora" not in name] == [
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default"
    ]


# ------------------------------------------------------------------------------------------------ adapters and files


def adapter(folder, rows=None):
    """The folder of an adapter for ``base``, whose embeddings may have been resized."""
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained("base")
    more = None
    if rows is not None:
        model.resize_token_embeddings(rows)
        more = ["embed_tokens", "lm_head"]
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=more)).save_pretrained(folder)
    return folder


def attached(folder):
    return PeftModel.from_pretrained(tiny.transformers.AutoModelForCausalLM.from_pretrained("base"), folder)


def test_adapter_vocab_size_mismatch(work):
    assert said(adapter(work / "resized", 260), "KB626") == [
        ("KB626", f"adapter_model.safetensors base_model.model.{name}.weight", "error")
        for name in ("lm_head", "model.embed_tokens")
    ]
    with pytest.raises(RuntimeError, match="size mismatch"):
        attached(work / "resized")

    assert said(adapter(work / "same", 256), "KB626") == []
    attached(work / "same")


def test_empty_adapter_tensors(work):
    folder = adapter(work / "empty")
    assert said(folder, "KB624") == []
    attached(folder)

    file = folder / "adapter_model.safetensors"
    names = sorted(load_file(file))
    save_file({name: torch.zeros(0) for name in names}, file)

    assert said(folder, "KB624") == [("KB624", f"adapter_model.safetensors {name}", "error") for name in names]
    with pytest.raises(RuntimeError, match="size mismatch"):
        attached(folder)


def initialised(how, more=""):
    return ADAPTED.replace("init_lora_weights=False", f"init_lora_weights={how!r}{more}")


def test_pissa_on_quantized_base(work):
    path = script(work, LOADED, initialised("pissa"))

    assert said(path, "KB620") == [("KB620", initialised("pissa").strip(), "error")]
    with pytest.raises(TypeError, match="PiSSA"):
        ran(path)

    for fine in ((LOADED, initialised("olora")), (LOADED.replace("quantization_config=bnb, ", ""), initialised("pissa"))):
        path = script(work, *fine)
        assert said(path, "KB620") == []
        assert trained(ran(path)["model"]) == 4


LOFTQ = ", loftq_config={'loftq_bits': 4, 'loftq_iter': 1}"


def test_loftq_on_already_quantized_base(work, monkeypatch):
    """PEFT hands the packed bytes to LoftQ as the matrix; what LoftQ does to them needs CUDA."""
    path = script(work, LOADED, initialised("loftq", LOFTQ))
    matrices = []

    def loftq_init(weight, **_):
        matrices.append((weight.dtype, tuple(weight.shape)))
        raise AssertionError("taken")

    scipy = types.ModuleType("scipy")
    scipy.__spec__ = importlib.machinery.ModuleSpec("scipy", None)
    monkeypatch.setitem(sys.modules, "scipy", scipy)  # PEFT asks for it before anything else
    monkeypatch.setattr("peft.tuners.lora.layer.loftq_init", loftq_init)

    assert said(path, "KB620") == [("KB620", initialised("loftq", LOFTQ).strip(), "error")]
    with pytest.raises(AssertionError, match="taken"):
        ran(path)
    assert matrices == [(torch.uint8, (2048, 1))]

    path = script(work, LOADED.replace("quantization_config=bnb, ", ""), initialised("loftq", LOFTQ))
    assert said(path, "KB620") == []
    with pytest.raises(AssertionError, match="taken"):
        ran(path)
    assert matrices[1:] == [(torch.bfloat16, (64, 64))]


def test_merge_base_differs_from_training_base(work):
    save = "model.save_pretrained('adapter')\n"
    merge = "merged = AutoPeftModelForCausalLM.from_pretrained('adapter', dtype=torch.bfloat16).merge_and_unload()\n"
    causal = ADAPTED.replace("r=4", "r=4, task_type='CAUSAL_LM'")
    path = script(work, LOADED, causal, save, merge)

    assert said(path, "KB627") == [("KB627", merge.strip(), "info")]
    names = ran(path)
    wanted, merged = logits(names["model"]), logits(names["merged"])
    dequantized = PeftModel.from_pretrained(tiny.load().dequantize(), work / "adapter").merge_and_unload()
    rounding = (logits(dequantized) - wanted).abs().max()
    assert (merged - wanted).abs().max() > 4 * rounding

    path = script(work, LOADED.replace("quantization_config=bnb, ", ""), causal, save, merge)
    assert said(path, "KB627") == []


def test_merge_into_kbit_weights(work):
    merge = "model = model.merge_and_unload()\n"
    causal = ADAPTED.replace("r=4", "r=4, task_type='CAUSAL_LM'")
    path = script(work, LOADED, causal, "before = model\n", merge)

    assert said(path, "KB621") == [("KB621", merge.strip(), "warning")]
    assert type(ran(path)["model"].model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"

    path = script(work, LOADED.replace("quantization_config=bnb, ", ""), causal, merge)
    assert said(path, "KB621") == []
