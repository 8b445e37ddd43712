"""KB535: arguments that a constructor refuses or ignores, and trainers that are constructed for the verdicts."""

from __future__ import annotations

import peft
import pytest
import tiny
import torch
import transformers
import trl
import trl_trainers
from script_cases import ADAPTED, IMPORTS, LOADED, OLD, PREPARED, RECIPE, findings, fixed_text, flagged_lines

from kbitlint.context import TrainingContext
from kbitlint.upstream.versions import installed, number

newest = pytest.mark.skipif(number(installed()["trl"]) < (1, 16), reason="the trainers of older versions differ")


def said(body, **how):
    return [(severity, message) for severity, _, message in findings("KB535", body, **how)]


def test_what_the_library_takes_is_clean():
    assert said(RECIPE) == []
    assert said("args = TrainingArguments('out', load_best_model_at_end=True, eval_strategy='steps', eval_steps=100)\n") == []
    assert said(LOADED + "SFTTrainer(model, SFTConfig('out'), peft_config=LoraConfig(), train_dataset=data).train()\n") == []


def test_an_unknown_value_decides_nothing():
    assert said("import cfg\nLoraConfig(target_parameters=cfg.parameters, lora_dropout=cfg.dropout)\n") == []
    assert said("LoraConfig(use_dora=True, lora_bias=True, **further)\n") == []
    assert said("import cfg\nTrainingArguments('out', fp16=cfg.half, bf16=not cfg.half)\n") == []


def test_a_pinned_older_version_without_the_check_is_clean():
    body = LOADED + PREPARED + ADAPTED + "SFTTrainer(model, peft_config=LoraConfig(), train_dataset=data).train()\n"

    assert said(body) == [
        (
            "error",
            "SFTTrainer raises a ValueError: You passed a `PeftModel` instance together with a `peft_config` to the trainer",
        )
    ]
    assert said(body, versions=OLD) == []


def test_a_branch_that_reaches_the_refusal_makes_a_warning():
    train = "SFTTrainer(model, peft_config=LoraConfig(), train_dataset=data).train()\n"
    message = "You passed a `PeftModel` instance together with a `peft_config` to the trainer"
    body = f"{LOADED}{PREPARED}if flag:\n    {ADAPTED}{train}"

    assert said(body) == [("warning", f"SFTTrainer raises a ValueError on some paths: {message}")]


def test_a_subclass_of_training_arguments_is_judged_as_its_base():
    body = "from dataclasses import dataclass\n@dataclass\nclass Mine(TrainingArguments):\n    bits: int = 4\n"

    assert said(body + "Mine('out', fp16=True, bf16=True)\n") == [
        ("error", "TrainingArguments raises a ValueError: At most one of fp16 and bf16 can be True, but not both")
    ]
    assert said(body + "Mine('out', bf16=True, bits=8)\n") == []


@pytest.mark.parametrize(("own", "count"), [('    optimizer: str = "adamw_torch"\n', 0), ("    other: int = 1\n", 1)])
def test_a_default_of_a_subclass_hides_the_inherited_one(own, count):
    head = "from dataclasses import dataclass\nfrom transformers import TrainingArguments\n"
    base = '@dataclass\nclass Base:\n    optimizer: str = "AdamW"\n\n@dataclass\nclass Own(Base):\n'
    use = 'own = Own()\nargs = TrainingArguments("out", optim=own.optimizer)\n'

    assert len(said(head + LOADED + base + own + use)) == count


def test_an_ignored_argument_is_removed(tmp_path):
    body = "config = LoraConfig(r=8, loftq_config={'loftq_bits': 4})\n"

    assert flagged_lines("KB535", body) == [("warning", "config = LoraConfig(r=8, loftq_config={'loftq_bits': 4})")]
    assert fixed_text("KB535", body, tmp_path, unsafe=False) == "config = LoraConfig(r=8)\n"


