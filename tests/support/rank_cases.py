"""Real training under DDP and FSDP. Each function runs on every rank, and returns outcomes and verdicts.

An outcome is the first line of the error that training raises, or None. A verdict is a list of (code, severity).
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import statistics
import sys
from datetime import timedelta
from pathlib import Path

import tiny
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

import kbitlint
from kbitlint.audit.run import context_of
from kbitlint.context import Strategy, TrainingContext
from kbitlint.model.batch import loss_of, training_batch

BF16 = torch.bfloat16
SGD = functools.partial(torch.optim.SGD, lr=0.01)


def steps(wrapped, inner, number=2, make=SGD):
    """Take some training steps; return the first line of the error, or None if they succeed."""
    try:
        optimizer = make([p for p in inner.parameters() if p.requires_grad])
        for _ in range(number):
            optimizer.zero_grad()
            loss_of(wrapped(**training_batch(inner, "cpu"))).backward()
            optimizer.step()
    except (RuntimeError, ValueError, AssertionError, AttributeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def shown(model, select, **context):
    report = kbitlint.check(model, select=select, trace=False, context=TrainingContext(**context))
    assert not report.crashes
    return sorted({(v.code, v.severity.value) for v in report.violations})


def _lora():
    return tiny.with_lora(tiny.load())


def _head_only():
    """Return a model that is trainable outside the checkpointed layers only."""
    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(False)
    return model


def _without_hook():
    """Return a model with adapters, which ``ddp_matrix`` leaves without an input-grad hook.

    No gradient enters its reentrant layers. They train nothing, so DDP marks no parameter as ready twice.
    """
    return tiny.with_lora(tiny.load())


MODELS = {"adapters": _lora, "head only": _head_only, "no hook": _without_hook}


def ddp_matrix():
    """Return {(model, reentrant, find_unused, static_graph): (outcome, verdict)} over the whole matrix."""
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for name, reentrant, unused, static in itertools.product(MODELS, *[[False, True]] * 3):
        model = MODELS[name]()
        tiny.bind_reentrant(model, use_reentrant=reentrant)
        if name != "no hook":
            model.get_base_model().enable_input_require_grads()
        model.train()
        verdict = shown(
            model, "KB701", strategy=Strategy.DDP, find_unused_parameters=unused, static_graph=static, sets_training_mode=True
        )
        wrapped = DistributedDataParallel(model, find_unused_parameters=unused, static_graph=static)
        assert shown(wrapped, "KB701") == verdict
        found[name, reentrant, unused, static] = (steps(wrapped, model), verdict)
        dist.barrier()
    return found


def recast_biases():
    """Return {find_unused: (outcome, verdict, whether the ranks agree on the bias, and on the adapters)} after steps.

    Each rank has other tokens. bitsandbytes makes the trainable float32 biases bfloat16 in the first forward pass.
    """
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for unused in (False, True):
        model = prepare_model_for_kbit_training(tiny.load("gpt2 (Conv1D)"), use_gradient_checkpointing=False)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["c_attn"], bias="all"))
        known = {"find_unused_parameters": unused, "world_size": dist.get_world_size()}
        context = TrainingContext("float32", strategy=Strategy.DDP, **known)
        report = kbitlint.check(model, select="KB725", context=context)
        wrapped = DistributedDataParallel(model, find_unused_parameters=unused)
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        tokens = torch.randint(7, 200, (2, 16), generator=torch.Generator().manual_seed(dist.get_rank()))
        outcome = None
        try:
            for _ in range(2):
                wrapped(input_ids=tokens, labels=tokens).loss.backward()
        except RuntimeError as error:
            outcome = str(error).partition(" before")[0]
        agree = {".c_attn.base_layer.bias": True, "lora_B": True}
        for name, kind in ((name, kind) for name in trained for kind in agree if kind in name):
            gradients = [torch.zeros_like(trained[name].grad) for _ in range(dist.get_world_size())]
            dist.all_gather(gradients, trained[name].grad)
            agree[kind] = agree[kind] and all(torch.equal(gradients[0], other) for other in gradients)
        found[unused] = (outcome, sorted({v.severity.value for v in report.violations}), *agree.values())
        dist.barrier()
    return found


def trainer_default():
    """Train a PeftModel in a real distributed Trainer; return (find_unused_parameters, severities, outcome)."""
    import transformers

    model = tiny.with_lora(prepare_model_for_kbit_training(tiny.load(), gradient_checkpointing_kwargs={"use_reentrant": True}))
    args = transformers.TrainingArguments(output_dir=os.environ["FOLDER"], use_cpu=True, report_to=[], max_steps=1)
    trainer = transformers.Trainer(model=model, args=args, train_dataset=rows())
    model.train()
    report = kbitlint.check(trainer, select="KB701", trace=False)
    try:
        trainer.train()
        outcome = None
    except RuntimeError as error:
        outcome = str(error).splitlines()[0]
    return trainer.accelerator.ddp_handler.find_unused_parameters, [v.severity.value for v in report.violations], outcome


def trl_trainers_under_ddp():
    """Train each named trainer of TRL under DDP.

    Return {name: (strategy, find_unused_parameters, counts of findings, crashes, number of adapters left unchanged)}.
    """
    from collections import Counter

    import trl_trainers

    from kbitlint.integrations.trainer import KbitlintCallback

    found = {}
    for name in sys.argv[3:]:
        callback = KbitlintCallback()
        trainer = trl_trainers.build(name, os.environ["FOLDER"], callbacks=[callback], ddp_find_unused_parameters=False, rows=8)
        before = {path: p.detach().clone() for path, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
        kept = sum(torch.equal(before[path], p) for path, p in trainer.model.named_parameters() if path in before)
        report = callback.report
        codes = dict(Counter((violation.code, violation.severity.value) for violation in report.violations))
        told = context_of(trainer.model_wrapped, TrainingContext())
        found[name] = (told.strategy.value, told.find_unused_parameters, codes, report.crashes, kept)
    return found


def rows(number=8):
    tokens = torch.arange(16) % tiny.VOCAB
    return [{"input_ids": tokens, "labels": tokens} for _ in range(number)]


def spread_map():
    """Return {device map: (outcome, verdict)} of accelerate's ``prepare_model``, for maps of two devices and of one."""
    from accelerate import Accelerator

    found = {}
    for devices in ({"model": 0, "lm_head": 1}, {"model": 0, "lm_head": "cpu"}, {"": "cpu"}):
        model = tiny.load()
        model.hf_device_map = devices
        try:
            Accelerator(cpu=True).prepare_model(model)
            outcome = None
        except ValueError as error:
            outcome = str(error).splitlines()[0]
        found[str(devices)] = (outcome, shown(model, "KB702", strategy=Strategy.DDP))
    return found


