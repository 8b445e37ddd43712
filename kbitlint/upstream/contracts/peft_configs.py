"""What the config classes of PEFT refuse or ignore, apart from what is LoRA's own: PEFT 0.21, ``tuners/*/config.py``."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract


def _peft(*classes: str) -> tuple[str, ...]:
    return tuple(f"peft.{name}" for name in classes)


#: classes whose patterns of layers need a list of modules
_PATTERNED: tuple[str, ...] = (
    "AdaLora",
    "BOFT",
    "Deft",
    "Delora",
    "FourierFT",
    "Frod",
    "HRA",
    "Lily",
    "LoHa",
    "LoKr",
    "Lora",
    "OFT",
    "Peanut",
)
_PATTERNED += ("Psoft", "Pvera", "Shadow", "TinyLora", "VBLoRA", "Vera", "WaveFT")
_TEXT_LAYERS: tuple[str, ...] = (
    "AdaLora",
    "C3A",
    "Deft",
    "Delora",
    "FourierFT",
    "Hira",
    "HRA",
    "Lora",
    "Miss",
    "Psoft",
    "Shadow",
    "UniLora",
)
_TEXT_LAYERS += ("WaveFT",)
_TEXT_PATTERN = tuple(name for name in _TEXT_LAYERS if name not in ("AdaLora", "Delora"))
_POSITIVE = {"Delora": "r", "Peanut": "r", "Psoft": "r", "TinyLora": "r", "UniLora": "r", "Gralora": "gralora_k"}


def _config(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"peft.{name}Config" for name in names)


_SHARED = (
    Contract(
        _config(_PATTERNED),
        "layers_pattern and layers_to_transform is None",
        "When `layers_pattern` is specified, `layers_to_transform` must also be specified",
        drops="layers_pattern",
        example="layers_pattern='layers', target_modules=['q_proj']",
    ),
    Contract(
        _config(_TEXT_LAYERS),
        "text(target_modules) and layers_to_transform is not None",
        "`layers_to_transform` cannot be used when `target_modules` is a str",
        drops="layers_to_transform",
        example="target_modules='all-linear', layers_to_transform=[0]",
    ),
    Contract(
        _config(_TEXT_PATTERN),
        "text(target_modules) and layers_to_transform is None and layers_pattern is not None",
        "`layers_pattern` cannot be used when `target_modules` is a str",
        drops="layers_pattern",
        example="target_modules='all-linear', layers_pattern='layers'",
    ),
    Contract(
        ("peft.*Config",),
        "task_type not in (None, 'SEQ_CLS', 'SEQ_2_SEQ_LM', 'CAUSAL_LM', 'TOKEN_CLS', 'QUESTION_ANS', 'FEATURE_EXTRACTION')",
        "Invalid task type",
        example="task_type='CAUSAL'",
    ),
    *(
        Contract(
            (f"peft.{name}Config",),
            f"number({argument}) and {argument} <= 0",
            "must be a positive integer" if name in ("Delora", "Peanut", "Psoft") else "should be a positive integer",
            example=f"{argument}=0",
        )
        for name, argument in _POSITIVE.items()
    ),
)

_OTHERS = (
    Contract(
        _peft("LoraConfig"),
        "listed(target_modules) and size(target_modules) == 0 and target_parameters is None",
        "No `target_modules` passed but also no `target_parameters` found",
        "NoMatchingPeftModuleError",  # a ValueError
        moment="when it is attached",
        example="target_modules=[]",
    ),
    Contract(
        _peft("BOFTConfig"),
        "boft_block_size == 0 and boft_block_num == 0",
        "Either `boft_block_size` or `boft_block_num` must be non-zero",
        example="boft_block_size=0, boft_block_num=0",
    ),
    Contract(
        _peft("BOFTConfig"),
        "boft_block_size != 0 and boft_block_num != 0",
        "You can only specify either boft_block_size () or boft_block_num (), but not both simultaneously",
        example="boft_block_size=4, boft_block_num=4",
    ),
    Contract(
        _peft("OFTConfig"),
        "r == 0 and oft_block_size == 0",
        "Either `r` or `oft_block_size` must be non-zero",
        example="r=0, oft_block_size=0",
    ),
    Contract(
        _peft("OFTConfig"),
        "r != 0 and oft_block_size != 0",
        "You can only specify either r () or oft_block_size (), but not both simultaneously",
        example="r=8, oft_block_size=32",
    ),
    Contract(
        _peft("GraloraConfig"),
        "whole(r) and whole(gralora_k) and gralora_k > 0 and r % gralora_k != 0",
        "r should be divisible by gralora_k",
        example="r=7, gralora_k=2",
    ),
    Contract(
        _peft("PromptTuningConfig"),
        "prompt_tuning_init == 'TEXT' and not tokenizer_name_or_path",
        "When prompt_tuning_init='', tokenizer_name_or_path can't be",
        example="prompt_tuning_init='TEXT', prompt_tuning_init_text='a'",
    ),
    Contract(
        _peft("PromptTuningConfig"),
        "prompt_tuning_init == 'TEXT' and tokenizer_name_or_path and prompt_tuning_init_text is None",
        "When prompt_tuning_init='', prompt_tuning_init_text can't be",
        example="prompt_tuning_init='TEXT', tokenizer_name_or_path='a'",
    ),
    Contract(
        _peft("PromptTuningConfig"),
        "tokenizer_kwargs and prompt_tuning_init != 'TEXT'",
        "tokenizer_kwargs only valid when using prompt_tuning_init",
        example="tokenizer_kwargs={'a': 1}",
    ),
    Contract(
        _peft("RoadConfig"),
        "variant not in ('road_1', 'road_2', 'road_4')",
        "Invalid variant  specified. Please choose from road_1, road_2 or road_4",
        example="variant='road_3'",
    ),
    Contract(
        _peft("RoadConfig"),
        "whole(group_size) and (group_size <= 0 or group_size % 2 != 0)",
        "The group_size must be divisible by 2 when using RoadLayer, but got",
        example="group_size=3",
    ),
    Contract(
        _peft("CPTConfig"),
        "task_type != 'CAUSAL_LM'",
        " only supports task_type",
        unset=True,
        example="task_type='SEQ_CLS'",
    ),
    Contract(
        _peft("TinyLoraConfig"),
        "number(u) and u <= 0",
        "`u` should be a positive integer value but the value passed is",
        example="u=0",
    ),
    Contract(
        _peft("PsoftConfig"),
        "psoft_svd != 'lowrank' and psoft_svd_lowrank_niter != 10",
        "`psoft_svd_lowrank_niter` is only used when `psoft_svd='lowrank'`",
        "",
        "psoft_svd_lowrank_niter",
        example="psoft_svd='full', psoft_svd_lowrank_niter=4",
    ),
    Contract(
        _peft("PsoftConfig"),
        "not use_cayley_neumann and num_cayley_neumann_terms != 5",
        "`num_cayley_neumann_terms` is only used when `use_cayley_neumann=True`",
        "",
        "num_cayley_neumann_terms",
        example="num_cayley_neumann_terms=3",
    ),
    Contract(
        _peft("PsoftConfig"),
        "not use_cayley_neumann and cayley_neumann_eps is not None",
        "`cayley_neumann_eps` is only used when `use_cayley_neumann=True`",
        "",
        "cayley_neumann_eps",
        example="cayley_neumann_eps=0.5",
    ),
)

CONFIG_ROWS = (*_SHARED, *_OTHERS)