def test_a_refused_argument_is_removed_only_if_asked(tmp_path):
    body = "config = LoraConfig(\n    r=8,\n    target_parameters=['mlp.experts.down_proj'],\n    lora_dropout=0.05,\n)\n"

    assert fixed_text("KB535", body, tmp_path, unsafe=False) == body
    assert fixed_text("KB535", body, tmp_path) == body.replace("    lora_dropout=0.05,\n", "")


TRAINERS = {
    "a PeftModel and peft_config": ("SFT", True, {"peft_config": True}, {}),
    "quantization_config for a loaded model (refused)": ("DPO", False, {"quantization_config": True}, {}),
    "quantization_config for a loaded model (ignored)": ("SFT", False, {"quantization_config": True}, {}),
    "model_init_kwargs for a loaded model": ("SFT", False, {}, {"model_init_kwargs": {}}),
    "a synchronised reference": ("DPO", True, {}, {"sync_ref_model": True}),
    "an evaluation without data": ("SFT", False, {}, {"eval_strategy": "steps", "eval_steps": 5}),
    "the best checkpoint of no metric": ("SFT", False, {}, {"save_strategy": "best"}),
    "KTO of one example": ("KTO", True, {}, {"per_device_train_batch_size": 1}),
    "nothing wrong": ("SFT", False, {}, {}),
    "adapters on the head": ("DPO", "lm_head", {}, {}),
    "adapters on the head that SFT reads": ("SFT", "lm_head", {}, {}),
}


@newest
@pytest.mark.parametrize("case", TRAINERS.values(), ids=TRAINERS)
def test_the_verdict_on_a_trainer_is_what_its_constructor_does(case, caplog):
    name, adapted, further, arguments = case
    adapters = ("q_proj", "lm_head") if adapted == "lm_head" else ("q_proj",)
    body = LOADED + (f"model = get_peft_model(model, LoraConfig(target_modules={list(adapters)}))\n" if adapted else "")
    given = {"peft_config": "LoraConfig()", "quantization_config": "bnb"}
    extra = "".join(f", {key}={given[key]}" for key in further)
    settings = "".join(f", {key}={value!r}" for key, value in arguments.items())
    body += f"from trl import {name}Trainer, {name}Config\n" if name != "SFT" else ""
    body += f"{name}Trainer(model=model, args={name}Config('out'{settings}), train_dataset=data{extra}).train()\n"

    refusal = built(name, adapters if adapted else (), further, arguments)
    ignored = [record.getMessage() for record in caplog.records if "will be ignored" in record.getMessage()]

    verdicts = [message.partition(": ") for _, message in said(body)]
    assert [what.partition(" ")[2].split()[0] for what, _, _ in verdicts] == ["raises"] * bool(refusal) + ["ignores"] * len(
        ignored
    )
    for (what, _, message), real in zip(verdicts, [refusal] * bool(refusal) + ignored, strict=True):
        assert not refusal or type(refusal).__name__ in what
        assert message.split(" ... ")[0] in str(real)


def built(name, adapters, further, arguments):
    """Return the exception that the trainer's constructor raises around a tiny nf4 model; None if it raises none."""
    from datasets import Dataset

    model = tiny.load()
    if adapters:
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=list(adapters)))
    given = {"peft_config": peft.LoraConfig(), "quantization_config": tiny.quantization("nf4")}
    rows = {"SFT": trl_trainers.TEXT, "DPO": trl_trainers.PAIR, "KTO": trl_trainers.LABELLED}[name]
    quiet = {"report_to": "none", "use_cpu": True, "output_dir": str(tiny.checkpoint("llama").parent / "run")}
    if not adapters and "peft_config" not in further:
        model = tiny.load(kind="none")  # a Trainer refuses a quantized model without adapters, which is another rule's
    try:
        getattr(trl, f"{name}Trainer")(
            model=model,
            args=getattr(trl, f"{name}Config")(**quiet, **arguments),
            train_dataset=Dataset.from_list([rows] * 4),
            processing_class=trl_trainers.tokenizer(),
            **{key: given[key] for key in further},
        )
    except (ValueError, TypeError, NotImplementedError) as error:
        return error
    return None


