"""Every trainer of the installed TRL: the verdict is that of the real steps, and nothing of the user's is touched."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter

import gloo
import peft
import pytest
import tiny
import torch
import transformers
import trl_trainers
from peft import LoraConfig
from torch import nn
from trl.trainer.utils import add_fused_lm_head

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.integrations.trainer import KbitlintCallback
from kbitlint.model.trace.trace import trace

#: what is true of the ordinary recipe: nf4, bf16, LoRA on all linear layers of a Llama of two layers
NORMS = {("KB101", "warning"): 5}
"""Its norms are bfloat16."""
HALF_ADAPTERS = {("KB105", "info"): 28}
"""TRL casts the adapters of quantized models to bfloat16."""
HOOKED_TWICE = {("KB302", "info"): 1}
"""TRL and transformers each add the hook for inputs that require grad."""
ORDINARY = NORMS | HALF_ADAPTERS
FOUND = {
    **dict.fromkeys(trl_trainers.RECIPES, ORDINARY),
    "RewardTrainer": NORMS | {("KB105", "info"): 30},  # the head is trained, too
    **dict.fromkeys(("TPOTrainer", "IWOPDTrainer", "A2POTrainer"), NORMS),  # these cast no adapter
    **dict.fromkeys(("OnlineDPOTrainer", "SDFTTrainer", "SDPOTrainer"), ORDINARY | HOOKED_TWICE),
    # these call PEFT's prepare, so that the norms are float32 and hand that on, which costs a tiny model little
    **dict.fromkeys(("CPOTrainer", "ORPOTrainer"), HOOKED_TWICE | {("KB103", "info"): 1}),
}
#: what is found when training begins: transformers has added its hook by then, where TRL did before it
BEGUN = {name: found if name in ("IWOPDTrainer", "A2POTrainer") else found | HOOKED_TWICE for name, found in FOUND.items()}
EVERYWHERE = {
    "KB403": "the training loop sets the mode itself",
    "KB708": "which GPU this rank trains on is not known",
}
"""Rules that have nothing to ask of a Trainer, and of a machine without several GPUs."""
UNOPTIMIZED = {"KB706": "no optimizer whose parameters could be told apart is at hand"}
"""A Trainer makes its optimizer when training begins."""
NO_REFERENCE = {
    "KB711": "no trainer with a reference model is at hand",
    "KB712": "no trainer with adapters and a reference is at hand",
}
NO_LABELS = dict.fromkeys(("KB713", "KB714", "KB715"), "no trainer whose first batch has labels is at hand")
"""The trainer makes the labels from a mask in its loss, or there is no completion before the step."""
NO_TOKENS = NO_LABELS | {"KB637": "no trainer whose first batch has token ids is at hand"}
"""The batch is of prompts as text."""
SKIPPED = {
    # without a reference, and with prompts or with tokens under other names: there is nothing for rules on a run to read
    **dict.fromkeys(trl_trainers.RECIPES, EVERYWHERE),
    **dict.fromkeys(
        ("SFTTrainer", "GKDTrainer", "GOLDTrainer", "IWOPDTrainer", "CPOTrainer", "ORPOTrainer"),
        EVERYWHERE | UNOPTIMIZED | NO_REFERENCE,
    ),
    **dict.fromkeys(("DPOTrainer", "DPOTrainer of bema_for_ref_model", "KTOTrainer"), EVERYWHERE | UNOPTIMIZED | NO_LABELS),
    **dict.fromkeys(("RewardTrainer", "TPOTrainer"), EVERYWHERE | UNOPTIMIZED | NO_REFERENCE | NO_LABELS),
    **dict.fromkeys(("RLOOTrainer", "OnlineDPOTrainer", "A2POTrainer"), EVERYWHERE | UNOPTIMIZED | NO_TOKENS),
}


def counted(report):
    return dict(Counter((violation.code, violation.severity.value) for violation in report.violations))


def state_of(model):
    """Values, versions, gradients, flags and addresses of all tensors, and what hangs on each module."""
    tensors = [
        (
            name,
            tensor._version,
            tensor.data_ptr(),
            tensor.dtype,
            tensor.requires_grad,
            None if tensor.grad is None else tensor.grad.tolist(),
            hash(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()),
        )
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]
    modules = [
        (name, module.training, list(vars(module)), len(module._forward_hooks)) for name, module in model.named_modules()
    ]
    return tensors, modules


@contextlib.contextmanager
def untouched(model):
    """Fail where a module of the model runs, or anything of it is other than before."""
    own, called = {id(module) for module in model.modules()}, []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, _: called.append(type(module).__name__) if id(module) in own else None
    )
    before = state_of(model)
    try:
        yield
    finally:
        hook.remove()
    assert called == []
    assert state_of(model) == before


def test_the_canary_sings():
    model = tiny.with_lora(tiny.load())

    with pytest.raises(AssertionError), untouched(model):
        model.get_base_model().model.norm(torch.zeros(1, 64))
    adapter = next(p for p in model.parameters() if p.requires_grad)
    with pytest.raises(AssertionError), untouched(model), torch.no_grad():
        adapter.add_(0)
    with pytest.raises(AssertionError), untouched(model):
        adapter.grad = torch.zeros_like(adapter)
    with untouched(model):
        pass


def test_every_trainer_of_the_installed_trl_is_held_here():
    assert set(trl_trainers.classes()) == set(trl_trainers.RECIPES) | set(trl_trainers.ELSEWHERE)


#: the trainers whose models differ most: one model, a head, a reference, a teacher, generations
DIFFERENT = ("SFTTrainer", "DPOTrainer", "RewardTrainer", "GKDTrainer", "GRPOTrainer")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DIFFERENT else pytest.mark.slow) for name in trl_trainers.RECIPES]
)
def test_the_verdict_on_a_trainer_is_what_its_real_steps_do(name, tmp_path):
    callback = KbitlintCallback()
    trainer = trl_trainers.build(name, tmp_path, callbacks=[callback])
    model = trainer.model

    with untouched(model):
        report = kbitlint.check(trainer)
        measured = kbitlint.memory(trainer)

    assert (counted(report), report.crashes) == (FOUND[name], ())
    assert {skip.code: skip.reason for skip in report.skips} == SKIPPED[name]
    for state in measured.states:
        assert state.failure is None
        plain, checkpointed = state.steps["no checkpointing"], state.steps["checkpointed"]
        assert plain.activations > checkpointed.activations > 0
        assert plain.peak > checkpointed.peak > state.resident["quantized weights"]

    gradients = trace(model, TrainingContext.from_trainer(trainer)).gradients
    before = {path: p.detach().clone() for path, p in model.named_parameters() if p.requires_grad}
    trainer.train()
    changed = {path for path, p in model.named_parameters() if p.requires_grad and not torch.equal(before[path], p)}
    assert len(gradients) == len(before)
    assert sum(gradient.arrives for gradient in gradients) == len(changed) == len(before)
    assert (counted(callback.report), callback.report.crashes) == (BEGUN[name], ())


def cut_in_layer_1(model):
    """A hook that cuts off what lies below the last layer: real steps then leave the first layer as it is."""
    (layer,) = [module for path, module in model.named_modules() if path.endswith("layers.1")]
    layer.register_forward_pre_hook(lambda _, args, kwargs: (tuple(value.detach() for value in args), kwargs), with_kwargs=True)


@pytest.mark.parametrize("name", ["SFTTrainer", "DPOTrainer", "GRPOTrainer"])
def test_a_planted_detach_is_named_under_trl_as_under_trainer(name, tmp_path):
    model = tiny.with_lora(tiny.load())
    cut_in_layer_1(model)
    args = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True, report_to=[])
    bare = kbitlint.check(transformers.Trainer(model=model, args=args), select="KB303")
    trainer = trl_trainers.build(name, tmp_path, gradient_checkpointing=False, rows=2)
    cut_in_layer_1(trainer.model)

    with untouched(trainer.model):
        report = kbitlint.check(trainer, select="KB303")

    assert report.violations == bare.violations
    assert [(v.code, v.severity.value, v.at.path) for v in report.violations] == [("KB303", "error", "model.layers.1")]
    before = {path: p.detach().clone() for path, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    kept = {path for path, p in trainer.model.named_parameters() if p.requires_grad and torch.equal(before[path], p)}
    assert kept == {path for path in before if ".layers.0." in path}


OTHERS = [name for name in trl_trainers.RECIPES if name not in DIFFERENT]


@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize(
    "names",
    [DIFFERENT, *(pytest.param(OTHERS[first::3], marks=pytest.mark.slow) for first in range(3))],
    ids=["different", "others, 1", "others, 2", "others, 3"],
)
def test_two_processes_that_wait_for_every_gradient_are_told_no_error_and_train(names):
    for found in gloo.run("trl_trainers_under_ddp", 2, *names):
        assert found == {name: ("ddp", False, BEGUN[name], (), 0) for name in names}


#: methods that attach to packed weights, and those that need weights that can be read
ON_PACKED = {
    "LoRA": lambda: LoraConfig(target_modules="all-linear"),
    "DoRA": lambda: LoraConfig(target_modules="all-linear", use_dora=True),
    "rank-stabilised, with a saved head": lambda: LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], total_step=10),
    "VeRA": lambda: peft.VeraConfig(target_modules=["q_proj", "o_proj"], r=4),
    "OFT": lambda: peft.OFTConfig(target_modules=["q_proj", "v_proj"], oft_block_size=4),
    "trainable tokens": lambda: peft.TrainableTokensConfig(token_indices=[1, 2]),
    "norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm", "post_attention_layernorm"]),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "P-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=4, task_type="CAUSAL_LM", encoder_hidden_size=16),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
    "LLaMA-Adapter": lambda: peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
}
ON_WEIGHTS = {
    "LoHa": lambda: peft.LoHaConfig(target_modules=["q_proj", "v_proj"]),
    "LoKr": lambda: peft.LoKrConfig(target_modules=["q_proj", "v_proj"]),
    "HRA": lambda: peft.HRAConfig(target_modules=["q_proj", "v_proj"]),
    "FourierFT": lambda: peft.FourierFTConfig(target_modules=["q_proj"], n_frequency=10),
    "BONE": lambda: peft.MissConfig(target_modules=["q_proj", "v_proj"], r=4),
}


#: TRL's fused head computes the loss from the weight of the head, which it casts itself: no edit of the module is needed
HEAD_IN_FLOAT32 = ("float32-module", "lm_head")


def beside_head(report):
    """The violations of a report, without the edit that TRL's fused head spares."""
    return [
        dataclasses.replace(
            violation,
            fix=dataclasses.replace(
                violation.fix,
                edits=tuple(edit for edit in violation.fix.edits if (edit.kind, edit.path) != HEAD_IN_FLOAT32),
            ),
        )
        if violation.fix is not None and violation.surface.value == "trace"
        else violation
        for violation in report.violations
    ]


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in ("LoRA", "IA3", "OFT", "prompt", "LoHa") else pytest.mark.slow)
        for method in ON_PACKED | ON_WEIGHTS
    ],
)
def test_what_trl_binds_changes_no_verdict_on_any_method_of_peft(method):
    """``add_fused_lm_head`` is what all of TRL's trainers for language models do to the model they are given."""
    make = (ON_PACKED | ON_WEIGHTS)[method]

    def adapted(*, bound):
        torch.manual_seed(0)
        model = tiny.load(kind="nf4" if method in ON_PACKED else "none")
        if bound:
            add_fused_lm_head(model)
        return peft.get_peft_model(model, make())

    bare, model = kbitlint.check(adapted(bound=False)), adapted(bound=True)

    with untouched(model):
        report = kbitlint.check(model)
        planned = kbitlint.plan(model, unsafe=True)

    assert (beside_head(report), report.skips, report.ran) == (beside_head(bare), bare.skips, bare.ran)
    assert planned == tuple(
        edit for edit in kbitlint.plan(adapted(bound=False), unsafe=True) if (edit.kind, edit.path) != HEAD_IN_FLOAT32
    )
    assert [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code] == []