def _adapted(model, **arguments):
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config, **arguments)


def _uniform(storage=BF16):
    return _adapted(tiny.load(bnb_4bit_quant_storage=storage), autocast_adapter_dtype=False)


def _prepared(storage):
    return _adapted(
        prepare_model_for_kbit_training(tiny.load(bnb_4bit_quant_storage=storage), use_gradient_checkpointing=False)
    )


def _fixed():
    model = tiny.load(bnb_4bit_quant_storage=BF16)
    kbitlint.fix(model, select="KB101")
    return _adapted(model, autocast_adapter_dtype=False)


def _mixed(part):
    model = _adapted(tiny.load(bnb_4bit_quant_storage=BF16))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and part in name:
            parameter.data = parameter.data.bfloat16()
    return model


FSDP = {
    "uint8 storage": lambda: _adapted(tiny.load(), autocast_adapter_dtype=False),
    "int8": lambda: _adapted(tiny.load(kind="int8"), autocast_adapter_dtype=False),
    "one dtype": _uniform,
    "float32 adapters": lambda: _adapted(tiny.load(bnb_4bit_quant_storage=BF16)),
    "prepared, bfloat16 storage": lambda: _prepared(BF16),
    "prepared, float32 storage": lambda: _prepared(torch.float32),
    "float32 norms": _fixed,
    "mixed adapters": lambda: _mixed("q_proj"),
    "adapters mixed across layers": lambda: _mixed("layers.0"),
    "unquantized, mixed": lambda: _adapted(tiny.load(kind="none")),
}


