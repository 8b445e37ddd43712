"""A missing hook is an error exactly where it cuts the gradient; each case is held against a real step."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from script_cases import ADAPTED, LOADED, LOOP, OLD, PREPARED, TRAINED, findings

import kbitlint
from kbitlint.context import Checkpointing, TrainingContext
from kbitlint.violation import Consequence

CODE = "KB301"


def found(model, **options):
    return [v.at.path for v in kbitlint.check(model, select=CODE, **options).violations]


def adapted(family="llama", **lora):
    model = tiny.with_lora(tiny.prepared(family), **lora)
    model.train()
    return model


@pytest.mark.parametrize(("head", "consequence"), [((), Consequence.FAILS), (("lm_head",), Consequence.TRAINS_NOTHING)])
def test_a_step_in_which_no_parameter_has_a_gradient_raises(head, consequence):
    model = adapted(target_modules=["q_proj", *head])
    tiny.bind_reentrant(model)

    violations = kbitlint.check(model, select=CODE).violations

    assert {violation.consequence for violation in violations} == {consequence}
    assert (tiny.step(model).error is not None) == (consequence is Consequence.FAILS)


@pytest.mark.parametrize("keywords", [{}, {"use_reentrant": True}])
def test_reentrant_layers_without_anything_upstream_are_flagged(keywords):
    model = adapted()
    tiny.bind_reentrant(model, **keywords)

    assert found(model) == ["model.layers.0", "model.layers.1"]
    assert tiny.step(model).error is not None


def test_non_reentrant_layers_need_no_hook():
    model = adapted()
    tiny.bind_reentrant(model, use_reentrant=False)

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_a_hook_on_the_embeddings_feeds_the_layers():
    model = adapted()
    tiny.bind_reentrant(model)
    model.enable_input_require_grads()

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_a_hook_is_told_by_what_it_does():
    model = adapted()
    tiny.bind_reentrant(model)

    def something_else(module, args, output):
        output.requires_grad_(True)

    model.get_input_embeddings().register_forward_hook(something_else)

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_a_hook_that_only_looks_like_one_does_not_count():
    model = adapted()
    tiny.bind_reentrant(model)

    def make_inputs_require_grads(module, args, output):
        return output

    model.get_input_embeddings().register_forward_hook(make_inputs_require_grads)

    assert found(model) == ["model.layers.0", "model.layers.1"]
    assert tiny.step(model).error is not None


def test_an_adapter_on_the_embeddings_feeds_the_layers():
    model = adapted(target_modules=["embed_tokens", "q_proj"])
    tiny.bind_reentrant(model)

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_an_adapter_on_the_head_does_not_help_the_layers_and_hides_the_failure():
    model = adapted(target_modules=["lm_head", "q_proj"])
    tiny.bind_reentrant(model)
    taken = tiny.step(model)

    assert found(model) == ["model.layers.0", "model.layers.1"]
    assert (taken.error, [name for name in taken.arrived if ".layers." in name]) == (None, [])


def test_layers_without_trainable_parameters_cut_nothing():
    model = adapted(target_modules=["lm_head"])
    tiny.bind_reentrant(model)

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_only_the_layers_with_adapters_are_named():
    model = adapted(target_modules=r".*layers\.1\..*q_proj")
    tiny.bind_reentrant(model)

    assert found(model) == ["model.layers.1"]
    assert tiny.step(model).error is not None


def test_a_frozen_vision_tower_is_not_the_text_decoders_upstream():
    model = adapted("llava (vision-language)", target_modules=r".*language_model.*q_proj")
    tiny.bind_reentrant(model)

    assert found(model) == ["model.language_model.layers.0", "model.language_model.layers.1"]
    assert tiny.step(model).error is not None


def test_an_encoder_decoder_is_fed_by_the_embeddings_that_its_halves_run():
    """transformers 4 hooks the shared embedding, which neither half of BART runs."""
    model = adapted("bart (encoder-decoder)")
    tiny.bind_reentrant(model)
    model.enable_input_require_grads()

    assert (found(model) == [], tiny.step(model).trains) == (tiny.TRANSFORMERS_5, tiny.TRANSFORMERS_5)


def test_a_loop_that_enables_checkpointing_rebinds_the_layers():
    model = adapted()
    tiny.bind_reentrant(model)
    contexts = {
        "non-reentrant": Checkpointing(enabled=True, use_reentrant=False),
        "reentrant with hook": Checkpointing(enabled=True, use_reentrant=True, installs_hook=True),
        "reentrant without": Checkpointing(enabled=True, use_reentrant=True),
    }

    verdicts = {name: found(model, context=TrainingContext(gradient_checkpointing=loop)) for name, loop in contexts.items()}

    layers = ["model.layers.0", "model.layers.1"]
    assert verdicts == {"non-reentrant": [], "reentrant with hook": [], "reentrant without": layers}


class _OldLayer(torch.nn.Module):
    """A layer as remote code writes it: it calls torch's checkpoint itself."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.gradient_checkpointing = True

    def forward(self, hidden_states, **kwargs):
        if self.gradient_checkpointing and self.training:
            return torch.utils.checkpoint.checkpoint(lambda x: self.layer(x, **kwargs), hidden_states)
        return self.layer(hidden_states, **kwargs)