@newest
def test_prefix_tuning_is_refused_where_layers_checkpoint():
    body = (
        LOADED + PREPARED + "model = get_peft_model(model, PrefixTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=4))\n"
    )
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.prepare_model_for_kbit_training(tiny.load())

    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        peft.get_peft_model(model, config)
    assert said(body) == [("error", "get_peft_model raises a ValueError: does not work with gradient checkpointing")]
    off = body.replace(", gradient_checkpointing_kwargs=", ", use_gradient_checkpointing=False, gradient_checkpointing_kwargs=")
    assert said(off) == []


@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="the versions of the script are those of transformers 5")
def test_a_task_wrapper_passes_input_ids_to_models_that_take_none():
    body = LOADED.replace("AutoModelForCausalLM", "WhisperForConditionalGeneration") + PREPARED
    body = "from transformers import WhisperForConditionalGeneration\n" + body
    attached = body + "model = get_peft_model(model, LoraConfig(target_modules=['q_proj']{}))\n"
    sizes = {f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(d_model=32, vocab_size=64, max_source_positions=8, **sizes, **tokens)
    model = peft.get_peft_model(
        transformers.WhisperForConditionalGeneration(config),
        peft.LoraConfig(target_modules=["q_proj"], task_type="SEQ_2_SEQ_LM"),
    )

    with pytest.raises(TypeError, match="input_ids"):
        model(input_features=transformers.WhisperFeatureExtractor()([0.0] * 160, return_tensors="pt").input_features[..., :16])
    assert [severity for severity, _ in said(attached.replace("{}", ", task_type='SEQ_2_SEQ_LM'"))] == ["error"]
    assert said(attached.replace("{}", "")) == []


def test_each_call_is_reported_at_the_place_of_the_argument():
    assert flagged_lines("KB535", "LoraConfig(\n    r=8,\n    bias='some',\n)\n") == [("error", "bias='some',")]


@pytest.mark.parametrize(
    ("before", "written", "count"),
    [
        ("four = os.environ.get('FOUR', '1')\n", "four", 1),
        ("four = os.getenv('FOUR', 'true')\n", "four", 1),
        ("def env(name, default=None):\n    value = os.environ.get(name, default)\n    return value\n", "env('FOUR', '1')", 1),
        ("", "os.environ['FOUR']", 1),
        ("p = argparse.ArgumentParser()\np.add_argument('--four', required=True)\na = p.parse_args()\n", "a.four", 1),
        ("", "os.environ['FOUR'] == '1'", 0),
        ("four = os.environ.get('FOUR', '1') == '1'\n", "four", 0),
        ("", "bool(int(os.environ.get('FOUR', '1')))", 0),
        ("", "os.environ['FOUR'].lower() in ('1', 'true')", 0),
        ("", "os.environ.get('FOUR', True)", 0),
        (
            "p = argparse.ArgumentParser()\np.add_argument('--four', required=True, type=flag)\na = p.parse_args()\n",
            "a.four",
            0,
        ),
        ("p = argparse.ArgumentParser()\np.add_argument('--four', default='1', type=flag)\na = p.parse_args()\n", "a.four", 0),
    ],
)
def test_a_text_of_the_environment_is_no_flag(before, written, count):
    body = f"import argparse\n{before}bnb = BitsAndBytesConfig(load_in_4bit={written}, bnb_4bit_quant_type='nf4')\n"
    message = "BitsAndBytesConfig raises a TypeError: load_in_4bit must be a boolean"

    assert said(body) == [("error", message)] * count


NUMBERS = ["learning_rate", "max_steps", "warmup_steps", "gradient_accumulation_steps"]


@pytest.mark.parametrize("name", [*NUMBERS, "per_device_train_batch_size"])
def test_a_text_is_no_number_for_training(name, tmp_path):
    example = {"input_ids": [1, 2, 3], "labels": [1, 2, 3]}
    with pytest.raises((TypeError, ValueError)) as caught:  # noqa: PT012  # which of the two raises depends on the argument
        arguments = transformers.TrainingArguments(tmp_path, use_cpu=True, report_to=[], **{"max_steps": 1, name: "2"})
        transformers.Trainer(model=tiny.load(kind="none"), args=arguments, train_dataset=[example] * 4).train()

    (verdict,) = said(f"TrainingArguments('out', {name}=os.environ['{name.upper()}'])\n")
    assert verdict[1].partition(": ")[2].split(" ... ")[0] in str(caught.value)
    assert type(caught.value).__name__ in verdict[1]
    assert said(f"TrainingArguments('out', {name}=float(os.environ['{name.upper()}']))\n") == []


def test_values_that_meet_in_the_call_only_are_reported_there():
    head = "from dataclasses import asdict, dataclass\n@dataclass\nclass Bits:\n    load_in_8bit: bool = True\n"
    body = (
        head + "    load_in_4bit: bool = False\n\n\nbits = Bits(load_in_4bit=True)\nbnb = BitsAndBytesConfig(**asdict(bits))\n"
    )
    one = "bits = {'load_in_8bit': True, 'load_in_4bit': True}\nbnb = BitsAndBytesConfig(**bits)\n"

    assert flagged_lines("KB535", body) == [("error", "bnb = BitsAndBytesConfig(**asdict(bits))")]
    assert flagged_lines("KB535", body.replace("Bits(load_in_4bit=True)", "Bits(load_in_4bit=True, load_in_8bit=False)")) == []
    assert flagged_lines("KB535", one) == [("error", one.partition("\n")[0])]


LATE = (
    LOADED.replace(", quantization_config=bnb", "")
    + """\
settings = SFTConfig('out')
settings.model_init_kwargs = {"quantization_config": bnb}
SFTTrainer(model=model, args=settings, peft_config=LoraConfig(), train_dataset=data).train()
"""
)


def test_arguments_that_come_too_late_are_reported_where_they_are_set():
    ((severity, line, message),) = findings("KB535", LATE)

    assert (severity, line) == ("warning", 'settings.model_init_kwargs = {"quantization_config": bnb}')
    assert message.startswith("SFTTrainer ignores args.model_init_kwargs: You passed")
    assert findings("KB535", LATE.replace("model=model", "model='org/base'")) == []


LOAD = "model = AutoModelForCausalLM.from_pretrained({}, quantization_config=bnb{})\n"
CONFIGURED = LOADED.partition("model =")[0]
KINDS = "from peft import IA3Config, LNTuningConfig, RoadConfig\n"


@pytest.mark.parametrize(
    ("name", "further", "message"),
    [
        ("'EleutherAI/gpt-j-6b'", ", attn_implementation='sdpa'", "scaled_dot_product_attention"),
        ("'google/gemma-2-9b'", ", attn_implementation='sdpa'", "scaled_dot_product_attention"),
        ("'bigscience/bloom-7b1'", ", attn_implementation='flash_attention_2'", "Flash Attention"),
        ("'EleutherAI/gpt-j-6b'", ", attn_implementation='eager'", ""),
        ("'meta-llama/Llama-3.1-8B'", ", attn_implementation='flash_attention_2'", ""),
        ("'EleutherAI/gpt-j-6b'", ", attn_implementation='sdpa', trust_remote_code=True", ""),
        ("name", ", attn_implementation='sdpa'", ""),
    ],
)
def test_a_class_without_a_kind_of_attention_refuses_it(name, further, message):
    found = said(CONFIGURED + LOAD.format(name, further))

    assert [severity for severity, text in found if message in text] == ["error"] * bool(message)
    assert len(found) == bool(message)


@pytest.mark.parametrize(
    ("name", "config", "refused"),
    [
        ("ibm-granite/granite-3.1-8b-base", "LoraConfig(r=8)", True),
        ("Qwen/Qwen2.5-7B", "LoraConfig(r=8)", False),
        ("ibm-granite/granite-3.1-8b-base", "LoraConfig(r=8, target_modules=['q_proj'])", False),
        ("microsoft/Phi-3-mini-4k-instruct", "LNTuningConfig()", True),
        ("meta-llama/Llama-3.1-8B", "LNTuningConfig()", False),
        ("stabilityai/stablelm-2-1_6b", "IA3Config(feedforward_modules=[])", True),
        ("lab/unknown", "LoraConfig(r=8)", False),
    ],
)
def test_peft_knows_the_targets_of_some_types_only(name, config, refused):
    body = CONFIGURED + LOAD.format(repr(name), "") + KINDS + f"model = get_peft_model(model, {config})\n"

    assert said(body) == [("error", "get_peft_model raises a ValueError: Please specify `target_modules`")] * refused


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ("model = get_peft_model(model, RoadConfig(target_modules=['q_proj']), mixed=True)\n", "get_peft_model"),
        ("model = get_peft_model(model, LoraConfig(), mixed=False)\n", ""),
        ("SFTTrainer(model=model, args=SFTConfig('out', padding_free=True), train_dataset=data).train()\n", "SFTTrainer"),
        ("SFTTrainer(model=model, args=SFTConfig('out', padding_free=True, packing=True), train_dataset=data).train()\n", ""),
        (
            "SFTTrainer(model=model, args=SFTConfig('out', padding_free=True, max_length=None), train_dataset=data).train()\n",
            "",
        ),
    ],
)
def test_kinds_that_do_not_mix_and_lengths_that_are_not_enforced(body, refused):
    found = said(LOADED + PREPARED + KINDS + body)

    assert [(severity, text.partition(" ")[0]) for severity, text in found] == [("error", refused)] * bool(refused)


