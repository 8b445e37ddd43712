"""Names of data formats and chat templates that training programs know: axolotl 0.19 and LLaMA-Factory 0.9.5.

Sources: ``axolotl/prompt_strategies`` and ``axolotl/utils/data/wrappers.py``; ``llamafactory/data/template.py``.
"""

from __future__ import annotations

from kbitlint.upstream.contracts.axolotl_runs import TRAIN
from kbitlint.upstream.contracts.rows import Contract


def _each(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: formats of a supervised training; one with a dot may be a module of the user's
_SUPERVISED = _each(
    "alpaca_chat alpaca_instruct alpaca_w_system chat_template completion context_qa creative_acr input_output llama2_chat "
    "metharme orcamini pretrain pygmalion stepwise_supervised user_defined messages bradley_terry _synthetic "
    "alpaca explainchoice concisechoice summarizetldr jeopardy oasst gpteacher reflection"
)
#: formats of preferences, with the functions of each module
_PAIRS = _each(
    "chat_template chat_template.default chat_template.argilla_chat passthrough passthrough.default user_defined "
    "user_defined.default zephyr.nectar chatml llama3 "
    + " ".join(
        f"{name}.{one}" for name in ("chatml", "llama3") for one in _each("default argilla_chat icr intel prompt_pairs ultra")
    )
)
_SINGLES = _each(
    "user_defined user_defined.default "
    + " ".join(
        f"{name}.{one}" for name in ("chatml", "llama3") for one in _each("argilla argilla_chat intel prompt_pairs ultra")
    )
)
_RATIOS = _each("chat_template.load chat_template.argilla")
_UNSEEN = "Failed to load dataset transform function for type"
_LOADED = "when it loads the data"

FORMAT_ROWS = (
    Contract(
        TRAIN,
        f"rl is None and not skip_prepare_dataset and foreign(datasets, 'type', {_SUPERVISED!r}, True)",
        "unhandled prompt tokenization strategy:",
        drops="datasets",
        moment=_LOADED,
    ),
    Contract(
        TRAIN,
        "starting(datasets, 'type', 'chat_template') and not starting(datasets, 'chat_template', '')"
        " and (chat_template is None or chat_template == 'tokenizer_default') and tokenizer_config is None"
        " and templateless(base_model)",
        "`chat_template choice is tokenizer_default but tokenizer's chat_template is null",
        moment=_LOADED,
    ),
    *(
        Contract(TRAIN, f"rl in {kinds!r} and foreign(datasets, 'type', {known!r})", _UNSEEN, drops="datasets", moment=_LOADED)
        for kinds, known in ((("dpo", "ipo", "simpo"), _PAIRS), (("kto",), _SINGLES), (("orpo",), _RATIOS))
    ),
)

#: the templates of LLaMA-Factory
TEMPLATES = _each(
    "alpaca bailing bailing_v2 breeze chatglm3 chatml chatml_de cohere cpm4 dbrx deepseek deepseek3 deepseekr1 hy3 "
    "deepseekcoder default dots_ocr empty ernie ernie_nothink ernie_vl exaone falcon falcon_h1 fewshot gemma gemma2 gemma3 "
    "gemma3n gemma4 gemma4n glm4 glm4_moe glm4v glm4_5v glm_ocr glm4_7 glmz1 gpt_oss granite3 granite3_vision granite4 index "
    "hunyuan hunyuan_small intern2 intern_vl intern_s1 keye_vl kimi_vl lfm2 lfm2_vl llama2 llama2_zh llama3 llama4 mllama "
    "moonlight llava llava_next llava_next_llama3 llava_next_mistral llava_next_qwen llava_next_yi llava_next_video "
    "llava_next_video_mistral llava_next_video_yi mimo mimo_v2 mimo_vl minicpm_v minicpm_v_4_6 minicpm_o minimax1 minimax2 "
    "ministral mistral mistral_small ministral3 olmo openchat openchat-3.6 opencoder paligemma paligemma_chat phi phi_small "
    "phi4 phi4_mini pixtral qwen qwen3 qwen3_nothink qwen2_audio qwen2_omni qwen3_omni qwen3_omni_nothink qwen2_vl qwen3_vl "
    "qwen3_vl_nothink qwen3_5 qwen3_5_nothink qwen3_6 sailor seed_coder seed_oss smollm smollm2 solar starchat telechat2 "
    "vicuna video_llava xuanyuan yi yi_vl youtu youtu_vl yuan zephyr aeva"
)
TEMPLATE_ROWS = (
    Contract(
        ("llamafactory.train", "llamafactory.export"),
        f"text(template) and template not in {TEMPLATES!r}",
        "Template  does not exist.",
        drops="template",
    ),
)
