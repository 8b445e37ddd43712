"""Members of the trainers of TRL beside those of their base, by version; from the released packages."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "trl.SFTTrainer": (
        "aux_loss_enabled>0.20.0 chat_template>1.0.0 completion_only_loss>0.16.1 dataset_batch_size<0.16.1 "
        "dataset_num_proc<0.16.1 maybe_activation_offload_context>0.16.1 num_virtual_tokens>0.20.0<1.16.0 "
        "padding_free>0.16.1 router_aux_loss_coef>1.0.0"
    ),
    "trl.DPOTrainer": (
        "aux_loss_coef>0.9.6<1.0.0 aux_loss_enabled>0.7.11 beta build_tokenized_answer<0.12.2 compute_ref_log_probs>0.9.6 "
        "compute_reference_log_probs<0.12.2 concatenated_forward<1.0.0 concatenated_inputs<1.0.0 dataset_num_proc<1.0.0 "
        "dpo_loss<1.0.0 dpo_loss_fn>0.16.1<1.0.0 eos_token_id>0.24.0<1.16.0 f_alpha_divergence_coef>0.24.0 "
        "f_divergence_params>0.7.11<1.0.0 f_divergence_type>0.7.11 generate_during_eval<1.0.0 "
        "generate_from_model_and_ref>0.9.6<1.0.0 get_batch_logps<0.12.2 get_batch_loss_metrics<1.0.0 "
        "is_encoder_decoder<1.0.0 is_peft_model<1.0.0 is_vision_model>0.7.11<1.0.0 label_pad_token_id<1.0.0 label_smoothing "
        "ld_alpha>0.24.0 liger_loss_fn>0.24.0<1.16.0 loss_type<1.0.0 loss_types>0.24.0 loss_weights>0.16.1 "
        "max_completion_length>0.9.6<1.0.0 max_length<1.0.0 max_prompt_length<1.0.0 max_target_length<0.12.2 "
        "maybe_activation_offload_context>0.24.0 model_adapter_name<1.0.0 null_ref_context<1.0.0 pad_token>0.24.0 "
        "pad_token_id>0.20.0 padding_free>0.12.2 padding_value<1.0.0 precompute_ref_log_probs<1.0.0 "
        "precompute_ref_logps>0.24.0 process_row>0.9.6<1.0.0 processor>0.7.11<0.12.2 ref_adapter_name<1.0.0 ref_model "
        "reference_free<1.0.0 router_aux_loss_coef>1.0.0 running>0.7.11<1.0.0 store_metrics<1.0.0 tokenize_row<1.0.0 "
        "truncation_mode<1.0.0 use_dpo_data_collator<0.12.2 use_liger_kernel>0.24.0 use_logits_to_keep>0.12.2<1.0.0 "
        "use_weighting>0.9.6"
    ),
    "trl.GRPOTrainer": (
        "async_loop>0.24.0 async_loop_ready_event>0.24.0 async_loop_thread>0.24.0 aux_loss_enabled>1.0.0 beta "
        "chat_template>0.24.0 chat_template_kwargs>0.24.0 commit_scheduler>0.24.0 compute_liger_loss>0.16.1<1.16.0 "
        "continuous_batching_config>1.0.0 entropy_coef>1.0.0 environment_factories>1.0.0 environments>0.24.0 "
        "eos_token_id>0.16.1<1.16.0 eos_token_ids>1.0.0 epsilon_high epsilon_low generation_config generation_kwargs>0.24.0 "
        "get_gamma_weights>0.24.0 get_high_entropy_mask>0.20.0 get_off_policy_mask>0.24.0 guided_decoding_regex<1.0.0 "
        "image_token>0.16.1<0.24.0 image_token_id>0.16.1<0.24.0 importance_sampling_level>0.16.1 "
        "liger_grpo_loss>0.16.1<1.16.0 llm>0.16.1<1.0.0 log_completions log_multimodal>1.0.0 log_unique_prompts>0.24.0 "
        "loss_type>0.16.1 mask_truncated_completions>0.16.1 max_completion_length max_prompt_length<1.0.0 "
        "max_tool_calling_iterations>0.24.0 min_p model_kwarg_keys>0.16.1 multi_objective_aggregation>0.24.0 "
        "num_completions_to_print>0.16.1 num_generations num_generations_eval>0.24.0 num_iterations "
        "off_policy_mask_threshold>0.24.0 pad_to_multiple_of>0.24.0 pad_token>0.16.1 pad_token_id>0.16.1 ref_model "
        "repetition_penalty reward_func_names>0.16.1 reward_funcs reward_processing_classes reward_weights "
        "rollout_func>0.24.0 router_aux_loss_coef>1.0.0 scale_rewards>0.16.1 shuffle_dataset>0.16.1 temperature "
        "tools>0.24.0 top_entropy_quantile>0.16.1 top_k top_p tp_group>0.16.1<1.0.0 use_adaptive_entropy>1.0.0 "
        "use_liger_kernel>0.24.0 use_liger_loss>0.16.1<1.0.0 use_transformers_continuous_batching>1.0.0 "
        "use_transformers_paged>0.16.1 use_vllm vision_end_token_id>0.16.1<0.24.0 vision_start_token_id>0.16.1<0.24.0 "
        "vllm_client<1.0.0 vllm_generation>0.24.0 vllm_gpu_memory_utilization>0.16.1 vllm_importance_sampling_cap>0.20.0 "
        "vllm_importance_sampling_clip_max>1.0.0 vllm_importance_sampling_clip_min>1.0.0 "
        "vllm_importance_sampling_correction>0.20.0 vllm_importance_sampling_mode>0.24.0 vllm_mode>0.16.1 "
        "vllm_tensor_parallel_size>0.16.1 wandb_log_unique_prompts>0.16.1<1.0.0"
    ),
    "trl.RewardTrainer": (
        "aux_loss_enabled>0.20.0 maybe_activation_offload_context>0.20.0 use_reward_data_collator<0.24.0 "
        "visualize_samples>0.7.11<0.24.0"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {}