DPO = "from trl import DPOConfig, DPOTrainer\nDPOTrainer(model, args=DPOConfig('out'{}), train_dataset=data{}).train()\n"
GRPO = (
    "from trl import GRPOConfig, GRPOTrainer\ndef one(completions, **kwargs):\n    return [len(c) for c in completions]\n"
    "GRPOTrainer(model, reward_funcs=[one, one], args=GRPOConfig('out'{}), train_dataset=data).train()\n"
)
NO_TEMPERATURE = (
    "GRPOTrainer raises a ValueError when it generates: has to be a strictly positive float,"
    " otherwise your next token scores will be invalid"
)
ONE_LABEL = "RewardTrainer raises a ValueError: "
ONE_LABEL += "but reward models require `num_labels=1` to output a single scalar reward per sequence"
HEADED = LOADED.replace("CausalLM.", "SequenceClassification.").replace('"org/base"', '"Qwen/Qwen2.5-7B"{}')
REWARD = "from transformers import AutoModelForSequenceClassification\nfrom trl import RewardTrainer\n" + HEADED
REWARD += "RewardTrainer(model, train_dataset=data, peft_config=LoraConfig(task_type={})).train()\n"
WRAPPED = LOADED.replace("ForCausalLM.", ".").replace('"org/base"', '"{}"')
WRAPPED = "from transformers import AutoModel\n" + WRAPPED + "get_peft_model(model, LoraConfig(task_type='{}'))\n"


