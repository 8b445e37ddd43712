"""Model types that an auto class of transformers refuses: transformers 5.23, ``models/auto/modeling_auto.py``.

A test compares each list with the mappings of the installed library.
"""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

#: types that only ``AutoModelForCausalLM`` loads as a language model
_DECODERS = (
    "afmoe apertus arcee bitnet bloom codegen cohere cohere2 cohere2_moe cwm deepseek_v2 deepseek_v3 doge ernie4_5 "
    "ernie4_5_moe exaone4 falcon falcon_mamba flex_olmo gemma gemma2 gemma3_text gemma4_text glm glm4 glm4_moe gpt2 "
    "gpt_bigcode gpt_neo gpt_neox gpt_oss gptj granite granitemoe granitemoehybrid granitemoeshared helium jamba jetmoe "
    "lfm2 llama llama4_text longcat_flash mamba mamba2 minimax minimax_m2 ministral3 mistral mixtral mpt nemotron "
    "nemotron_h olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next "
    "recurrent_gemma rwkv seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma zamba2"
)
DECODERS: tuple[str, ...] = tuple(_DECODERS.split())
#: types that ``AutoModelForCausalLM`` does not know
_NO_CAUSAL = (
    "albert audio-spectrogram-transformer beit blip blip-2 clip clip_vision_model cohere2_vision convnext convnextv2 "
    "data2vec-vision deberta deberta-v2 deit dinov2 dinov2_with_registers dinov3_vit distilbert florence2 glm4v glm4v_moe "
    "hubert idefics2 idefics3 instructblip internvl kimi_k25 layoutlm layoutlmv3 llava llava_next llava_onevision "
    "longformer m2m_100 mistral3 mistral4 modernbert moonshine mpnet mt5 paligemma qwen2_5_vl qwen2_vl qwen3_vl "
    "qwen3_vl_moe segformer siglip siglip2 siglip_vision_model smolvlm speecht5 swin swinv2 t5 umt5 videomae vit vit_mae "
    "wav2vec2 wav2vec2-bert wavlm"
)
NO_CAUSAL: tuple[str, ...] = tuple(_NO_CAUSAL.split())
#: those among them that no version knew
NEVER_CAUSAL = ("t5", "mt5", "umt5", "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "idefics2", "idefics3", "paligemma")
#: types that ``AutoModelForSequenceClassification`` does not know
_NO_CLASSIFIER = (
    "afmoe apertus audio-spectrogram-transformer beit bitnet blip blip-2 clip clip_vision_model codegen cohere cohere2 "
    "cohere2_moe cohere2_vision convnext convnextv2 cwm data2vec-vision deit dinov2 dinov2_with_registers dinov3_vit "
    "ernie4_5 ernie4_5_moe falcon_mamba flex_olmo florence2 gemma4 gemma4_text glm4_moe glm4v glm4v_moe granite "
    "granitemoe granitemoehybrid granitemoeshared hubert idefics2 idefics3 instructblip internvl kimi_k25 lfm2 llama4 "
    "llama4_text llava llava_next llava_onevision longcat_flash m2m_100 mamba mamba2 minimax_m2 mistral3 mllama moonshine "
    "nemotron_h olmoe paligemma pegasus qwen2_5_vl qwen2_vl qwen3_5_moe qwen3_vl qwen3_vl_moe recurrent_gemma rwkv "
    "segformer siglip siglip2 siglip_vision_model smolvlm solar_open speecht5 swin swinv2 vaultgemma videomae vit vit_mae "
    "wav2vec2 wav2vec2-bert wavlm whisper"
)
NO_CLASSIFIER: tuple[str, ...] = tuple(_NO_CLASSIFIER.split())
#: types of an encoder with a decoder, which no class for images loads
SEQ2SEQ = ("bart", "m2m_100", "mbart", "mt5", "pegasus", "t5", "umt5")
#: types of images and text, which no class for sequences to sequences loads
VISION = ("llava", "llava_next", "mllama", "paligemma", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "gemma3", "smolvlm")
#: auto class, the types that it does not know, and the first version in which it does not
REFUSED = (
    ("AutoModelForCausalLM", NEVER_CAUSAL, ""),
    ("AutoModelForCausalLM", tuple(name for name in NO_CAUSAL if name not in NEVER_CAUSAL), "5"),
    ("AutoModelForSeq2SeqLM", (*DECODERS, *VISION), "5"),
    ("AutoModelForImageTextToText", (*DECODERS, *SEQ2SEQ), "5"),
    ("AutoModelForMaskedLM", DECODERS, "5"),
    ("AutoModelForSequenceClassification", NO_CLASSIFIER, "5"),
)

AUTO_ROWS = tuple(
    Contract(
        (f"transformers.{name}.from_pretrained",),
        f"model.type in {types!r}",
        f"Unrecognized configuration class for this kind of AutoModel: {name}",
        since=since,
    )
    for name, types, since in REFUSED
)
