"""What ``kbitlint explain`` says of messages: each is provoked for real, or its text is in the installed library."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import re
import tempfile
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from kbitlint.registry import all_rules
from kbitlint.upstream.messages import Verdict, found_in, messages

LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
#: what else people's tracebacks end in: these messages are provoked, or need a GPU
NATIVE = ("datasets", "flash-attn", "python", "safetensors")
#: what only a GPU, or torch's C++ on several ranks, says
UNSEEN = {
    "out of memory",
    "Expected to mark a variable ready only once",
    "Expected to have finished reduction in the prior iteration",
    "find_unused_parameters=True was specified in DDP constructor",
    "device-side assert triggered",
    "srcIndex < srcSelectDimSize",
    "Watchdog caught collective operation timeout",
    "Found dtype * but expected",
    "expected scalar type * but found",
    "no kernel image is available for execution on the device",
    "CUBLAS_STATUS_",
    "exitcode*-9",
    "FlashAttention only supports Ampere GPUs or newer",
    "only support fp16 and bf16 data type",
    "Was asked to gather along dimension 0",
    "Tensors must be contiguous",
    "is killed by signal",
    "address already in use",
    "NCCL error in",
}
#: what earlier versions say, which people still have: the version, and a thread that holds the message
OLDER = {
    "assert quant_state is not None": "bitsandbytes 0.42, huggingface/transformers#29267",
    "please pass in use_reentrant=True or use_reentrant=False explicitly": "torch 2.1, oobabooga/textgen#5330",
    "compiled without GPU support": "bitsandbytes 0.42, bitsandbytes-foundation/bitsandbytes#779",
    "CUDA Setup failed despite": "bitsandbytes 0.42, bitsandbytes-foundation/bitsandbytes#487",
    "libbitsandbytes_cpu.so: undefined symbol": "bitsandbytes 0.42, bitsandbytes-foundation/bitsandbytes#1056",
    "Cannot merge LORA layers when the model is loaded in": "peft 0.5, bigcode-project/starcoder#118",
    "The model you want to train is loaded in 8-bit precision": "transformers 4.33, huggingface/autotrain-advanced#234",
    "as a kwarg when passing `quantization_config`": "transformers 4.38, hiyouga/LlamaFactory#4269",
    "No label_names provided for model class": "transformers 4.51, ggml-org/llama.cpp#14621",
    "Special tokens have been added in the vocabulary": "transformers 4.57, hiyouga/LlamaFactory#9578",
    "Model was not initialized with `Zero-3`": "accelerate 0.33, huggingface/peft#2014",
    "`padding_side` not equal to `right`": "trl 0.8",
    "'NoneType' object has no attribute 'absmax'": "bitsandbytes 0.46, unslothai/unsloth#2910",
    "object has no attribute 'quant_state'": "bitsandbytes 0.43",
    "requires Accelerate: `pip install accelerate`": "transformers 4.33, eosphoros-ai/DB-GPT-Hub#106",
    "object has no attribute 'optimizer'": "trl 0.14, huggingface/trl#2782",
    "This instance will be ignored in loss calculation": "trl 0.19",
    "Flash Attention 2 only supports": "transformers 4.50",
    "has no attribute 'ds_id'": "deepspeed 0.14",
    "were not used when initializing": "transformers 4.57",
    "does not exist or is not currently imported": "transformers 4.57",
    "Mismatch between tokenized prompt and the start of tokenized prompt+completion": "trl 0.24",
}


def grad():
    return torch.ones(2, 4, requires_grad=True)


def lora_on(model, **further):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **further}))


def scaler():
    return torch.amp.GradScaler("cpu")


def recomputed_otherwise():
    sizes = iter((4, 8))

    def layer(value):
        return (value.sum() * torch.ones(next(sizes), requires_grad=True)).sin()

    checkpoint(layer, grad(), use_reentrant=False).sum().backward()


def recomputed_less():
    times = iter((2, 1))

    def layer(value):
        for _ in range(next(times)):
            value = value.sin()
        return value

    checkpoint(layer, grad(), use_reentrant=False).sum().backward()


def twice():
    loss = (grad() * grad()).sum()
    loss.backward()
    loss.backward()


def changed_in_place():
    value = grad() * 2
    result = value.sin().sum() + (value * value).sum()
    value += 1
    result.backward()


def of_inference():
    with torch.inference_mode():
        weight = torch.ones(4)
    (grad() * weight).sum().backward()


def nothing_needs_it():
    value = grad()
    checkpoint(lambda given: given.detach(), value, use_reentrant=True).sum().backward()


def inputs_of_backward():
    value = grad()
    checkpoint(torch.sin, value, use_reentrant=True).sum().backward(inputs=[value])


def unscaled():
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = torch.optim.SGD([weight], 0.1)
    made = scaler()
    made.scale(weight.sum()).backward()
    made.unscale_(optimizer)


def nothing_scaled():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 0.1)
    made = scaler()
    made.scale(torch.ones(1))
    made.step(optimizer)


def scheduled_first():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scheduler.step()
    scheduler.step()


def in_place_on_a_leaf():
    value = grad()
    value += 1


def linear4bit(**further):
    import bitsandbytes as bnb

    return bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", **further)


def slow_compute():
    layer = linear4bit().to("cpu")
    layer(torch.ones(4, 64, dtype=torch.float16))


def paged():
    import bitsandbytes as bnb

    optimizer = bnb.optim.PagedAdamW8bit([nn.Parameter(torch.ones(8192))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(8192)
    optimizer.step()


def packed_twice():
    import bitsandbytes as bnb

    bnb.functional.quantize_4bit(torch.ones(64, 64, dtype=torch.uint8))


def amsgrad():
    import bitsandbytes as bnb

    bnb.optim.AdamW8bit([nn.Parameter(torch.ones(2))], amsgrad=True)


def merged(kind):
    lora_on(tiny.load(kind=kind)).merge_adapter()


def merged_twice():
    model = lora_on(tiny.load())
    model.merge_adapter()
    model.merge_adapter()


def adapter_of_merged():
    model = lora_on(tiny.load())
    model.add_adapter("other", model.peft_config["default"])
    model.merge_adapter()
    model.set_adapter("other")


def ia3_merged():
    from peft import IA3Config, get_peft_model

    get_peft_model(tiny.load(), IA3Config(target_modules=["q_proj"], feedforward_modules=[])).merge_and_unload()


def without_targets():
    from peft import LoraConfig, get_peft_model

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = {"model_type": "mine"}
            self.layer = nn.Linear(2, 2)

    get_peft_model(Own(), LoraConfig())


def missing_keys():
    from peft import PeftModel
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        lora_on(tiny.load()).save_pretrained(folder)
        file = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(file)
        tensors.pop(next(iter(tensors)))
        save_file(tensors, file)
        PeftModel.from_pretrained(tiny.load(), folder)


def saved_embeddings():
    with tempfile.TemporaryDirectory() as folder:
        lora_on(tiny.load(), target_modules=["q_proj", "embed_tokens"]).save_pretrained(folder)


def purely_quantized():
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        Trainer(tiny.load(), TrainingArguments(folder, report_to=[], use_cpu=True))


def cached():
    model = tiny.with_lora(tiny.load())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model(input_ids=torch.ones(1, 4, dtype=torch.long), use_cache=True)


def both_halves():
    from transformers import TrainingArguments

    TrainingArguments("out", fp16=True, bf16=True, use_cpu=True)


def misspelt():
    from transformers import BitsAndBytesConfig

    BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_type="bfloat16")


def removed_argument():
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny.checkpoint(), load_in_4bit=True)


def old_dtype():
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny.checkpoint(), torch_dtype=torch.bfloat16)


def moved(kind):
    tiny.load(kind=kind).cuda()


def unchecked_class():
    model = tiny.load(kind="none")
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        model.gradient_checkpointing_enable()
    finally:
        type(model).supports_gradient_checkpointing = before


def unknown_loss():
    model = tiny.load(kind="none")
    model.config.loss_type = "Mine"
    model.loss_type = "Mine"
    model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long))


def second_time():
    from peft import get_peft_model

    model = tiny.load()
    get_peft_model(model, lora_on(model).peft_config["default"])


def renamed_argument():
    from trl import SFTConfig

    SFTConfig("out", max_seq_length=8)


def removed_function():
    from peft import prepare_model_for_int8_training  # noqa: F401


def anomaly():
    with torch.autograd.detect_anomaly():
        (grad() * 0).sqrt().sum().backward()


def out_of_half():
    torch.ones(2, dtype=torch.float16).masked_fill(torch.ones(2, dtype=torch.bool), -1e9)


def into_half():
    torch.zeros(2, dtype=torch.float16)[torch.tensor([0])] = torch.ones(1)


def no_row():
    from datasets import Dataset

    Dataset.from_dict({"text": []})[1]


def absent():
    import flash_attn_of_nobody  # noqa: F401


def absent_metadata():
    from importlib.metadata import version

    version("flash-attn-of-nobody")


def unknown_type():
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text('{"model_type": "mine"}')
        AutoConfig.from_pretrained(folder)


def other_task():
    from transformers import AutoModelForCausalLM, ViTConfig

    AutoModelForCausalLM.from_config(ViTConfig())


def no_adapter():
    from peft import PeftConfig

    with tempfile.TemporaryDirectory() as folder:
        PeftConfig.from_pretrained(folder)


def no_header():
    from safetensors.torch import load

    load(b"version https://git-lfs.github.com/spec/v1")


def shared():
    from safetensors.torch import save_file

    weight = torch.ones(2)
    save_file({"head": weight, "embedding": weight}, "shared.safetensors")


#: beginning of a message -> what provokes it
PROVOCATIONS = {
    "None of the inputs": lambda: checkpoint(torch.sin, torch.ones(2), use_reentrant=True),
    "the use_reentrant parameter": lambda: checkpoint(torch.sin, grad()),
    "element 0 of tensors": lambda: torch.ones(1).backward(),
    "none of output has": nothing_needs_it,
    "torch.utils.checkpoint is incompatible": inputs_of_backward,
    "Trying to backward": twice,
    "modified by an inplace": changed_in_place,
    "Inference tensors": of_inference,
    "A different number": recomputed_less,
    "Recomputed values": recomputed_otherwise,
    "only Tensors of floating": lambda: torch.ones(2, dtype=torch.uint8).requires_grad_(),
    "a leaf Variable": in_place_on_a_leaf,
    "optimizer got an empty": lambda: torch.optim.SGD([], 0.1),
    "have the same dtype": lambda: nn.functional.linear(torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2)),
    "Attempting to unscale": unscaled,
    "No inf checks": nothing_scaled,
    "`lr_scheduler.step()`": scheduled_first,
    "must match the size of tensor b": lambda: torch.ones(0) + torch.ones(4),
    "shapes cannot be multiplied": lambda: torch.ones(2, 4) @ torch.ones(8, 1),
    "index out of range": lambda: nn.Embedding(2, 2)(torch.tensor([5])),
    "size mismatch for": lambda: nn.Linear(2, 2).load_state_dict(nn.Linear(3, 2).state_dict()),
    "Cannot copy out of meta": lambda: torch.ones(2, device="meta").to("cpu"),
    "Input type into Linear4bit": slow_compute,
    "quantization state not": lambda: linear4bit()(torch.ones(4, 64)),
    "Paged optimizers": paged,
    "quantization only supports": packed_twice,
    "does not support amsgrad": amsgrad,
    "Merge lora module to 4-bit": lambda: merged("nf4"),
    "Merge lora module to 8-bit": lambda: merged("int8"),
    "not found in the base": lambda: lora_on(tiny.load(), target_modules=["nowhere"]),
    "Please specify `target_modules`": without_targets,
    "Already found a `peft_config`": lambda: lora_on(lora_on(tiny.load())),
    "Found missing adapter keys": missing_keys,
    "Adapter cannot be set": adapter_of_merged,
    "All adapters are already": merged_twice,
    "Cannot merge ia3": ia3_merged,
    "Setting `save_embedding_layers`": saved_embeddings,
    "`use_cache=True`": cached,
    "You cannot perform": purely_quantized,
    "is not supported for `*-bit`": lambda: moved("int8"),
    "not implemented for 'Half'": lambda: torch.linalg.qr(torch.ones(2, 2, dtype=torch.float16)),
    "You are trying to modify": second_time,
    "is not supported. Currently": lambda: lora_on(tiny.load(), target_modules=["mlp"]),
    "You cannot cast a": lambda: tiny.load().to(torch.float16),
    "got an unexpected keyword argument": renamed_argument,
    "cannot import name": removed_function,
    "At most one of": both_halves,
    "Unused kwargs": misspelt,
    "got an unexpected keyword argument 'load_in_4bit'": removed_argument,
    "`torch_dtype` is": old_dtype,
    "does not support * checkpointing": unchecked_class,
    "`gradient_checkpointing_enable`": lambda: tiny.load(kind="none").gradient_checkpointing_enable(),
    "`loss_type=": unknown_loss,
    "to match target batch_size": lambda: nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(3, dtype=torch.long)),
    "One of the differentiated": lambda: torch.autograd.grad(grad().sum(), torch.ones(1)),
    "Index put requires": into_half,
    "cannot be converted to type": out_of_half,
    "object has no attribute 'peft_config'": lambda: nn.Linear(2, 2).peft_config,
    "out of bounds for size 0": no_row,
    "No package metadata": absent_metadata,
    "No module named": absent,
    "returned nan values in its": anomaly,
    "with shape torch.Size([0])": lambda: nn.Linear(2, 2).load_state_dict({"weight": torch.ones(0)}, strict=False),
    "Missing key(s)": lambda: nn.Linear(2, 2).load_state_dict({}),
    "Unexpected key(s)": lambda: nn.Linear(2, 2).load_state_dict({"module.weight": torch.ones(2, 2)}),
    "num_samples should be": lambda: torch.utils.data.RandomSampler([]),
    "grad can be implicitly": lambda: grad().backward(),
    "probability tensor": lambda: torch.multinomial(torch.tensor([float("nan"), 1.0]), 1),
    "is non-finite, so": lambda: nn.utils.get_total_norm([torch.tensor([float("nan")])], error_if_nonfinite=True),
    "bias type": lambda: nn.Conv1d(2, 2, 1)(torch.ones(1, 2, 2, dtype=torch.float16)),
    "does not recognize this": unknown_type,
    "Unrecognized configuration": other_task,
    "Can't find 'adapter_config.json'": no_adapter,
    "Object of type": lambda: json.dumps({1}),
    "Error while deserializing": no_header,
    "Some tensors share memory": shared,
}


class _Lines(logging.Handler):
    def __init__(self):
        super().__init__(0)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def said(provoke):
    """All that a call warns, logs, prints and raises."""
    lines, streams = _Lines(), io.StringIO()
    loggers = [logging.getLogger(name) for name in (None, *LIBRARIES)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
    for function in vars(logging.Logger).values():  # warning_once of transformers says it once a process
        getattr(function, "cache_clear", lambda: None)()
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(streams):
            warnings.simplefilter("always")
            try:
                provoke()
            except Exception as error:  # noqa: BLE001  # its text is what is wanted
                lines.lines.append(str(error))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(lines)
            logger.setLevel(level)
    return " ".join([*lines.lines, *(str(warning.message) for warning in caught), streams.getvalue()])


@pytest.mark.parametrize("start", [*PROVOCATIONS])
def test_a_message_is_what_the_library_really_says(start):
    message = min((message for message in messages() if message.sign.startswith(start)), key=lambda one: len(one.sign))

    assert message in found_in(said(PROVOCATIONS[start])), said(PROVOCATIONS[start])


@functools.cache
def text_of(library):
    """The source of a library, with the pieces of its texts joined."""
    import importlib.util

    root = Path(importlib.util.find_spec(library).origin).parent
    files = (path for path in root.rglob("*.py") if "models" not in path.relative_to(root).parts)
    joined = re.sub(r"[\"']\s*\n\s*[fr]*[\"']", "", "\n".join(path.read_text(errors="replace") for path in files))
    return " ".join(joined.split()).lower()


@pytest.mark.slow
def test_every_other_message_is_in_the_installed_library():
    provoked = {message.sign for message in messages() if message.sign.startswith(tuple(PROVOCATIONS))}
    missing = [
        (message.library, message.sign)
        for message in messages()
        if message.sign not in provoked | UNSEEN | set(OLDER)
        and not all(part.strip().lower() in text_of(message.library) for part in message.sign.split("*"))
    ]

    assert missing == []
    assert len(messages()) >= 120
    assert set(OLDER) | UNSEEN <= {message.sign for message in messages()}
    assert len(provoked) == len(PROVOCATIONS)


def test_each_row_names_rules_that_exist_and_says_what_to_do():
    codes = {rule.meta.code for rule in all_rules()}

    assert {code for message in messages() for code in message.rules} <= codes
    assert {message.sign for message in messages() if message.verdict is Verdict.FAULT and not message.meaning} == set()
    assert {message.library for message in messages()} == {*LIBRARIES, *NATIVE}


def test_a_pasted_warning_a_traceback_and_a_rule(run, tmp_path):
    warning = (
        "/env/torch/utils/checkpoint.py:91: UserWarning: None of the inputs have requires_grad=True.\n"
        "Gradients will be None\n  warnings.warn("
    )
    log = tmp_path / "train.log"
    log.write_text(
        f"loading\n{warning}\nRuntimeError: element 0 of tensors does not require grad and does not have a grad_fn\n"
    )

    pasted, file, rule = run("explain", warning), run("explain", log), run("explain", "KB301")
    unknown, misspelt = run("explain", "hello there"), run("explain", "KB999")

    assert pasted.stdout == (
        "torch: None of the inputs have requires_grad=True. Gradients will be None\n"
        "  depends on the model: A reentrant checkpoint got inputs without grad:\n"
        "  everything inside it trains nothing. Harmless only where nothing inside\n"
        "  trains, as in evaluation.\n"
        "  rules: KB301, KB401\n"
        "  run: kbitlint check train.py:build_model --meta\n"
    )
    assert [line for line in file.stdout.splitlines() if line.startswith("torch: ")] == [
        "torch: None of the inputs have requires_grad=True. Gradients will be None",
        "torch: element 0 of tensors does not require grad and does not have a grad_fn",
    ]
    assert rule.stdout.startswith("# missing-input-grad-hook (KB301)")
    assert (unknown.exit_code, misspelt.exit_code) == (2, 2)
    assert unknown.stderr == (
        "kbitlint: explain: no rule is called 'hello there', and it holds no message that is known; "
        "if a script printed it, `kbitlint rehearse train.py` looks for the cause\n"
    )


@pytest.mark.parametrize(
    ("entries", "signs"),
    [
        ([{"loss": 0.0, "grad_norm": float("nan"), "learning_rate": 2e-4}], ["loss 0", "grad_norm nan or inf"]),
        ([{"loss": float("nan"), "grad_norm": 1.0}], ["loss nan or inf"]),
        ([{"loss": 2.5, "grad_norm": 0.0}] * 6, ["grad_norm 0", "a loss that never changes"]),
        ([{"loss": 2.5 - n / 10, "grad_norm": 1.0, "learning_rate": 0.0} for n in range(3)], ["learning_rate 0"]),
    ],
)
@pytest.mark.parametrize("form", ["trainer_state.json", "log"])
def test_the_numbers_of_a_run(run, tmp_path, entries, signs, form):
    file = tmp_path / ("trainer_state.json" if form != "log" else "train.log")
    text = "\n".join(map(str, entries)) if form == "log" else json.dumps({"log_history": entries})
    file.write_text(text)

    result = run("explain", file)

    assert [line.removeprefix("the log: ") for line in result.stdout.splitlines() if line.startswith("the log: ")] == signs


@pytest.mark.parametrize(
    ("words", "signs"),
    [
        ("grad_norm nan", ["grad_norm nan or inf"]),
        ("why is my loss 0?", ["loss 0"]),
        ("the training loss is nan after step 10", ["loss nan or inf"]),
        ("loss=0.000000, grad_norm: 0.0", ["loss 0", "grad_norm 0"]),
        ("eval_loss: 0.53, no nan", []),
    ],
)
def test_what_people_say_of_numbers(run, words, signs):
    result = run("explain", words)

    assert [line.removeprefix("the log: ") for line in result.stdout.splitlines() if line.startswith("the log: ")] == signs


def test_the_text_of_the_standard_input_is_named(run):
    unknown = run("explain", "-", text="step 1\nall is well\n")

    assert (unknown.exit_code, unknown.stderr.startswith("kbitlint: explain: no rule is called 'step 1 all is well'")) == (
        2,
        True,
    )


def test_a_healthy_run_has_no_sign(run, tmp_path):
    file = tmp_path / "trainer_state.json"
    file.write_text(json.dumps({"log_history": [{"loss": 2.5 - n / 10, "grad_norm": 1.0} for n in range(9)]}))

    assert run("explain", file).exit_code == 2


@pytest.mark.parametrize("part", ["None of the inputs have requires_grad=True", "none of the inputs have requires_grad..."])
def test_a_part_of_a_message_stands_for_the_whole(part):
    assert [message.sign for message in found_in(part)] == [
        "None of the inputs have requires_grad=True. Gradients will be None"
    ]
    assert found_in("None of the") == ()
