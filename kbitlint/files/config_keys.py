"""Checks of the keys in an untrusted config before a library builds it.

For ``adapter_config.json`` there is an allow list: every key of the PEFT config classes from 0.19 to 0.21, with its
values. The keys of ``config.json`` depend on the architecture, so only those that name code or files elsewhere are
refused. ``kbitlint.runtime.confinement`` stops the acts of any other key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kbitlint.errors import TargetError
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path

Check = Callable[[Any], bool]
_WORD = re.compile(r"[\w.+\[\]-]{1,80}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _is_word(value: Any) -> bool:
    """Return whether a value is a number or one word. Such a word can be neither a path nor a Hub id."""
    return _is_number(value) or (isinstance(value, str) and _WORD.fullmatch(value) is not None and ".." not in value)


def _are_numbers(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, list) and all(map(_are_numbers, value)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Any) -> bool:
    """Return whether a value is a module name or pattern, or a list of them. PEFT compares these and never opens them."""
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_table(value: Any) -> bool:
    """Return whether a value maps module names to numbers."""
    return isinstance(value, Mapping) and all(map(_are_numbers, value.values()))


def _are_token_indices(value: Any) -> bool:
    return _are_numbers(value) or _is_table(value)


def _is_plain(value: Any) -> bool:
    """Return whether a value is a nested configuration that contains only numbers, words and module names."""
    return isinstance(value, Mapping) and all(
        _is_word(item) or _are_numbers(item) or _are_names(item) or item is None for item in value.values()
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that some keys may have, besides null."""

    words: str
    """The values in words, for the error message."""
    allows: Check


_FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_NUMBER = Kind("a number", _is_number)
_NUMBERS = Kind("numbers", _are_numbers)
_ONE_WORD = Kind("one word or a flag", _is_word)
_TEXT = Kind("text", _is_text)
_NAMES = Kind("names of modules", _are_names)
_TABLE = Kind("numbers by names of modules", _is_table)
_TOKENS = Kind("token ids, or lists of them by names of modules", _are_token_indices)
_PLAIN = Kind("an object of numbers and words", _is_plain)

_BY_KIND: tuple[tuple[Kind, str], ...] = (
    (_TEXT, "base_model_name_or_path revision peft_version"),
    (
        _NAMES,
        "target_modules exclude_modules modules_to_save layers_pattern feedforward_modules target_parameters",
    ),
    (
        _ONE_WORD,
        """peft_type task_type bias init_lora_weights init_weights init_ia3_weights ab_svd_init act_fn config_A_B config_C
        config_D_E decomposition_method encoder_reparameterization_type mask_type opt_weighted_loss_type poly_type psoft_svd
        variant wavelet_family""",
    ),
    (
        _FLAG,
        """inference_mode fan_in_fan_out apply_GS block_share coft decompose_both enable_softmax enable_softmax_topk
        ensure_weight_tying layerwise_scalings lora_bias para prefix_projection progressbar proportional_parameters psoft_mag_a
        psoft_mag_b psoft_orth rank_dropout_scale runtime_offload_base_weight sample_at_inference save_indices
        save_only_topk_weights save_precomputed_indices save_projection select_top share_embeddings sparse use_asa
        use_cayley_neumann use_dora use_dynamic_rank use_effective_conv2d use_idwt use_qalora use_rslora use_trainable_adapters
        very_sparse""",
    ),
    (
        _NUMBER,
        """r adapter_layers adapter_len alpha asa_importance_beta asa_schedule_exponent asa_target_subspaces
        asa_uncertainty_beta auxiliary_loss_weight beta1 beta2 block_size boft_block_num boft_block_size boft_dropout
        boft_n_butterfly_factor cayley_neumann_eps d_initial decompose_factor deft_dropout delora_lambda deltaT depth
        effective_rank encoder_dropout encoder_hidden_size encoder_num_layers eps final_warmup frod_dropout generator_seed
        global_scaling_weight gralora_dropout gralora_k group_size hidden_size hira_dropout hybrid_r init_logits_std init_r
        init_scale init_theta_d_bound init_v_bound init_vector_bank_bound init_warmup lora_alpha lora_dropout mask_interval
        mini_r miss_dropout module_dropout n_frequency n_skills n_splits n_tasks num_B num_attention_heads
        num_cayley_neumann_terms num_frozen_tokens num_layers num_ranks num_subspaces num_tasks num_transformer_submodules
        num_vectors num_virtual_tokens oft_block_size opt_loss_decay_factor opt_projection_epsilon
        opt_projection_format_epsilon orth_reg_weight proj_seed projection_prng_key projection_seed prompt_tuning_init_task
        psoft_alpha psoft_dropout psoft_svd_lowrank_niter pvera_dropout qalora_group_size randlora_alpha randlora_dropout
        random_loc_seed random_seed rank_dropout regularization_alpha scaling scaling_pass_value shadow_alpha shadow_dropout
        shadow_hidden_size shadow_intermediate_size shadow_num_attention_heads shadow_num_hidden_layers softmax_temperature
        sparse_rate sparsity stride_A subspace_rank svd_threshold target_r tfinal theta_d_length tinit tinylora_dropout
        token_dim top_k_lora topk total_step u unilora_dropout update_hidden_size vblora_dropout vector_length vera_dropout
        weight_tying xlora_depth xlora_dropout_p xlora_size""",
    ),
    (_NUMBERS, "alora_invocation_tokens cpt_mask cpt_token_ids cpt_tokens_type_mask layer_replication layers_to_transform"),
    (_TOKENS, "token_indices trainable_token_indices"),
    (
        _TABLE,
        "alpha_pattern block_size_pattern lambda_pattern n_frequency_pattern rank_pattern target_svd_config",
    ),
    (
        _PLAIN,
        """arrow_config eva_config kasa_config loftq_config lora_ga_config monteclora_config use_bdlora velora_config""",
    ),
)
KINDS: Mapping[str, Kind] = {key: kind for kind, keys in _BY_KIND for key in keys.split()}