@pytest.mark.parametrize(
    ("wrong", "message", "right"),
    [
        (DPO.format(", loss_type='kto_pair'", ""), "DPOTrainer raises a ValueError when it trains: Unknown loss type:",
         DPO.format(", loss_type='ipo'", "")),
        (DPO.format(", loss_type='exo_pair'", ""),
         "DPOTrainer raises a ValueError: Label smoothing must be greater than 0.0 when using 'exo_pair' loss",
         DPO.format(", loss_type='exo_pair', label_smoothing=1e-3", "")),
        (DPO.format(", loss_type='nca_pair', f_divergence_type='js_divergence'", ""),
         "DPOTrainer raises a ValueError: is only supported for the following loss types",
         DPO.format(", loss_type='hinge', f_divergence_type='js_divergence'", "")),
        (GRPO.format(", reward_weights=[1.0]"),
         "GRPOTrainer raises a ValueError: Number of reward weights () must match number of reward functions ()",
         GRPO.format(", reward_weights=[1.0, 2.0]")),
        (GRPO.format(", temperature=0.0"), NO_TEMPERATURE, GRPO.format(", temperature=0.7")),
        (REWARD.format(", num_labels=2", "'SEQ_CLS'"),
         ONE_LABEL,
         REWARD.format(", num_labels=1", "'SEQ_CLS'")),
        (REWARD.format("", "'SEQ_CLS'"),
         ONE_LABEL,
         REWARD.replace("Qwen/Qwen2.5-7B", "org/base").format("", "'SEQ_CLS'")),
        (REWARD.format(", num_labels=1", "'CAUSAL_LM'"),
         "RewardTrainer raises an AttributeError: object has no attribute 'prepare_inputs_for_generation'",
         REWARD.format(", num_labels=1", "'SEQ_CLS'")),
        (WRAPPED.format("mistralai/Mistral-7B-v0.1", "CAUSAL_LM"),
         "get_peft_model raises an AttributeError: object has no attribute 'prepare_inputs_for_generation'",
         WRAPPED.replace("_pretrained(", "_pretrained(trust_remote_code=True, pretrained_model_name_or_path=")
         .format("zai-org/glm-4-9b", "CAUSAL_LM")),
    ],
)  # fmt: skip
def test_what_trainers_of_preferences_and_rewards_refuse(wrong, message, right):
    assert said(wrong) == [("error", message)]
    assert said(right) == []


