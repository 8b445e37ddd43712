"""What PEFT's LoRA, AdaLoRA and functions refuse or ignore: PEFT 0.21, ``tuners/lora/`` and ``peft_model.py``."""

from __future__ import annotations

from kbitlint.upstream.architectures import INNER_LINEARS
from kbitlint.upstream.contracts.model_types import MIXABLE, config_class
from kbitlint.upstream.contracts.peft_configs import CONFIG_ROWS
from kbitlint.upstream.contracts.rows import Contract
from kbitlint.upstream.contracts.target_rows import target_rows
from kbitlint.upstream.contracts.wrapped_linears import wrapped_rows

_ATTACHED = "when it is attached"
_LORA = ("peft.LoraConfig",)
_PARAMETERS = {
    "lora_dropout": ("lora_dropout", "0.1", "does not work with lora_dropout != 0"),
    "fan_in_fan_out": ("fan_in_fan_out", "True", "does not work with fan_in_fan_out"),
    "lora_bias": ("lora_bias", "True", "does not work with lora_bias=True"),
    "use_dora": ("use_dora", "True", "does not work with use_dora=True"),
    "velora_config": ("velora_config is not None", "{}", "does not work when `velora_config` is set"),
    "kasa_config": ("kasa_config is not None", "{}", "does not work when `kasa_config` is set"),
}
_LORA_ROWS = (
    Contract(  # before 0.8 a pattern of whole paths, like every other text
        _LORA,
        "text(target_modules) and target_modules == 'all-linear'",
        "Target modules all-linear not found in the base model",
        moment=_ATTACHED,
        drops="target_modules",
        until="0.8",
    ),
    Contract(
        _LORA,
        "number(lora_dropout) and (lora_dropout > 1 or lora_dropout < 0)",
        "dropout probability has to be between 0 and 1, but got",
        moment=_ATTACHED,
        drops="lora_dropout",
        example="lora_dropout=5",
    ),
    Contract(
        _LORA,
        "flag(bias)",
        "'bool' object has no attribute",
        "AttributeError",
        moment=_ATTACHED,
        example="bias=False",
    ),
    # PEFT matches a text as a whole with the path of each module (check_target_module_exists)
    Contract(
        _LORA,
        "plain(target_modules) and has(target_modules, ',')",
        "Target modules  not found in the base model",
        "NoMatchingPeftModuleError",  # a ValueError
        moment=_ATTACHED,
        example="target_modules='q_proj,v_proj'",
    ),
    Contract(
        _LORA,
        f"text(target_modules) and target_modules in {INNER_LINEARS!r}",
        "Target modules  not found in the base model",
        "NoMatchingPeftModuleError",  # a ValueError
        moment=_ATTACHED,
        example="target_modules='q_proj'",
    ),
    *(
        Contract(
            _LORA,
            f"target_parameters and {condition}",
            message,
            drops=name,
            moment=_ATTACHED,
            example=f"target_parameters=['experts.gate_up_proj'], {name}={value}",
            since="0.17",
        )
        for name, (condition, value, message) in _PARAMETERS.items()
    ),
    Contract(
        _LORA,
        "text(target_parameters)",
        "`target_parameters` must be a list of strings or None",
        "TypeError",
        example="target_parameters='mlp.experts.down_proj'",
        since="0.18",
    ),
    Contract(
        _LORA,
        "use_dora and megatron_config",
        "DoRA does not support megatron_core, please set `use_dora=False`",
        example="use_dora=True, megatron_config={'a': 1}",
    ),
    Contract(
        _LORA,
        "init_lora_weights == 'loftq' and not loftq_config",
        "`loftq_config` must be specified when `init_lora_weights` is 'loftq'",
        example="init_lora_weights='loftq'",
    ),
    *(
        Contract(
            (f"peft.{name}",),
            "init_lora_weights != 'loftq' and loftq_config",
            "`loftq_config` specified but will be ignored when `init_lora_weights` is not 'loftq'",
            "",
            "loftq_config",
            example=f"loftq_config={{'loftq_bits': 4}}{further}",
        )
        for name, further in (("LoraConfig", ""), ("AdaLoraConfig", ", total_step=100"))
    ),
    *(
        Contract(
            _LORA,
            f"init_lora_weights != '{name}' and not loftq_config and {name}_config is not None",
            f"`{name}_config` specified but will be ignored when `init_lora_weights` is not '{name}'",
            "",
            f"{name}_config",
            example=f"{name}_config={{}}",
        )
        for name in ("eva", "corda")
    ),
    Contract(
        _LORA,
        "lora_bias and not flag(init_lora_weights)",
        "The argument lora_bias=True is only supported with init_lora_weights=True or False",
        drops="init_lora_weights",
        example="lora_bias=True, init_lora_weights='gaussian'",
    ),
    Contract(
        _LORA,
        "lora_bias and use_dora and flag(init_lora_weights)",
        "The argument lora_bias=True is not supported for DoRA, please pass use_dora=False",
        drops="use_dora",
        example="lora_bias=True, use_dora=True",
    ),
    Contract(
        _LORA,
        "number(r) and r <= 0",
        "`r` should be a positive integer value but the value passed is",
        moment=_ATTACHED,
        example="r=0",
    ),
    *(
        Contract(
            _LORA,
            f"text({name})",
            f"{message} 'str' and ",
            "TypeError",
            moment=_ATTACHED,
            example=f"{name}='8'",
            python=True,
        )
        for name, message in (
            ("r", "'<=' not supported between instances of"),
            ("lora_alpha", "unsupported operand type(s) for /:"),
            ("lora_dropout", "'>' not supported between instances of"),
        )
    ),
    Contract(
        _LORA,
        "text(init_lora_weights) and not starts(init_lora_weights, 'pissa') and not starts(init_lora_weights, 'corda')"
        " and init_lora_weights not in ('gaussian', 'olora', 'mica', 'loftq', 'eva', 'orthogonal', 'lora_ga')",
        "Unknown initialization init_lora_weights",
        moment=_ATTACHED,
        example="init_lora_weights='kaiming'",
    ),
    Contract(
        _LORA,
        "init_lora_weights == 'orthogonal' and whole(r) and r > 0 and r % 2 != 0",
        "Orthogonal initialization requires the LoRA rank to be even, got",
        moment=_ATTACHED,
        example="init_lora_weights='orthogonal', r=7",
    ),
    Contract(
        _LORA,
        "text(bias) and bias not in ('none', 'all', 'lora_only')",
        "Requested bias: ",
        "NotImplementedError",
        moment=_ATTACHED,
        example="bias='some'",
    ),
)