def _fsdp1(model, policy):
    from torch.distributed.fsdp import FullyShardedDataParallel

    cpu = torch.device("cpu")
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=True, device_id=cpu)


def fsdp1_matrix():
    """Return {(model, trainer): (outcome, verdict)}. ``trainer`` selects the policy that Trainer takes from PEFT."""
    from peft.utils.other import fsdp_auto_wrap_policy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "LlamaDecoderLayer"
    found = {}
    for name, trainer in itertools.product(FSDP, [False, True]):
        model = FSDP[name]().train()
        verdict = shown(model, ["KB703", "KB704"], strategy=Strategy.FSDP1, sets_training_mode=trainer or None)
        policy = fsdp_auto_wrap_policy(model) if trainer else ModuleWrapPolicy({LlamaDecoderLayer})
        try:
            outcome = steps(_fsdp1(model, policy), model)
        except ValueError as error:
            outcome = str(error).splitlines()[0]
        found[name, trainer] = (outcome, verdict)
        dist.barrier()
    return found


def fsdp2_matrix():
    """Return {(model, whole): (outcome, verdict)}.

    False shards by layer, as accelerate does; True makes one unit, as it does for a PeftModel.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {}
    for name, whole in itertools.product(FSDP, [False, True]):
        model = FSDP[name]().train()
        verdict = shown(model, ["KB703", "KB704"], strategy=Strategy.FSDP2, sets_training_mode=whole or None)
        left_out = {p for p in model.parameters() if type(p).__name__ == "Params4bit" and not p.is_floating_point()}
        try:
            for layer in () if whole else model.get_base_model().model.layers:
                fully_shard(layer, mesh=mesh, ignored_params=left_out)
            fully_shard(model, mesh=mesh, ignored_params=left_out)
            outcome = steps(model, model)
        except (AssertionError, ValueError) as error:
            outcome = str(error).splitlines()[0]
        found[name, whole] = (outcome, verdict)
        dist.barrier()
    return found


OPTIMIZERS = ("adamw_torch", "adamw_bnb_8bit", "paged_adamw_32bit", "lion_8bit", "rmsprop_bnb", "ademamix")


def sharded_optimizers():
    """Return {(strategy, optimizer): (outcome, verdict)} of two steps with the optimizers that Trainer makes."""
    import transformers
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {}
    for strategy, name in itertools.product((Strategy.FSDP1, Strategy.FSDP2), OPTIMIZERS):
        model = _uniform().train()
        args = transformers.TrainingArguments(output_dir=os.environ["FOLDER"], use_cpu=True, report_to=[], optim=name)
        cls, arguments = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
        verdict = shown(model, "KB709", strategy=strategy, optimizer=name)
        if strategy is Strategy.FSDP1:
            wrapped = _fsdp1(model, ModuleWrapPolicy({LlamaDecoderLayer}))
        else:
            wrapped = model
            for layer in model.get_base_model().model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        made = functools.partial(cls, **arguments)
        found[strategy.value, name] = (steps(wrapped, model, make=made), verdict)
        dist.barrier()
    return found


def shard_sizes():
    """Return {storage dtype: (packed bytes before, packed bytes on this rank after accelerate's FSDP2, verdict)}."""
    import warnings
    from types import SimpleNamespace

    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp_shard",))
    found = {}
    for storage in (torch.uint8, BF16):
        model = _uniform(storage)
        verdict = shown(model, "KB704", strategy=Strategy.FSDP2)
        before = _packed_bytes(model)
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
            cpu_ram_efficient_loading=False,
        )
        plugin.set_auto_wrap_policy(model)
        state = SimpleNamespace(fsdp_plugin=plugin)
        stand_in = SimpleNamespace(
            state=state,
            torch_device_mesh=None,
            parallelism_config=None,
            device=torch.device("cpu"),
            is_main_process=True,
            mixed_precision="no",
            distributed_type=None,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepared = fsdp2_prepare_model(stand_in, model)
        found[str(storage)] = (before, _packed_bytes(prepared), verdict)
    assert mesh.size() == dist.get_world_size()
    return found


def _packed_bytes(model):
    names = [f"{name}.weight" for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    held = [model.get_parameter(name) for name in names if ".base_layer." in name]
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in held]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def seen_through():
    """Return {wrapper: facts and strategy}; the facts must be those of the bare model."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from torch.nn.parallel import DistributedDataParallel
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    from kbitlint.audit.run import context_of
    from kbitlint.model.inspect.walk import collect

    def look(model):
        facts = collect(model)
        paths = sorted(p.path.replace("_flat_param", "") for p in facts.parameters)
        return paths, [a.name for a in facts.adapters], len(facts.quantized), context_of(model, TrainingContext()).strategy

    ddp = DistributedDataParallel(_uniform())
    compiled = torch.compile(DistributedDataParallel(_uniform()))
    fsdp1 = _fsdp1(_uniform(), ModuleWrapPolicy({LlamaDecoderLayer}))
    fsdp2 = _uniform()
    for layer in fsdp2.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(fsdp2)
    made = {"bare": _uniform(), "ddp": ddp, "compiled ddp": compiled, "fsdp1": fsdp1, "fsdp2": fsdp2}
    return {name: look(model) for name, model in made.items()}


def _on(*targets, kind="nf4", **arguments):
    return tiny.with_lora(tiny.load(kind=kind), **({"target_modules": list(targets)} if targets else {}), **arguments)


#: case -> the model of even ranks, the model of odd ranks
DIVERGENCES = {
    "same": (_on, _on),
    "other modules, other shapes": (lambda: _on("q_proj"), lambda: _on("down_proj")),
    "other modules, same shapes": (lambda: _on("q_proj"), lambda: _on("o_proj")),
    "more modules": (lambda: _on("q_proj"), lambda: _on("q_proj", "v_proj")),
    "other quantization": (_on, lambda: _on(kind="fp4")),
    "other scaling": (lambda: _on(lora_alpha=8), lambda: _on(lora_alpha=64)),
}


def divergence():
    """Return {case: (outcome of DDP, (severity, aspect) pairs, paths)} for ranks whose models differ."""
    from kbitlint.integrations import ranks

    found = {}
    for name, builds in DIVERGENCES.items():
        torch.manual_seed(0)
        model = builds[dist.get_rank() % 2]().train()
        report = ranks.check(model, select="KB705", trace=False, timeout=60).report
        assert not report.crashes, report.crashes
        verdict = sorted({(v.severity.value, v.evidence["aspect"]) for v in report.violations})
        found[name] = (_together(model), verdict, sorted({v.at.path for v in report.violations}))
        dist.barrier()
    return found


def _together(model):
    """Return "refused" if DDP rejects the models of the ranks, otherwise "agree" or "differ" by what they compute and train."""
    from torch.nn.parallel import DistributedDataParallel

    own = dist.new_group(timeout=timedelta(seconds=8))  # a mismatched collective breaks its group
    outcome, logits = "refused", None
    try:
        wrapped = DistributedDataParallel(model, process_group=own)
        with torch.no_grad():
            logits = wrapped(**training_batch(model, "cpu")).logits.float()
        outcome = "taken"
    except RuntimeError:
        pass
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, (outcome, names, logits))
    if any(outcome == "refused" for outcome, _, _ in every):
        return "refused"
    first = every[0]
    same = all(names == first[1] and torch.equal(logits, first[2]) for _, names, logits in every)
    return "agree" if same else "differ"


def fixed_and_sharded():
    """Compare a fixed model under FSDP2, its packed weights left out, with the whole model: loss and gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import kbitlint

    def made():
        model = tiny.load()
        kbitlint.fix(model)
        torch.manual_seed(0)
        return tiny.with_lora(model)

    expected, plain = loss_and_gradients(made())
    model = made()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    packed = {p for p in model.parameters() if not p.is_floating_point()}
    for layer in model.get_base_model().model.layers:
        norms = [module for name, module in layer.named_children() if "norm" in name]
        for norm in norms:  # a unit holds one dtype
            fully_shard(norm, mesh=mesh)
        fully_shard(layer, mesh=mesh, ignored_params=packed)
    loss, gradients = loss_and_gradients(model)
    whole = {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in gradients.items()}
    return {
        "loss": bool(torch.allclose(loss, expected, rtol=1e-3)),
        "names": whole.keys() == plain.keys(),
        "gradients": all(torch.allclose(whole[n].float(), plain[n].float(), atol=1e-3, rtol=5e-2) for n in plain),
        "norms": sorted(map(str, norm_dtypes(model))),
    }


def main():
    function, folder, *_ = sys.argv[1:]
    os.environ["FOLDER"] = folder
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for family in (
        "llama",
        "llama (reward model)",
        "gpt2 (Conv1D)",
        "t5 (encoder-decoder)",
    ):  # before the process group exists, in which only rank 0 would write them
        tiny.checkpoint(family)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=120))
    result = globals()[function]()
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # a thread of gloo that outlives its group aborts the interpreter while it shuts down


