"""Families of checkpoints, one row each: what the name of a checkpoint tells about its weights.

A row holds values of the ``config.json`` of the checkpoint that ``source`` names; other sizes share them.
``families.py`` matches names with rows.
"""

from __future__ import annotations

from typing import NamedTuple

from kbitlint.upstream.encoder_names import ENCODER_FAMILIES

_B, _H, _F = "bfloat16", "float16", "float32"
_QWEN = "0.5b:896 1.5b:1536 3b:2048 7b:3584 14b:5120 32b:5120 72b:8192"
_QWEN1 = "0.5b:1024 1.8b:2048 4b:2560 7b:4096 14b:5120 72b:8192"
_QWEN3 = "0.6b:1024 1.7b:2048 4b:2560 8b:4096 14b:5120 32b:5120"
_T5 = "small:512 base:768 large:1024 xl:2048 3b:1024 11b:1024 xxl:4096"
_PYTHIA = "70m:512 160m:768 410m:1024 1b:2048 1.4b:2048 2.8b:2560 6.9b:4096 12b:5120"
_GPT2 = "gpt2:768 distilgpt2:768 small:768 medium:1024 large:1280 xl:1600"
_GRANITE = "granite3.0 granite3.1 granite3.2 granite3.3"
_GRANITE_MOE = "granite3.0-1b-a400m granite3.0-3b-a800m granite3.1-1b-a400m granite3.1-3b-a800m"


class Family(NamedTuple):  # 230 tuples are made in a fifth of the time of data classes
    """Checkpoints with a common architecture and a common way of training."""

    source: str
    """The checkpoint whose config.json the row is taken from."""
    word: str
    """The part of a normalized name that identifies the family; alternatives are separated by blanks."""
    architecture: str
    """The model type of transformers; empty if the code comes with the checkpoint."""
    dtype: str
    """The dtype in which the weights are published."""
    vocabulary: int = 0
    """The number of rows of the embeddings; 0 if it is not known."""
    hidden: str = ""
    """Hidden sizes by size in the name: ``8b:4096 70b:8192``."""
    tied: str = ""
    """The sizes whose head shares the embeddings' weight: ``*`` for all, empty for none."""
    overflows: bool = False
    """Whether users reported activations beyond the range of float16."""


_row = Family