_ADALORA = ("peft.AdaLoraConfig",)
_ADALORA_ROWS = (
    Contract(_ADALORA, "use_dora", " does not support DoRA", drops="use_dora", example="use_dora=True, total_step=100"),
    Contract(
        _ADALORA,
        "init_lora_weights == 'loftq' and loftq_config",
        " does not support LOFTQ",
        drops="loftq_config",
        example="init_lora_weights='loftq', loftq_config={'loftq_bits': 4}, total_step=100",
    ),
    Contract(
        _ADALORA, "r != 8", "Note that `r` is not used in AdaLora and will be ignored", "", "r", example="r=16, total_step=100"
    ),
    Contract(
        _ADALORA,
        "total_step is None or (number(total_step) and total_step <= 0)",
        "AdaLoRA does not work when `total_step` is None, supply a value > 0",
        since="0.14",
        unset=True,
    ),
    Contract(
        _ADALORA,
        "number(orth_reg_weight) and orth_reg_weight < 0 and number(total_step) and total_step > 0",
        "`orth_reg_weight` should be greater than or equal to 0, but the value passed is",
        example="orth_reg_weight=-1.0, total_step=100",
    ),
)

_SCHEDULE_ROWS = (
    Contract(
        _ADALORA,
        "number(total_step) and total_step > 0 and number(tinit) and number(tfinal) and tinit >= total_step - tfinal",
        "The supplied schedule values don't allow for a budgeting phase",
        example="total_step=100, tinit=80, tfinal=50",
        since="0.14",
    ),
)

