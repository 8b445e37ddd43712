"""Model types for which libraries refuse a choice that a script leaves to them: transformers 5.23, PEFT 0.21.

A test compares each with the installed libraries.
"""

from __future__ import annotations

#: classes without ``_supports_sdpa`` among the types of ``architectures.py``
NO_SDPA: tuple[str, ...] = (
    *("big_bird", "blip", "bloom", "codegen", "deberta", "deberta-v2", "falcon_mamba", "gemma2", "gpt_neo", "gpt_oss"),
    *("gptj", "layoutlmv3", "longformer", "mamba", "mamba2", "mpnet", "mpt", "rwkv", "vaultgemma"),
)
#: classes without ``_supports_flash_attn``
NO_FLASH: tuple[str, ...] = (
    *("big_bird", "blip", "blip-2", "bloom", "codegen", "deberta", "deberta-v2", "doge", "falcon_mamba", "layoutlm"),
    *("layoutlmv3", "llama4", "llama4_text", "longformer", "mamba", "mamba2", "mllama", "mpnet", "mpt", "mt5", "rwkv", "t5"),
    "umt5",
)
#: peft/utils/constants.py: types whose target modules most methods know
_TARGETED: tuple[str, ...] = (
    *("RefinedWeb", "RefinedWebModel", "bart", "bert", "blip-2", "bloom", "btlm", "chatglm", "codegen", "deberta"),
    *("deberta-v2", "electra", "falcon", "gemma", "gemma2", "gemma3_text", "gemma4", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "layoutlm", "llama", "llama4", "mistral", "mixtral", "mpt", "mt5", "nemotron_h", "opt", "phi"),
    *("qwen2", "qwen3", "roberta", "rwkv", "rwkv7", "stablelm", "t5", "xlm-roberta"),
)
_FEWER = frozenset(
    {"blip-2", "btlm", "codegen", "chatglm", "electra", "layoutlm", "mpt", "rwkv", "rwkv7", "stablelm", "xlm-roberta"}
)
#: methods -> the types whose target modules they know
DEFAULT_TARGETS: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        *("BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA", "HRA", "LILY", "LOHA", "LOKR", "LORA"),
        *("MISS", "OFT", "PEANUT", "PSOFT", "RANDLORA", "ROAD", "SHIRA", "TINYLORA", "UNILORA", "VERA"),
    ): _TARGETED,
    ("ADALORA",): tuple(
        name
        for name in _TARGETED
        if name not in {*_FEWER, "RefinedWeb", "RefinedWebModel", "falcon", "mistral", "mixtral", "phi"}
    ),
    ("IA3",): tuple(name for name in _TARGETED if name not in {*_FEWER, "gemma4", "nemotron_h"}),
    ("LNTUNING",): (
        *("bart", "blip-2", "bloom", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gptj", "llama", "llava", "mistral"),
        *("mt5", "phi", "qwen2", "qwen3", "t5"),
    ),
}
#: config class of PEFT, by method
CONFIGS = {
    "ADALORA": "AdaLora",
    "DEFT": "Deft",
    "DELORA": "Delora",
    "FOURIERFT": "FourierFT",
    "GLORA": "Glora",
    "GRALORA": "Gralora",
    "HIRA": "Hira",
    "LILY": "Lily",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "LORA": "Lora",
    "MISS": "Miss",
    "PEANUT": "Peanut",
    "PSOFT": "Psoft",
    "RANDLORA": "RandLora",
    "ROAD": "Road",
    "SHIRA": "Shira",
    "TINYLORA": "TinyLora",
    "UNILORA": "UniLora",
    "VERA": "Vera",
    "LNTUNING": "LNTuning",
}
#: peft/tuners/adaption_prompt/config.py, ``TRANSFORMERS_MODEL_CONFIG``
ADAPTION_PROMPT = ("llama", "mistral", "gpt2")
#: peft/tuners/mixed/model.py, ``COMPATIBLE_TUNER_TYPES``
MIXABLE = ("LORA", "LOHA", "LOKR", "ADALORA", "OFT", "SHIRA")


def config_class(method: str) -> str:
    """Return the name of the config class of a method."""
    return f"{CONFIGS.get(method, method)}Config"