@newest
def test_peft_needs_a_model_that_generates_for_its_task_type():
    base = transformers.AutoModel.from_config(tiny.load("llama", kind="none").config)

    with pytest.raises(AttributeError, match="prepare_inputs_for_generation"):
        peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM"))


@pytest.mark.parametrize(
    ("loader", "checkpoint", "refused"),
    [
        ("AutoModelForCausalLM", "Qwen/Qwen2-VL-7B-Instruct", 1),
        ("AutoModelForCausalLM", "google/flan-t5-xl", 1),
        ("AutoModelForCausalLM", "Qwen/Qwen2-7B-Instruct", 0),
        ("AutoModelForSeq2SeqLM", "meta-llama/Llama-3.1-8B", 1),
        ("AutoModelForSeq2SeqLM", "facebook/bart-large", 0),
        ("AutoModelForImageTextToText", "mistralai/Mistral-7B-v0.1", 1),
        ("AutoModelForSequenceClassification", "openai/whisper-small", 1),
        ("AutoModelForCausalLM", "org/base", 0),
    ],
)
def test_an_auto_class_refuses_types_that_it_does_not_know(loader, checkpoint, refused):
    imports = IMPORTS + f"from transformers import {loader}\n" + LOADED.split("\n")[0] + "\n"
    load = f"model = {loader}.from_pretrained('{checkpoint}', quantization_config=bnb)\n"
    remote = load.replace("=bnb", "=bnb, trust_remote_code=True")
    found = findings("KB535", load, imports=imports)

    assert [(severity, message.partition(":")[0]) for severity, _, message in found] == [
        ("error", "from_pretrained raises a ValueError")
    ] * refused
    assert findings("KB535", remote, imports=imports) == []


def test_the_batches_of_all_processes_hold_whole_groups():
    imports = IMPORTS + "from trl import GRPOConfig, GRPOTrainer\n" + LOADED
    script = "args = GRPOConfig('out', per_device_train_batch_size=1, gradient_accumulation_steps=2, num_generations=8)\n"
    message = "generation_batch_size () must be divisible by num_generations ()"
    raised = [severity_of(script, imports, processes) for processes in (None, 1, 2, 4)]
    fewer = "args = GRPOConfig('out', gradient_accumulation_steps=2, num_generations=4)\n"

    assert raised == [
        [("warning", f"GRPOConfig raises a ValueError with one process: {message}")],
        [("error", f"GRPOConfig raises a ValueError: {message}")],
        [("error", f"GRPOConfig raises a ValueError: {message}")],
        [],
    ]
    assert severity_of(fewer, imports, None) == []
    assert severity_of("rank = int(os.environ['LOCAL_RANK'])\n" + script, imports, None) == []
    assert severity_of("from unsloth import FastLanguageModel\n" + script, imports, None) == []