def norm_dtypes(model):
    return {p.dtype for name, p in model.named_parameters() if "norm" in name.lower() and "lora" not in name}


def loss_and_gradients(model, run=None, autocast=None):
    torch.manual_seed(0)
    model.train().zero_grad()
    batch = training_batch(model, "cpu")
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        loss = loss_of((model if run is None else run)(**batch))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def shared_embeddings():
    """Return (class of the error of T5, of Llama) under FSDP2, as accelerate shards them; None if training succeeds."""
    from benchmarks.cost.ranks import sharded

    found = []
    for family in ("t5 (encoder-decoder)", "llama"):
        model = tiny.with_lora(tiny.load(family, bnb_4bit_quant_storage=BF16))
        batch = training_batch(model, "cpu")
        ready = sharded(model)
        try:
            loss_of(ready(**batch)).backward()
        except ValueError as error:
            found.append(type(error).__name__)
        else:
            found.append(None)
    return tuple(found)


def tensor_parallel():
    """Return (case -> outcome of the first step, what is told), and (real peak, told peak) of a rank, in bytes."""
    import transformers
    from allocations import peak_of, tensors_of
    from transformers.distributed.configuration_utils import DistributedConfig

    from kbitlint.errors import KbitlintError
    from kbitlint.memory_result import OFF
    from kbitlint.model.memory.step_memory import measure
    from kbitlint.model.memory.tensor_parallel import split
    from kbitlint.model.trace.twin import twin_of
    from kbitlint.step_plan import StepPlan

    folder, world = sys.argv[3], dist.get_world_size()
    context = TrainingContext(autocast_dtype="float32", batch_size=1, seq_len=64)
    plain = transformers.AutoModelForCausalLM.from_pretrained

    def adapted(targets, **arguments):
        model = plain(folder, dtype=BF16, **arguments).requires_grad_(requires_grad=False)
        return get_peft_model(model, LoraConfig(r=8, target_modules=targets)).train()

    def parted(targets, **arguments):
        return adapted(targets, distributed_config=DistributedConfig(tp_size=world), **arguments)

    def told(targets, **arguments):
        twin = split(twin_of(adapted(targets, **arguments)), world)
        return measure("", twin, context, StepPlan(), modes=(OFF,), owned=True, device="cpu").steps[OFF].peak

    cases = {
        "columns": (["q_proj", "v_proj", "gate_proj"], {}),
        "rows": (["o_proj"], {}),
        "nf4": (["q_proj"], {"quantization_config": tiny.quantization()}),
        "int8": (["q_proj"], {"quantization_config": tiny.quantization("int8")}),
    }
    found = {}
    for name, (targets, arguments) in cases.items():
        try:
            model = parted(targets, **arguments)
            outcome = steps(model, model, 1)
        except (RuntimeError, AttributeError) as error:  # PEFT cannot attach
            outcome = str(error).splitlines()[0]
        try:
            refusal = None
            told(targets, **arguments)
        except KbitlintError as error:
            refusal = str(error)
        found[name] = (outcome, refusal)
        dist.barrier()
    model = parted(*cases["columns"][:1])
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], foreach=False)
    batch = training_batch(model, "cpu", 1, 64)

    def step():
        loss_of(model(**batch)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors_of(model, optimizer)]
    parts = {tensor.data_ptr(): tensor.nbytes for tensor in local}  # on the CPU, a part is a view of the mapped file
    return found, (sum(parts.values()) + statistics.median(peak_of(model, step) for _ in range(5)), told(cases["columns"][0]))


if __name__ == "__main__":
    main()