#: more specific rows come first: the first row that fits a name counts
FAMILIES: tuple[Family, ...] = (
    # distilled and merged checkpoints, whose names hold the name of another family
    _row("NousResearch/Yarn-Llama-2-7b-64k", "yarn-llama2", "llama", _B, 32000, "7b:4096 13b:5120"),
    _row("allenai/Llama-3.1-Tulu-3-8B", "tulu3 tulu3.1", "llama", _B, 128264, "8b:4096 70b:8192"),
    _row("01-ai/Yi-Coder-9B", "yi-coder", "llama", _B, 64000, "1.5b:2048 9b:4096"),
    _row("HuggingFaceH4/zephyr-7b-gemma-v0.1", "zephyr7b-gemma", "gemma", _B, 256000, "7b:3072", "*", overflows=True),
    _row("elyza/ELYZA-japanese-Llama-2-7b", "elyza-japanese-llama2", "llama", _H, 32000, "7b:4096"),
    _row("microsoft/Phi-3-small-8k-instruct", "phi3-small", "", _B, 100352, "small:4096", "*"),
    _row("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-onevision", "llava_onevision", _H, 152000, "0.5b:896 7b:3584"),
    _row("llava-hf/llava-v1.6-mistral-7b-hf", "llava-v1.6 llava-next", "llava_next", _H, 32064, "7b:4096 13b:5120 34b:7168"),
    _row("llava-hf/llava-1.5-7b-hf", "llava llava1.5 bakllava vip-llava", "llava", _H, 32064, "7b:4096 13b:5120"),
    _row("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", "idefics3", _B, 128259, "8b:4096"),
    _row("HuggingFaceM4/idefics2-8b", "idefics2", "idefics2", _F, 32003, "8b:4096"),
    _row("Salesforce/blip2-opt-2.7b", "blip2-opt", "blip-2", _F, 50272, "2.7b:2560 6.7b:4096"),
    _row("Salesforce/blip2-flan-t5-xl", "blip2-flan-t5", "blip-2", _F, 32128, "xl:2048 xxl:4096", overflows=True),
    _row("Salesforce/instructblip-vicuna-7b", "instructblip-vicuna", "instructblip", _F, 32001, "7b:4096"),
    _row("CohereForAI/c4ai-command-r7b-12-2024", "command-r7b command-r7b12", "cohere2", _B, 256000, "r7b:4096", "*"),
    _row("THUDM/GLM-4-9B-0414", "glm4-9b0414 glm4-32b0414", "glm4", _B, 151552, "9b:4096 32b:6144"),
    _row("microsoft/Florence-2-large", "florence2", "florence2", _H, 51289, "base:768 large:1024", "*"),
    _row("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek-r1-distill-llama", "llama", _B, 128256, "8b:4096 70b:8192"),
    _row("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1-distill-qwen", "qwen2", _B, 152064, _QWEN),
    _row("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek-r1-0528-qwen3", "qwen3", _B, 151936, "8b:4096"),
    _row("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama", "llama", _B, 32000, "1.1b:2048"),
    _row("cognitivecomputations/dolphin-2.9-llama3-8b", "dolphin2.9-llama3", "llama", _B, 128258, "8b:4096 70b:8192"),
    _row("NousResearch/Hermes-2-Pro-Llama-3-8B", "hermes2-pro-llama3 hermes2-theta-llama3", "llama", _B, 128288, "8b:4096"),
    _row("NousResearch/Nous-Hermes-Llama2-13b", "nous-hermes-llama2", "llama", _B, 32032, "7b:4096 13b:5120"),
    _row("NousResearch/Hermes-3-Llama-3.1-8B", "hermes3-llama3.1", "llama", _B, 128256, "8b:4096 70b:8192"),
    _row("teknium/OpenHermes-2.5-Mistral-7B", "openhermes2.5", "mistral", _B, 32002, "7b:4096"),
    _row("nvidia/Llama-3.1-Nemotron-70B-Instruct-HF", "llama3.1-nemotron", "llama", _B, 128256, "8b:4096 70b:8192"),
    _row("ai21labs/AI21-Jamba-1.5-Large", "jamba jamba1.5 jamba1.6 jamba1.7", "jamba", _B, 65536, "mini:4096 large:8192"),
    # Llama
    _row("meta-llama/Llama-4-Scout-17B-16E", "llama4", "llama4", _B, 202048, "17b:5120"),
    _row("meta-llama/Llama-3.3-70B-Instruct", "llama3.3", "llama", _B, 128256, "70b:8192"),
    _row("meta-llama/Llama-3.2-11B-Vision", "llama3.2-11b-vision llama3.2-90b-vision", "mllama", _B, 128256, "11b:4096"),
    _row("meta-llama/Llama-3.2-3B", "llama3.2", "llama", _B, 128256, "1b:2048 3b:3072", "*"),
    _row("meta-llama/Llama-3.1-8B", "llama3.1 meta-llama3.1", "llama", _B, 128256, "8b:4096 70b:8192 405b:16384"),
    _row("meta-llama/Meta-Llama-3-8B", "llama3 meta-llama3", "llama", _B, 128256, "8b:4096 70b:8192"),
    _row("meta-llama/Llama-Guard-3-8B", "llama-guard3", "llama", _B, 128256, "1b:2048 8b:4096", "1b"),
    _row("meta-llama/LlamaGuard-7b", "llamaguard", "llama", _B, 32000, "7b:4096"),
    _row("meta-llama/Llama-2-7b-hf", "llama2 llamav2", "llama", _H, 32000, "7b:4096 13b:5120 70b:8192"),
    _row("codellama/CodeLlama-7b-hf", "codellama", "llama", _B, 32016, "7b:4096 13b:5120 34b:8192 70b:8192"),
    _row("openlm-research/open_llama_7b", "open-llama", "llama", _H, 32000, "3b:3200 7b:4096 13b:5120"),
    _row("huggyllama/llama-7b", "llama", "llama", _H, 32000, "7b:4096 13b:5120 30b:6656 65b:8192"),
    _row("lmsys/vicuna-7b-v1.5", "vicuna alpaca", "llama", _H, 32000, "7b:4096 13b:5120 33b:6656"),
    _row("WizardLMTeam/WizardLM-13B-V1.2", "wizardlm wizardcoder-python", "llama", _H, 32000, "7b:4096 13b:5120"),
    _row("garage-bAInd/Platypus2-7B", "platypus2 stable-platypus2", "llama", _H, 32000, "7b:4096 13b:5120 70b:8192"),
    _row("upstage/SOLAR-10.7B-v1.0", "solar10.7b", "llama", _H, 32000, "10.7b:4096"),
    _row("microsoft/Orca-2-7b", "orca2", "llama", _F, 32003, "7b:4096 13b:5120"),
    _row("allenai/tulu-2-7b", "tulu2", "llama", _B, 32000, "7b:4096 13b:5120 70b:8192"),
    _row("nvidia/Minitron-4B-Base", "minitron", "nemotron", _B, 256000, "4b:3072 8b:4096"),
    _row("HuggingFaceTB/SmolLM3-3B", "smollm3", "smollm3", _B, 128256, "3b:2048", "*"),
    _row("HuggingFaceTB/SmolLM2-1.7B", "smollm2", "llama", _B, 49152, "135m:576 360m:960 1.7b:2048", "*"),
    _row("HuggingFaceTB/SmolLM-1.7B", "smollm", "llama", _B, 49152, "135m:576 360m:960 1.7b:2048", "*"),
    _row("HuggingFaceTB/SmolVLM-Instruct", "smolvlm smolvlm2", "idefics3", _B, 49155, "instruct:2048"),
    _row("01-ai/Yi-1.5-9B", "yi1.5", "llama", _B, 64000, "6b:4096 9b:4096 34b:7168"),
    _row("01-ai/Yi-6B", "yi", "llama", _B, 64000, "6b:4096 9b:4096 34b:7168"),
    # Mistral
    _row("mistralai/Mixtral-8x7B-v0.1", "mixtral", "mixtral", _B, 32000, "8x7b:4096 8x22b:6144"),
    _row("mistralai/Mistral-Nemo-Base-2407", "mistral-nemo", "mistral", _B, 131072, "base:5120 instruct:5120"),
    _row("mistralai/Ministral-3-8B-Instruct-2512", "ministral3", "mistral3", _B, 131072, "3b:3072 8b:4096 14b:5120"),
    _row("mistralai/Ministral-8B-Instruct-2410", "ministral", "mistral", _B, 131072, "8b:4096"),
    _row("mistralai/Mistral-Small-3.1-24B-Base-2503", "mistral-small3.1 mistral-small3.2", "mistral3", _B, 131072, "24b:5120"),
    _row("mistralai/Mistral-Small-24B-Base-2501", "mistral-small24b", "mistral", _B, 131072, "24b:5120"),
    _row("mistralai/Mistral-Small-Instruct-2409", "mistral-small", "mistral", _B, 32768, "small:6144"),
    _row("mistralai/Mistral-Large-Instruct-2407", "mistral-large", "mistral", _B, 32768, "large:12288"),
    _row("mistralai/Codestral-22B-v0.1", "codestral", "mistral", _B, 32768, "22b:6144"),
    _row("mistralai/Mathstral-7B-v0.1", "mathstral", "mistral", _B, 32768, "7b:4096"),
    _row("mistralai/Devstral-Small-2505", "devstral", "mistral", _B, 131072, "small:5120"),
    _row("mistralai/Magistral-Small-2506", "magistral", "mistral", _B, 131072, "small:5120"),
    _row("mistral-community/pixtral-12b", "pixtral", "llava", _B, 131072, "12b:5120"),
    _row("HuggingFaceH4/zephyr-7b-beta", "zephyr7b zephyr-sft", "mistral", _B, 32000, "7b:4096"),
    _row("Intel/neural-chat-7b-v3-1", "neural-chat7b", "mistral", _H, 32000, "7b:4096"),
    _row("berkeley-nest/Starling-LM-7B-alpha", "starling-lm", "mistral", _B, 32002, "7b:4096"),
    _row("openchat/openchat-3.5-0106", "openchat openchat3.5", "mistral", _B, 32002, "7b:4096"),
    _row("BioMistral/BioMistral-7B", "biomistral", "mistral", _B, 32000, "7b:4096"),
    _row("mistralai/Mistral-7B-v0.3", "mistral7b-v0.3 mistral7b-instruct-v0.3", "mistral", _B, 32768, "7b:4096"),
    _row("mistralai/Mistral-7B-v0.1", "mistral", "mistral", _B, 32000, "7b:4096"),
    # Qwen
    _row("Qwen/Qwen3.5-35B-A3B", "qwen3.5-35b-a3b qwen3.5-122b-a10b qwen3.5-397b-a17b", "qwen3_5_moe", _B, 248320, "35b:2048"),
    _row("Qwen/Qwen3.5-9B", "qwen3.5", "qwen3_5", _B, 248320, "9b:4096 27b:5120"),
    _row("Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3-next qwen3-coder-next", "qwen3_next", _B, 151936, "80b:2048"),
    _row("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3-vl30b-a3b", "qwen3_vl_moe", _B, 151936, "30b:2048 235b:4096"),
    _row("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl", "qwen3_vl", _B, 151936, "2b:2048 4b:2560 8b:4096 32b:5120", "2b 4b"),
    _row("Qwen/Qwen3-Omni-30B-A3B-Instruct", "qwen3-omni", "", _B, 152064, "30b:2048"),
    _row("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-coder", "qwen3_moe", _B, 151936, "30b:2048 480b:6144"),
    _row("Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b qwen3-235b-a22b", "qwen3_moe", _B, 151936, "30b:2048 235b:4096"),
    _row("Qwen/Qwen3-Embedding-8B", "qwen3-embedding qwen3-reranker", "qwen3", _B, 151665, _QWEN3, "0.6b 4b"),
    _row("Qwen/Qwen3-8B", "qwen3", "qwen3", _B, 151936, _QWEN3, "0.6b 1.7b 4b"),
    _row("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl", "qwen2_5_vl", _B, 152064, "3b:2048 7b:3584 32b:5120 72b:8192", "3b"),
    _row("Qwen/Qwen2.5-Omni-7B", "qwen2.5-omni", "", _B, 152064, "3b:2048 7b:3584"),
    _row("Qwen/Qwen2.5-7B", "qwen2.5", "qwen2", _B, 152064, _QWEN, "0.5b 1.5b 3b"),
    _row("Qwen/QwQ-32B", "qwq", "qwen2", _B, 152064, "32b:5120"),
    _row("Qwen/Qwen2-VL-7B-Instruct", "qwen2-vl", "qwen2_vl", _B, 152064, "2b:1536 7b:3584 72b:8192", "2b"),
    _row("Qwen/QVQ-72B-Preview", "qvq", "qwen2_vl", _B, 152064, "72b:8192"),
    _row("Qwen/Qwen2-57B-A14B", "qwen2-57b-a14b", "qwen2_moe", _B, 151936, "57b:3584"),
    _row("Qwen/Qwen2-Audio-7B", "qwen2-audio", "", _B, 156032, "7b:4096"),
    _row("Qwen/Qwen2-7B", "qwen2", "qwen2", _B, 152064, "0.5b:896 1.5b:1536 7b:3584 72b:8192", "0.5b 1.5b"),
    _row("Qwen/Qwen1.5-MoE-A2.7B", "qwen1.5-moe", "qwen2_moe", _B, 151936, "a2.7b:2048"),
    _row("Qwen/Qwen1.5-7B", "qwen1.5 codeqwen1.5", "qwen2", _B, 151936, _QWEN1, "0.5b"),
    _row("Qwen/Qwen-7B", "qwen", "", _B, 151936, "1.8b:2048 7b:4096 14b:5120 72b:8192"),
    # Google
    _row("google/gemma-4-E4B", "gemma4", "gemma4", _B, 262144, "e2b:1536 e4b:2560", "*", overflows=True),
    _row("google/gemma-3n-E4B", "gemma3n", "", _B, 262400, "e2b:2048 e4b:2048", "*", overflows=True),
    _row("google/gemma-3-1b-pt", "gemma3-1b gemma3-270m", "gemma3_text", _B, 262144, "270m:640 1b:1152", "*", overflows=True),
    _row("google/gemma-3-4b-pt", "gemma3", "gemma3", _B, 262208, "4b:2560 12b:3840 27b:5376", "*", overflows=True),
    _row("google/medgemma-4b-it", "medgemma", "gemma3", _B, 262208, "4b:2560 27b:5376", "*", overflows=True),
    _row("google/txgemma-9b-chat", "txgemma", "gemma2", _B, 256000, "2b:2304 9b:3584 27b:4608", "*", overflows=True),
    _row("google/shieldgemma-2b", "shieldgemma", "gemma2", _B, 256000, "2b:2304 9b:3584 27b:4608", "*", overflows=True),
    _row("google/gemma-2-9b", "gemma2", "gemma2", _B, 256000, "2b:2304 9b:3584 27b:4608", "*", overflows=True),
    _row("google/paligemma2-3b-pt-224", "paligemma2", "paligemma", _B, 257216, "3b:2304 10b:3584", "*", overflows=True),
    _row("google/paligemma-3b-pt-224", "paligemma", "paligemma", _F, 257216, "3b:2048", "*", overflows=True),
    _row("google/codegemma-7b", "codegemma", "gemma", _B, 256000, "2b:2048 7b:3072", "*", overflows=True),
    _row("google/recurrentgemma-2b", "recurrentgemma", "recurrent_gemma", _B, 256000, "2b:2560 9b:4096", "*", overflows=True),
    _row("google/vaultgemma-1b", "vaultgemma", "vaultgemma", _B, 256000, "1b:1152", "*", overflows=True),
    _row("google/gemma-7b", "gemma gemma1.1 embeddinggemma", "gemma", _B, 256000, "2b:2048 7b:3072", "*", overflows=True),
    _row("google/flan-t5-xl", "flan-t5", "t5", _F, 32128, _T5, overflows=True),
    _row("google/flan-ul2", "flan-ul2 ul2", "t5", _F, 32128, overflows=True),
    _row("google/mt5-large", "mt5", "mt5", _F, 250112, _T5, overflows=True),
    _row("google/umt5-xl", "umt5", "umt5", _F, 256384, "small:512 base:768 xl:2048 xxl:4096", overflows=True),
    _row("google/byt5-large", "byt5", "t5", _F, 384, "small:1472 base:1536 large:1536", overflows=True),
    _row("CohereForAI/aya-101", "aya101", "mt5", _F, 250112, overflows=True),
    _row("bigscience/T0_3B", "t0 t0pp", "t5", _F, 32128, overflows=True),
    _row("google-t5/t5-large", "t5 t5-v1 codet5 codet5p", "t5", _F, 32128, _T5, overflows=True),
    # Microsoft
    _row("microsoft/Phi-4-multimodal-instruct", "phi4-multimodal", "", _B, 200064, "multimodal:3072", "*"),
    _row("microsoft/Phi-4-mini-instruct", "phi4-mini", "phi3", _B, 200064, "mini:3072", "*"),
    _row("microsoft/phi-4", "phi4", "phi3", _B, 100352, "phi4:5120"),
    _row("microsoft/Phi-3.5-MoE-instruct", "phi3.5-moe", "phimoe", _B, 32064, "moe:4096"),
    _row("microsoft/Phi-3.5-vision-instruct", "phi3.5-vision phi3-vision", "", _B, 32064, "vision:3072"),
    _row("microsoft/Phi-3.5-mini-instruct", "phi3.5", "phi3", _B, 32064, "mini:3072"),
    _row("microsoft/Phi-3-mini-4k-instruct", "phi3", "phi3", _B, 32064, "mini:3072 medium:5120"),
    _row("microsoft/phi-2", "phi2", "phi", _H, 51200, "phi2:2560"),
    _row("microsoft/phi-1_5", "phi1-5 phi1.5", "phi", _H, 51200, "phi1:2048"),
    _row("microsoft/phi-1", "phi1", "phi", _F, 51200, "phi1:2048"),
    _row("microsoft/bitnet-b1.58-2B-4T", "bitnet-b1.58", "bitnet", _B, 128256, "2b:2560", "*"),
    # DeepSeek
    _row("deepseek-ai/DeepSeek-V3", "deepseek-v3 deepseek-v3.1 deepseek-r1", "deepseek_v3", _B, 129280, "v3:7168 r1:7168"),
    _row("deepseek-ai/DeepSeek-V2-Lite", "deepseek-v2 deepseek-coder-v2", "deepseek_v2", _B, 102400, "lite:2048 v2:5120"),
    _row("deepseek-ai/deepseek-moe-16b-base", "deepseek-moe", "", _B, 102400, "16b:2048"),
    _row("deepseek-ai/deepseek-math-7b-base", "deepseek-math", "llama", _B, 102400, "7b:4096"),
    _row("deepseek-ai/deepseek-coder-6.7b-base", "deepseek-coder", "llama", _B, 32256, "1.3b:2048 6.7b:4096 33b:7168"),
    _row("deepseek-ai/deepseek-llm-7b-base", "deepseek-llm", "llama", _B, 102400, "7b:4096 67b:8192"),
    _row("deepseek-ai/deepseek-vl-7b-base", "deepseek-vl", "", _B, 102400, "1.3b:2048 7b:4096"),
    # Cohere
    _row("CohereForAI/aya-expanse-8b", "aya-expanse", "cohere", _H, 256000, "8b:4096 32b:8192", "*"),
    _row("CohereForAI/aya-23-8B", "aya23", "cohere", _H, 256000, "8b:4096 35b:8192", "*"),
    _row("CohereLabs/c4ai-command-a-03-2025", "command-a command-a03", "cohere2", _B, 256000, "a:12288", "*"),
    _row("CohereForAI/c4ai-command-r-v01", "command-r command-r08", "cohere", _H, 256000, "r:8192", "*"),
    # GPT and its relatives
    _row("openai/gpt-oss-20b", "gpt-oss", "gpt_oss", _B, 201088, "20b:2880 120b:2880"),
    _row("openai-community/gpt2-xl", "gpt2 distilgpt2 dialogpt", "gpt2", _F, 50257, _GPT2, "*"),
    _row("EleutherAI/gpt-neox-20b", "gpt-neox", "gpt_neox", _H, 50432, "20b:6144"),
    _row("EleutherAI/gpt-j-6b", "gpt-j", "gptj", _F, 50400, "6b:4096"),
    _row("EleutherAI/gpt-neo-2.7B", "gpt-neo", "gpt_neo", _F, 50257, "125m:768 1.3b:2048 2.7b:2560", "*"),
    _row("EleutherAI/pythia-6.9b", "pythia", "gpt_neox", _H, 50432, _PYTHIA),
    _row("databricks/dolly-v2-3b", "dolly-v2", "gpt_neox", _B, 50280, "3b:2560 7b:4096 12b:5120"),
    _row("togethercomputer/RedPajama-INCITE-7B-Base", "redpajama-incite", "gpt_neox", _H, 50432, "3b:2560 7b:4096"),
    _row("togethercomputer/GPT-NeoXT-Chat-Base-20B", "gpt-neoxt", "gpt_neox", _H, 50432, "20b:6144"),
    _row("Salesforce/codegen25-7b-multi", "codegen25", "llama", _F, 51200, "7b:4096"),
    _row("Salesforce/codegen-2B-mono", "codegen codegen2", "codegen", _H, 51200, "350m:1024 2b:2560 6b:4096 16b:6144"),
    _row(
        "facebook/opt-6.7b", "opt", "opt", _H, 50272, "125m:768 350m:512 1.3b:2048 2.7b:2560 6.7b:4096 13b:5120 30b:7168", "*"
    ),
    _row("facebook/galactica-6.7b", "galactica", "opt", _H, 50000, "1.3b:2048 6.7b:4096 30b:7168", "*"),
    _row("bigscience/bloomz-7b1", "bloomz", "bloom", _H, 250880, "560m:1024 1b1:1536 1b7:2048 3b:2560 7b1:4096", "*"),
    _row("bigscience/bloom-7b1", "bloom", "bloom", _H, 250880, "560m:1024 1b1:1536 1b7:2048 3b:2560 7b1:4096", "*"),
    _row("mosaicml/mpt-7b", "mpt", "mpt", _B, 50432, "7b:4096 30b:7168", "*"),
    _row("tiiuae/Falcon3-7B-Base", "falcon3", "llama", _B, 131072, "1b:2048 3b:3072 7b:3072 10b:3072"),
    _row("tiiuae/Falcon-H1-7B-Base", "falcon-h1", "", _B, 130048, "7b:3072 34b:5120"),
    _row("tiiuae/falcon-mamba-7b", "falcon-mamba", "falcon_mamba", _B, 65024, "7b:4096"),
    _row("tiiuae/falcon-11B", "falcon11b falcon2", "falcon", _B, 65024, "11b:4096"),
    _row("tiiuae/falcon-7b", "falcon", "falcon", _B, 65024, "rw:2048 7b:4544 40b:8192 180b:14848", "*"),
    _row("bigcode/starcoder2-7b", "starcoder2", "starcoder2", _F, 49152, "3b:3072 7b:4608 15b:6144", "3b"),
    _row("bigcode/starcoder", "starcoder starcoderbase starchat", "gpt_bigcode", _F, 49152, "starcoder:6144", "*"),
    _row("bigcode/gpt_bigcode-santacoder", "santacoder", "gpt_bigcode", _F, 49280, "santacoder:2048", "*"),
    _row("stabilityai/stablelm-2-1_6b", "stablelm2", "stablelm", _H, 100352, "1-6b:2048 12b:5120"),
    _row("stabilityai/stablelm-zephyr-3b", "stablelm-zephyr", "stablelm", _B, 50304, "3b:2560"),
    _row("stabilityai/stablelm-3b-4e1t", "stablelm", "stablelm", _B, 50304, "3b:2560"),
    _row("stabilityai/stable-code-3b", "stable-code", "stablelm", _B, 50304, "3b:2560"),
    _row("stabilityai/StableBeluga-7B", "stablebeluga", "llama", _F, 32000, "7b:4096 13b:5120"),
    _row("adept/persimmon-8b-base", "persimmon", "persimmon", _B, 262144, "8b:4096"),
    # AI2, IBM, NVIDIA
    _row("allenai/Olmo-3-1025-7B", "olmo3", "olmo3", _B, 100278, "7b:4096 32b:5120"),
    _row("allenai/OLMo-2-1124-7B", "olmo2", "olmo2", _F, 100352, "1b:2048 7b:4096 13b:5120 32b:5120"),
    _row("allenai/OLMoE-1B-7B-0924", "olmoe", "olmoe", _B, 50304, "7b:2048"),
    _row("allenai/OLMo-7B-hf", "olmo", "olmo", _F, 50304, "1b:2048 7b:4096"),
    _row("ibm-granite/granite-4.0-h-tiny", "granite4.0-h", "granitemoehybrid", _B, 100352, "tiny:1536 small:4096", "*"),
    _row("ibm-granite/granite-3.0-1b-a400m-base", _GRANITE_MOE, "granitemoe", _B, 49155, "1b:1024 3b:1536", "*"),
    _row("ibm-granite/granite-3.3-8b-base", _GRANITE, "granite", _B, 49155, "8b:4096", "*"),
    _row("ibm-granite/granite-8b-code-base", "granite8b-code granite3b-code", "llama", _B, 49152, "3b:2560 8b:4096", "*"),
    _row("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B", "nemotron3-nano", "nemotron_h", _B, 131072, "30b:2688"),
    _row("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "nemotron-nano nemotron-h", "nemotron_h", _B, 131072, "9b:4480"),
    _row("nvidia/Nemotron-4-340B-Base", "nemotron4 nemotron-mini", "nemotron", _B, 256000, "4b:3072 340b:18432"),
    _row("ibm-ai-platform/Bamba-9B-v2", "bamba", "", _B, 128256, "9b:4096"),
    # other languages
    _row("THUDM/GLM-4.5-Air", "glm4.5 glm4.6", "glm4_moe", _B, 151552, "air:4096"),
    _row("THUDM/GLM-4.1V-9B-Thinking", "glm4.1v", "glm4v", _B, 151552, "9b:4096"),
    _row("THUDM/glm-4-9b-hf", "glm4-9b-hf glm4-9b-chat-hf glm-edge", "glm", _B, 151552, "9b:4096"),
    _row("THUDM/glm-4-9b", "glm4", "", _B, 151552, "9b:4096"),
    _row("THUDM/chatglm3-6b", "chatglm chatglm2 chatglm3 codegeex2", "", _H, 65024, "6b:4096"),
    _row("internlm/internlm3-8b-instruct", "internlm3", "", _B, 128512, "8b:4096"),
    _row("internlm/internlm2_5-7b", "internlm2 internlm2-5 internlm2.5", "", _B, 92544, "1-8b:2048 7b:4096 20b:6144"),
    _row("internlm/internlm-7b", "internlm", "", _B, 103168, "7b:4096 20b:5120"),
    _row("baichuan-inc/Baichuan2-7B-Base", "baichuan2", "", _B, 125696, "7b:4096 13b:5120"),
    _row("baichuan-inc/Baichuan-7B", "baichuan", "", _B, 64000, "7b:4096 13b:5120"),
    _row("openbmb/MiniCPM-2B-sft-bf16", "minicpm minicpm3 minicpm4", "", _B, 122753, "2b:2304 4b:2560 8b:4096"),
    _row("LGAI-EXAONE/EXAONE-4.0-32B", "exaone4.0", "exaone4", _B, 102400, "1.2b:2048 32b:5120", "1.2b"),
    _row("LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", "exaone3.0 exaone3.5", "", _B, 102400, "2.4b:2560 7.8b:4096 32b:5120"),
    _row("beomi/KoAlpaca-Polyglot-12.8B", "polyglot-ko koalpaca-polyglot", "gpt_neox", _H, 30080, "5.8b:4096 12.8b:5120"),
    _row("naver-hyperclovax/HyperCLOVAX-SEED-Text-Instruct-1.5B", "hyperclovax-seed", "llama", _F, 110592, "1.5b:2048"),
    _row("yanolja/EEVE-Korean-10.8B-v1.0", "eeve-korean", "llama", _B, 40960, "10.8b:4096"),
    _row("sarvamai/sarvam-1", "sarvam1", "llama", _B, 68096, "sarvam1:2048"),
    _row("SeaLLMs/SeaLLMs-v3-7B-Chat", "seallms-v3", "qwen2", _B, 152064, "7b:3584"),
    _row("baidu/ERNIE-4.5-21B-A3B-PT", "ernie4.5-21b-a3b ernie4.5-300b-a47b", "ernie4_5_moe", _B, 103424, "21b:2560", "*"),
    _row("baidu/ERNIE-4.5-0.3B-PT", "ernie4.5", "ernie4_5", _B, 103424, "0.3b:1024", "*"),
    _row("MiniMaxAI/MiniMax-Text-01-hf", "minimax-text01", "minimax", _B, 200064, "01:6144"),
    _row("MiniMaxAI/MiniMax-M2", "minimax-m2", "minimax_m2", _B, 200064, "m2:3072"),
    _row("moonshotai/Kimi-K2-Instruct", "kimi-k2", "deepseek_v3", _B, 163840, "k2:7168"),
    _row("moonshotai/Moonlight-16B-A3B", "moonlight16b-a3b", "deepseek_v3", _B, 163840, "16b:2048"),
    _row("xverse/XVERSE-7B", "xverse", "", _B, 100608, "7b:4096 13b:5120"),
    _row("inclusionAI/Ling-lite", "ling-lite ling-plus", "", _B, 126464, "lite:2048"),
    _row("ByteDance-Seed/Seed-OSS-36B-Base", "seed-oss", "seed_oss", _B, 155136, "36b:5120"),
    _row("swiss-ai/Apertus-8B-2509", "apertus", "apertus", _B, 131072, "8b:4096 70b:8192"),
    _row("arcee-ai/AFM-4.5B", "afm", "arcee", _B, 128004, "4.5b:2560"),
    _row("LiquidAI/LFM2-1.2B", "lfm2", "lfm2", _B, 65536, "350m:1024 700m:1536 1.2b:2048", "*"),
    _row("kyutai/helium-1-2b", "helium1", "helium", _B, 64000, "2b:2048"),
    _row("facebook/cwm", "cwm", "cwm", _B, 128256, "cwm:6144"),
    _row("utter-project/EuroLLM-9B", "eurollm", "llama", _B, 128000, "1.7b:2048 9b:4096"),
    _row("BSC-LT/salamandra-7b", "salamandra", "llama", _B, 256000, "2b:2048 7b:4096"),
    _row("croissantllm/CroissantLLMBase", "croissantllm croissantllmbase croissantllmchat", "llama", _F, 32000),
    _row("Zyphra/Zamba2-7B", "zamba2", "zamba2", _B, 32000, "1.2b:2048 2.7b:2560 7b:3584", "*"),
    _row("state-spaces/mamba-2.8b-hf", "mamba", "mamba", _F, 50280, "130m:768 2.8b:2560", "*"),
    _row("RWKV/rwkv-4-7b-pile", "rwkv4 rwkv", "rwkv", _F, 50277, "7b:4096"),
    _row("jetmoe/jetmoe-8b", "jetmoe", "jetmoe", _B, 32000, "8b:2048", "*"),
    _row("databricks/dbrx-base", "dbrx", "", _B, 100352, "dbrx:6144"),
    _row("xai-org/grok-1", "grok1", "", _B, 131072, "1:6144"),
    _row("Snowflake/snowflake-arctic-base", "snowflake-arctic-base snowflake-arctic-instruct", "", _B, 32000),
    # models of images and sound
    _row("HuggingFaceM4/idefics-9b", "idefics", "", _B, 32000, "9b:4096 80b:8192"),
    _row("OpenGVLab/InternVL3-8B-hf", "internvl3 internvl3.5", "internvl", _B, 151674, "1b:896 2b:1536 8b:3584"),
    _row("allenai/Molmo-7B-D-0924", "molmo", "", _F, 152064, "7b:3584"),
    _row("openai/whisper-large-v3", "whisper", "whisper", _H, 51866, "tiny:384 base:512 small:768 medium:1024 large:1280", "*"),
    _row("facebook/nllb-200-3.3B", "nllb200 m2m100", "m2m_100", _F, 256206, "600m:1024 1.3b:1024 3.3b:2048", "*"),
    _row("facebook/bart-large", "bart", "bart", _F, 50265, "base:768 large:1024", "*"),
    _row("answerdotai/ModernBERT-large", "modernbert", "modernbert", _F, 50368, "base:768 large:1024", "*"),
    _row("microsoft/deberta-v3-large", "deberta-v3 mdeberta-v3", "deberta-v2", _F, 128100, "base:768 large:1024", "*"),
    _row("FacebookAI/xlm-roberta-large", "xlm-roberta", "xlm-roberta", _F, 250002, "base:768 large:1024", "*"),
    _row("FacebookAI/roberta-large", "roberta", "roberta", _F, 50265, "base:768 large:1024", "*"),
    _row("distilbert/distilbert-base-uncased", "distilbert", "distilbert", _F, 30522, "base:768", "*"),
    _row("google-bert/bert-base-uncased", "bert", "bert", _F, 30522, "base:768 large:1024", "*"),
    *(_row(*row) for row in ENCODER_FAMILIES),
)