def severity_of(script, imports, processes):
    found = findings("KB535", script, imports=imports, context=TrainingContext(world_size=processes))
    return [(severity, message) for severity, _, message in found]


ADAPTED_BY = {
    "peft": "model = peft.get_peft_model(model, {})\n",
    "trl": "SFTTrainer(model=model, args=SFTConfig('out'), train_dataset=data, peft_config={}).train()\n",
}


@pytest.mark.parametrize("adapted", ADAPTED_BY.values(), ids=ADAPTED_BY)
@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("bigcode/starcoder2-3b", "peft.LNTuningConfig()", "Please specify `target_modules`"),
        ("bigcode/starcoder2-3b", "peft.LNTuningConfig(target_modules=['norm'])", None),
        ("google/gemma-2-2b", "peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1)", "Unsupported model type"),
        ("meta-llama/Llama-3.2-1B", "peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1)", None),
    ],
)
def test_a_config_whose_targets_peft_does_not_know_is_refused_by_all_that_attach_it(name, config, message, adapted):
    found = said("import peft\n" + LOADED.replace("org/base", name) + adapted.format(config))

    assert [(severity, message in text) for severity, text in found] == ([("error", True)] if message else [])


@newest
@pytest.mark.parametrize(
    ("name", "factor", "collator", "told"),
    [
        ("google-t5/t5-small", "0.1", "", True),
        ("google-t5/t5-small", "0.0", "", False),
        ("google-t5/t5-small", "0.1", ", data_collator=DataCollatorForSeq2Seq(tokenizer, model=model)", False),
        ("facebook/bart-base", "0.1", "", False),
    ],
)
def test_label_smoothing_takes_the_labels_of_which_t5_makes_its_decoders_input(name, factor, collator, told, tmp_path):
    body = (
        LOADED.replace("org/base", name).replace("ForCausalLM", "ForSeq2SeqLM").replace("AutoModel", "transformers.AutoModel")
    )
    body += f"args = TrainingArguments('out', label_smoothing_factor={factor})\n"
    body += f"Trainer(model=model, args=args, train_dataset=data{collator}).train()\n"

    assert [severity for severity, _ in said("import transformers\n" + body)] == ["error"] * told
    if collator:
        return
    family = "t5 (encoder-decoder)" if "t5" in name else "bart (encoder-decoder)"
    model = tiny.with_lora(tiny.load(family))
    arguments = transformers.TrainingArguments(
        tmp_path, label_smoothing_factor=float(factor), max_steps=1, use_cpu=True, report_to="none", save_strategy="no"
    )
    row = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=[row] * 2)
    if told:
        with pytest.raises(ValueError, match="You must specify exactly one of input_ids or inputs_embeds"):
            trainer.train()
    else:
        trainer.train()


@pytest.mark.parametrize(
    ("made", "count"),
    [("torch.optim.AdamW(model.parameters(), lr={})", 1), ("PagedAdamW8bit(model.parameters(), lr={})", 1), ("Own({})", 0)],
)
def test_an_optimizer_compares_its_rate_with_a_number(made, count):
    imports = IMPORTS + "import yaml\nfrom bitsandbytes.optim import PagedAdamW8bit\n"
    loaded = LOADED + ADAPTED + "cfg = yaml.safe_load('lr: 2e-4')\n"
    run = "\nloss = model(**batch).loss\nloss.backward()\n"

    assert [one for one, *_ in findings("KB535", loaded + made.format("cfg['lr']") + run, imports=imports)] == ["error"] * count
    assert findings("KB535", loaded + made.format("float(cfg['lr'])") + run, imports=imports) == []
    with pytest.raises(TypeError, match="<="):
        torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr="2e-4")