#: classes whose forward takes other inputs than input_ids; PEFT's task wrappers pass input_ids to every model
_NO_INPUT_IDS = "(has(model.loader, 'whisper') or has(model.loader, 'speech') or has(model.loader, 'wav2vec2')"
_NO_INPUT_IDS += " or has(model.loader, 'hubert') or has(model.loader, 'ctc'))"
_ATTACH = ("peft.get_peft_model",)
_ATTACH_ROWS = (
    Contract(
        _ATTACH,
        "(made(peft_config, 'PrefixTuningConfig') or made(peft_config, 'CartridgeConfig')) and model.checkpointed",
        " does not work with gradient checkpointing",
        example="PrefixTuningConfig(task_type='CAUSAL_LM', num_virtual_tokens=4)",
    ),
    Contract(
        _ATTACH,
        "model.packed == 'bitsandbytes' and peft_config.velora_config is not None",
        " does not support VeLoRA",
        example="LoraConfig(velora_config={})",
    ),
    Contract(
        _ATTACH,
        "mixed is True and model.packed == 'bitsandbytes' and made(peft_config, 'LoraConfig')",
        "8bit and 4bit quantization not supported for LORA (yet).",
    ),
    Contract(
        _ATTACH,
        "model.packed == 'gptq' and peft_config.use_dora",
        " does not support DoRA yet, please set it to False",
    ),
    Contract(
        _ATTACH,
        "model.packed == 'gptq' and peft_config.velora_config is not None",
        " does not support VeLoRA yet, please set it to False",
    ),
    Contract(
        _ATTACH,
        "model.loader == 'transformers.AutoModel.from_pretrained' and text(model.type) "
        "and peft_config.task_type == 'SEQ_2_SEQ_LM'",
        "object has no attribute 'prepare_inputs_for_generation'",
        "AttributeError",
    ),
    Contract(
        _ATTACH,
        f"peft_config.task_type in ('SEQ_2_SEQ_LM', 'CAUSAL_LM') and {_NO_INPUT_IDS}",
        "forward() got an unexpected keyword argument 'input_ids'",
        "TypeError",
        moment="in the first step",
    ),
)

#: methods that attach adapters to a model, whose config may leave the target modules to PEFT
_ATTACHES = ("peft.get_peft_model", "peft.PeftModel*", "peft.inject_adapter_in_model", "add_adapter")
_TARGET_ROWS = (
    Contract(
        _ATTACH,  # modules_to_save of the task type, "classifier", is the end of "pre_classifier", which has adapters
        "made(peft_config, 'LoraConfig') and peft_config.target_modules == 'all-linear' and model.type == 'distilbert'"
        " and peft_config.task_type == 'SEQ_CLS' and has(model.loader, 'sequenceclassification')",
        "modules_to_save cannot be applied to modules of type",
        "TypeError",
    ),
    Contract(
        _ATTACH,
        f"mixed is True and kind(peft_config) not in {tuple(map(config_class, MIXABLE))!r}",
        "The provided `peft_type` '' is not compatible with the `PeftMixedModel`",
        drops="mixed",
    ),
    Contract(
        ("peft.inject_adapter_in_model", "add_adapter"),
        "kind(peft_config) in ('PromptTuningConfig', 'PrefixTuningConfig', 'PromptEncoderConfig')",
        "`create_and_replace` does not support prompt learning",
    ),
    *target_rows(*_ATTACHES),
)

ROWS = (*_TARGET_ROWS, *CONFIG_ROWS, *_LORA_ROWS, *_ADALORA_ROWS, *_SCHEDULE_ROWS, *_ATTACH_ROWS, *wrapped_rows(*_ATTACH))