#: keys that PEFT uses only for initial values, which the adapter's weights replace, or if it loads nothing
LEFT_OUT = frozenset(
    (
        *("auto_mapping", "corda_config", "megatron_core", "runtime_config"),
        *("prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path"),
    )
)
#: keys whose value makes PEFT load something -> that thing in words
REFUSED: Mapping[str, str] = {
    "adapters": "further adapters, which PEFT would load",
    "megatron_config": "a configuration of Megatron, for which PEFT would import a package",
    "prompt_tuning_init_state_dict_path": "a file, which PEFT would unpickle",
}
#: key -> its values that load nothing
ONLY: Mapping[str, tuple[str, ...]] = {
    "shadow_model": ("mirror",),
    "prompt_tuning_init": (
        *("RANDOM", "SAMPLE_VOCAB", "TEXT"),
        *("AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED"),
    ),
}


def adapter_values(file: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an adapter's config that are safe to pass to PEFT. PEFT builds the same modules from them.

    Args:
        file: ``adapter_config.json``, for the message.
        config: Its content.
        defaults: The fields of its PEFT class with their defaults. PEFT ignores other keys, so they are left out.

    Raises:
        TargetError: If a key is unknown, or its value could make PEFT load, import or fetch something.
    """
    values: dict[str, Any] = {}
    for key, value in config.items():
        if key in LEFT_OUT or key not in defaults:
            continue
        problem = None if value is None or value == defaults[key] else _problem(key, value)
        if problem is not None:
            raise TargetError(file, f"{key}: {problem}; it is not passed on to PEFT")
        values[key] = value
    if values.get("prompt_tuning_init") == "TEXT":  # the text sets initial values, and PEFT would fetch a tokenizer for it
        values["prompt_tuning_init"] = "RANDOM"
    if "progressbar" in defaults:  # FRoD would print a progress bar to stderr
        values["progressbar"] = False
    return values


def _problem(key: str, value: Any) -> str | None:
    if key in REFUSED:
        return f"names {REFUSED[key]}" if value else None
    if key in ONLY:
        return None if value in ONLY[key] else f"must be one of {', '.join(ONLY[key])}; PEFT would load anything else"
    kind = KINDS.get(key)
    if kind is None:
        return "is not known to this version of kbitlint, and not at its default"
    return None if kind.allows(value) else f"must hold {kind.words}"


_IMPLEMENTATION = re.compile(r"_?(attn|attention|experts|kernel)_?implementation(_internal)?")


def refuse_places(file: object, values: Any, at: str = "") -> None:
    """Raise TargetError if a model's config, or a part of it, names code on the Hub or a model or file elsewhere.

    Args:
        file: The config's file, or the Hub id, for the message.
        values: Its content.
        at: The keys that lead to the part, each followed by a dot.
    """
    for key, value in values.items() if isinstance(values, Mapping) else ():
        problem = _place(str(key), value)
        if problem is not None:
            raise TargetError(file, f"{at}{key}: {problem} unless you pass --trust-remote-code")
        for part in value if isinstance(value, list) else (value,):
            refuse_places(file, part, f"{at}{key}.")


def _place(key: str, value: Any) -> str | None:
    if _IMPLEMENTATION.fullmatch(key):
        found = [one for one in (value.values() if isinstance(value, Mapping) else (value,)) if isinstance(one, str)]
        kernel = next((one for one in found if "/" in one), None)
        return None if kernel is None else f"asks for the kernel {kernel!r} of the Hub, code that is never run"
    if not isinstance(value, str):
        return None
    if key == "backbone" and re.search(r"[/\\:]", value):
        return f"names the model {value!r} elsewhere, which is never fetched"
    if key == "transformers_weights" and not re.fullmatch(r"[^/\\]+\.safetensors(\.index\.json)?", value):
        return f"names the file {value!r}, no safetensors file of the folder, and is never loaded"
    return None