def test_where_the_models_own_code_checkpoints_the_hook_is_the_fix():
    model = adapted()
    layers = model.get_base_model().model.layers
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = False
        layers[index] = _OldLayer(layer)
    model.train()

    assert found(model) == ["model.layers.0", "model.layers.1"]
    assert tiny.step(model).error is not None

    kbitlint.fix(model, select=CODE)

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_layers_at_the_top_of_a_module_have_no_stack_to_stand_beside():
    from kbitlint.model.inspect.walk import collect
    from kbitlint.registry import find

    layer = adapted().get_base_model().model.layers[0]
    layer.gradient_checkpointing = True
    layer._gradient_checkpointing_func = functools.partial(torch.utils.checkpoint.checkpoint)
    holder = torch.nn.ModuleDict({"first": torch.nn.Linear(4, 4), "layer": layer})
    holder["first"].requires_grad_(False)

    assert [v.at.path for v in find(CODE).check_model(collect(holder), TrainingContext())] == ["layer"]


def test_a_layer_is_fed_by_those_before_it_that_train_without_checkpointing():
    model = adapted()
    tiny.bind_reentrant(model)
    model.get_base_model().model.layers[0].gradient_checkpointing = False

    assert (found(model), tiny.step(model).trains) == ([], True)


def test_a_layer_is_not_fed_by_those_after_it():
    model = adapted()
    tiny.bind_reentrant(model)
    model.get_base_model().model.layers[1].gradient_checkpointing = False
    taken = tiny.step(model)

    assert found(model) == ["model.layers.0"]
    assert (taken.error, {name for name in taken.arrived if ".layers.0." in name}) == (None, set())


@pytest.mark.parametrize("before", [True, False])
def test_where_attributes_do_not_tell_the_order_they_warn_and_the_trace_decides(before):
    """A trainable module beside the stack may run before the layers or after them; attributes cannot tell."""
    model = adapted()
    tiny.bind_reentrant(model)
    decoder = model.get_base_model().model
    decoder.beside = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
    run = lambda module, args, output: decoder.beside(output)  # noqa: E731  # one hook, two places
    (decoder.embed_tokens if before else decoder.norm).register_forward_hook(run)
    taken = tiny.step(model)

    attributes = kbitlint.check(model, select=CODE, trace=False).violations
    traced = kbitlint.check(model, select=CODE).violations

    layers = ["model.layers.0", "model.layers.1"]
    assert [(v.at.path, v.severity.value) for v in attributes] == [(layer, "warning") for layer in layers]
    assert attributes[0].message.endswith("requires grad, unless model.beside runs before it")
    assert [(v.at.path, v.severity.value) for v in traced] == [(layer, "error") for layer in layers if not before]
    assert bool([name for name in taken.arrived if ".layers." in name]) is before


def test_a_cut_that_only_the_trace_shows_says_so():
    """A hook after the one that makes the embeddings require grad takes that back."""
    model = adapted()
    tiny.bind_reentrant(model, use_reentrant=True)
    model.get_base_model().enable_input_require_grads()
    model.get_base_model().model.embed_tokens.register_forward_hook(lambda module, args, output: output.detach())
    (first, second) = kbitlint.check(model, select=CODE).violations

    assert kbitlint.check(model, select=CODE, trace=False).violations == ()
    assert (first.at.path, second.at.path) == ("model.layers.0", "model.layers.1")
    assert first.message.endswith("nothing before it requires grad (only the traced step shows it)")
    assert "does not require grad" in tiny.step(model).error


def test_a_step_that_stops_before_any_gradient_is_a_skip():
    model = adapted()
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, args: (layer.self_attn.q_proj.weight @ args[0], *args[1:]))

    skips = kbitlint.check(model, select=CODE).skips
    assert [(skip.code, skip.surface.value, skip.reason) for skip in skips] == [
        (CODE, "trace", "the step stops before a gradient could arrive")
    ]


class SoftPrompt(torch.nn.Module):
    """A wrapper that puts trained embeddings before those of the text."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm
        self.prompt = torch.nn.Parameter(torch.zeros(4, 64, dtype=torch.bfloat16))

    def forward(self, input_ids, labels):
        embedded = self.lm.get_input_embeddings()(input_ids)
        embedded = torch.cat([self.prompt.expand(len(input_ids), -1, -1), embedded], dim=1)
        padding = labels.new_full((len(labels), 4), -100)
        return self.lm(inputs_embeds=embedded, labels=torch.cat([padding, labels], dim=1))


class ValueHead(torch.nn.Module):
    """A wrapper that reads what the layers give."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm
        self.head = torch.nn.Linear(256, 1)

    def forward(self, input_ids, _):
        return self.head(self.lm(input_ids=input_ids).logits.float()).mean()


@pytest.mark.parametrize(("wrapper", "severity", "feeds"), [(SoftPrompt, "warning", True), (ValueHead, "error", False)])
def test_a_wrapper_that_feeds_the_layers_is_told_from_one_that_reads_them(wrapper, severity, feeds):
    """The attributes alone cannot exclude that the prompt feeds the layers; the traced step shows that it does."""
    lm = adapted()
    tiny.bind_reentrant(lm)
    model = wrapper(lm)
    model.train()
    tokens = torch.randint(0, 200, (2, 8))
    output = model(tokens, tokens)
    (output if isinstance(output, torch.Tensor) else output.loss).backward()

    attributes, traced = (kbitlint.check(model, select=CODE, trace=trace).violations for trace in (False, True))

    arrived = [name for name, p in model.named_parameters() if ".layers." in name and p.grad is not None]
    assert {v.severity.value for v in attributes} == {severity}
    assert {v.severity.value for v in traced} == (set() if feeds else {severity})
    assert bool(arrived) is feeds


def test_a_pre_hook_of_a_layer_feeds_it_where_it_runs_before_the_checkpoint():
    model = adapted()
    tiny.bind_reentrant(model)
    first = model.get_base_model().model.layers[0]
    first.register_forward_pre_hook(lambda module, args: (args[0].requires_grad_(True), *args[1:]))

    assert (found(model) == [], tiny.step(model).trains) == (tiny.TRANSFORMERS_5, tiny.TRANSFORMERS_5)


@pytest.mark.parametrize("whole", [True, False])
def test_under_torch_compile_it_is_skipped_and_paths_stay_the_users_own(whole):
    model = adapted()
    tiny.bind_reentrant(model)
    layers = model.get_base_model().model.layers
    if not whole:
        for index, layer in enumerate(layers):
            layers[index] = torch.compile(layer, backend="eager")
    compiled = torch.compile(model, backend="eager") if whole else model

    report = kbitlint.check(compiled)

    skipped = {skip.code: skip.reason for skip in report.skips}
    assert skipped[CODE] == "torch.compile decides how the checkpoints run"
    assert tiny.codes(report) == {("KB401", "model.layers.0"), ("KB401", "model.layers.1")}
    assert kbitlint.fix(compiled).violations == ()


# ---------------------------------------------------------------------------------------------------- source


ENABLE = "model.gradient_checkpointing_enable()\n"


def test_transformers_4_checkpoints_reentrantly_and_installs_no_hook():
    assert findings("KB301", LOADED + ENABLE + ADAPTED + LOOP, versions=OLD) == [
        (
            "error",
            ENABLE.strip(),
            "no gradient reaches its adapters: the layers checkpoint reentrantly and nothing before them requires grad",
        )
    ]


@pytest.mark.parametrize(
    ("script", "how"),
    [
        pytest.param(LOADED + ENABLE + ADAPTED + LOOP, {}, id="transformers 5"),
        pytest.param(LOADED + ENABLE + "model.enable_input_require_grads()\n" + ADAPTED + LOOP, {"versions": OLD}, id="hook"),
        pytest.param(LOADED + PREPARED + ADAPTED + LOOP, {"versions": OLD}, id="without reentry"),
        pytest.param(
            LOADED + "model = prepare_model_for_kbit_training(model)\n" + ADAPTED + LOOP, {"versions": OLD}, id="prepared"
        ),
        pytest.param(LOADED + ENABLE + LOOP, {"versions": OLD}, id="no adapters"),
        pytest.param(
            LOADED
            + "args = TrainingArguments('out', gradient_checkpointing=True)\n"
            + "SFTTrainer(model, args=args, peft_config=LoraConfig()).train()\n",
            {"versions": OLD},
            id="TRL prepared it before version 1",
        ),
        pytest.param(ENABLE + ADAPTED + LOOP, {"versions": OLD}, id="unknown model"),
    ],
)
def test_source_look_alikes(script, how):
    assert findings("KB301", script, **how) == []


FLOAT = "model = AutoModelForCausalLM.from_pretrained('/models/base', dtype=torch.bfloat16)\n"
ASKED = TRAINED.replace("bf16", "gradient_checkpointing=True, bf16")


def test_an_unquantized_model_that_checkpoints_after_it_is_wrapped_gets_no_hook():
    told = "no gradient reaches its adapters: the layers checkpoint reentrantly and nothing before them requires grad"

    assert findings("KB301", FLOAT + ADAPTED + ASKED, versions=OLD) == [("error", ASKED.strip(), told)]
    assert findings("KB301", FLOAT + "model.gradient_checkpointing_enable()\n" + ADAPTED + ASKED, versions=OLD) == []
    assert findings("KB301", FLOAT + ADAPTED + ASKED) == []  # transformers 5 checkpoints without reentry
    assert findings("KB301", FLOAT + ADAPTED + "model.enable_input_require_grads()\n" + ASKED, versions=OLD) == []


@pytest.mark.parametrize(("first", "learns"), [(False, False), (True, True)])
def test_peft_hooks_an_unquantized_model_that_checkpoints_already(first, learns):
    model = tiny.load(kind="none")
    if first:
        tiny.bind_reentrant(model)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    if not first:
        tiny.bind_reentrant(model.get_base_model())

    assert tiny.step(model).trains is learns
