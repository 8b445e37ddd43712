"""Parameters of TRL's constructors by version, and names that it no longer exports; from the released packages."""

from __future__ import annotations

_CONFIGS = "BCO CPO DPO Distillation GKD GRPO KTO ORPO OnlineDPO PPO PRM RLOO Reward SFT"
#: class -> the class whose parameters it takes as well
BASES: dict[str, str] = {f"trl.{name}Config": "transformers.TrainingArguments" for name in _CONFIGS.split()}

#: full name -> its parameters; ``lookup.py`` describes the marks of versions
ROWS: dict[str, str] = {
    "trl.BCOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 max_length "
        "max_completion_length beta disable_dropout>0.13.0 generate_during_eval is_encoder_decoder "
        "precompute_ref_log_probs model_init_kwargs trust_remote_code>1.6.0 dataset_num_proc prompt_sample_size "
        "min_density_ratio max_density_ratio truncation_mode<1.0.0 max_prompt_length<0.28.0 label_pad_token_id<0.28.0 "
        "padding_value<0.28.0 ref_model_init_kwargs<0.28.0"
    ),
    "trl.BCOTrainer": (
        "model ref_model args train_dataset eval_dataset processing_class>0.11.4 data_collator model_init callbacks "
        "optimizers preprocess_logits_for_metrics peft_config compute_metrics model_adapter_name ref_adapter_name "
        "embedding_func embedding_tokenizer tokenizer<0.13.0"
    ),
    "trl.CPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 max_length "
        "max_completion_length beta label_smoothing loss_type disable_dropout cpo_alpha>0.8.6 simpo_gamma>0.8.6 "
        "alpha>0.21.0 generate_during_eval is_encoder_decoder model_init_kwargs trust_remote_code>1.6.0 "
        "dataset_num_proc truncation_mode<1.0.0 max_prompt_length<0.28.0 label_pad_token_id<0.28.0 padding_value<0.28.0 "
        "max_target_length<0.11.4"
    ),
    "trl.CPOTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class>0.11.4 model_init callbacks optimizers "
        "preprocess_logits_for_metrics peft_config compute_metrics tokenizer<0.14.0"
    ),
    "trl.DPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs "
        "trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 disable_dropout dataset_num_proc max_length truncation_mode "
        "padding_free>0.13.0 pad_to_multiple_of>0.28.0 precompute_ref_log_probs precompute_ref_batch_size>0.12.2 "
        "loss_type loss_weights>0.19.1 ld_alpha>0.17.0 f_divergence_type f_alpha_divergence_coef label_smoothing beta "
        "use_weighting>0.11.4 discopop_tau>0.12.2 activation_offloading>0.28.0 sync_ref_model ref_model_mixup_alpha "
        "ref_model_sync_steps pad_token>0.23.1 base_model_attribute_name>0.18.2<0.29.1 force_use_ref_model<0.29.1 "
        "generate_during_eval<0.29.1 label_pad_token_id<0.29.1 max_completion_length>0.10.1<0.29.1 "
        "max_prompt_length<0.29.1 model_adapter_name<0.29.1 ref_adapter_name<0.29.1 ref_model_init_kwargs<0.29.1 "
        "reference_free<0.29.1 rpo_alpha<0.29.1 tools>0.13.0<0.29.1 use_logits_to_keep>0.14.0<0.29.1 "
        "use_liger_loss>0.18.2<0.28.0 padding_value<0.26.2 use_num_logits_to_keep>0.12.2<0.17.0 "
        "is_encoder_decoder<0.15.2 max_target_length<0.14.0"
    ),
    "trl.DPOTrainer": (
        "model ref_model args data_collator train_dataset eval_dataset processing_class>0.11.4 compute_metrics>0.6.0 "
        "callbacks optimizers quantization_config>1.6.0 peft_config optimizer_cls_and_kwargs>0.18.2<0.29.1 "
        "preprocess_logits_for_metrics<0.29.1 model_init<0.19.1 tokenizer<0.16.1 beta<0.13.0 "
        "label_smoothing>0.7.2<0.13.0 loss_type>0.7.2<0.13.0 label_pad_token_id<0.13.0 padding_value<0.13.0 "
        "truncation_mode<0.13.0 max_length<0.13.0 max_prompt_length<0.13.0 max_target_length>0.6.0<0.13.0 "
        "is_encoder_decoder>0.6.0<0.13.0 disable_dropout>0.5.0<0.13.0 generate_during_eval>0.6.0<0.13.0 "
        "precompute_ref_log_probs>0.7.2<0.13.0 dataset_num_proc>0.7.2<0.13.0 model_init_kwargs>0.7.2<0.13.0 "
        "ref_model_init_kwargs>0.7.2<0.13.0 model_adapter_name>0.7.2<0.13.0 ref_adapter_name>0.7.2<0.13.0 "
        "reference_free>0.7.2<0.13.0 force_use_ref_model>0.7.11<0.13.0"
    ),
    "trl.DistillationConfig": (
        "lr_scheduler_kwargs use_liger_kernel torch_empty_cache_steps model_init_kwargs trust_remote_code>1.6.0 "
        "teacher_model_name_or_path teacher_model_revision teacher_model_init_kwargs disable_dropout "
        "max_completion_length ds3_gather_for_generation>1.9.0 shuffle_dataset>1.9.0 pad_to_multiple_of>1.9.0 "
        "temperature top_p top_k min_p>1.9.0 generation_kwargs>1.9.0 chat_template_kwargs>1.9.0 "
        "repetition_penalty>1.9.0 cache_implementation>1.9.0 use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode "
        "vllm_structured_outputs_regex vllm_server_base_url vllm_server_host vllm_server_port vllm_server_timeout "
        "vllm_group_port vllm_gpu_memory_utilization vllm_max_model_length vllm_tensor_parallel_size beta "
        "max_tool_calling_iterations>1.10.0 log_completions num_completions_to_print log_unique_prompts>1.9.0 "
        "max_length<1.10.0 max_prompt_length<1.10.0 num_generations<1.10.0 generation_batch_size<1.10.0 "
        "vllm_sync_frequency<1.10.0 log_completions_steps<1.10.0 lmbda<1.9.0 reverse_kl_top_1_mode<1.9.0 "
        "use_teacher_server<1.9.0 teacher_model_server_url<1.9.0 loss_top_k<1.9.0 loss_add_tail<1.9.0 "
        "wandb_entity<1.8.0 wandb_project<1.8.0 wandb_run_group<1.8.0"
    ),
    "trl.DistillationTrainer": (
        "model teacher_model args train_dataset eval_dataset processing_class callbacks optimizers "
        "quantization_config>1.9.0 peft_config tools>1.10.0 data_collator<1.10.0 compute_metrics<1.10.0 "
        "preprocess_logits_for_metrics<1.10.0"
    ),
    "trl.GKDConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs "
        "trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 chat_template_path>0.18.2 dataset_text_field dataset_kwargs "
        "dataset_num_proc eos_token>0.16.1 max_length>0.15.2 truncation_mode>0.29.1 shuffle_dataset>0.25.1 packing "
        "packing_strategy>0.18.2 padding_free>0.15.2 pad_to_multiple_of>0.17.0 eval_packing completion_only_loss>0.16.1 "
        "assistant_only_loss>0.18.2 loss_type>0.22.2 activation_offloading>0.17.0 pad_token>0.15.2 temperature lmbda "
        "beta max_new_tokens teacher_model_name_or_path teacher_model_init_kwargs disable_dropout seq_kd>0.11.4 "
        "average_tokens_across_devices>0.18.2<0.23.1 max_seq_length<0.20.0 dataset_batch_size<0.18.2 "
        "num_of_sequences<0.18.2 chars_per_token<0.18.2 use_liger<0.18.2 neftune_noise_alpha<0.12.2"
    ),
    "trl.GKDTrainer": (
        "model>0.11.4 teacher_model args data_collator>0.11.4 train_dataset>0.11.4 eval_dataset>0.11.4 "
        "processing_class>0.11.4 compute_metrics>0.11.4 callbacks>0.11.4 optimizers>0.11.4 "
        "preprocess_logits_for_metrics>0.11.4 peft_config>0.11.4 formatting_func>0.11.4 model_init>0.11.4<0.15.2 "
        "tokenizer>0.11.4<0.13.0 **<0.12.2"
    ),
    "trl.GRPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs "
        "trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 disable_dropout>0.16.1 cast_lm_head_to_fp32>0.24.0 "
        "num_generations num_generations_eval>0.25.1 max_completion_length ds3_gather_for_generation>0.14.0 "
        "shuffle_dataset>0.16.1 pad_to_multiple_of>0.29.1 generation_batch_size>0.17.0 steps_per_generation>0.17.0 "
        "temperature top_p>0.15.2 top_k>0.15.2 min_p>0.15.2 generation_kwargs>0.18.2 chat_template_kwargs>0.24.0 "
        "repetition_penalty>0.15.2 cache_implementation>0.15.2 use_vllm vllm_mode>0.17.0 vllm_model_impl>0.20.0 "
        "vllm_enable_sleep_mode>0.22.2 vllm_structured_outputs_regex>0.26.2 vllm_server_base_url>0.17.0 "
        "vllm_server_host>0.15.2 vllm_server_port>0.15.2 vllm_server_timeout>0.15.2 vllm_group_port>0.26.2 "
        "vllm_gpu_memory_utilization vllm_max_model_length>0.25.1 vllm_tensor_parallel_size>0.17.0 beta "
        "num_iterations>0.15.2 epsilon>0.15.2 delta>0.17.0 epsilon_high>0.15.2 sapo_temperature_neg>0.25.1 "
        "sapo_temperature_pos>0.25.1 vespo_k_pos>0.29.1 vespo_lambda_pos>0.29.1 vespo_k_neg>0.29.1 "
        "vespo_lambda_neg>0.29.1 importance_sampling_level>0.19.1 reward_weights>0.14.0 "
        "multi_objective_aggregation>0.26.2 scale_rewards>0.15.2 loss_type>0.16.1 mask_truncated_completions>0.16.1 "
        "sync_ref_model>0.14.0 ref_model_mixup_alpha>0.14.0 ref_model_sync_steps>0.14.0 top_entropy_quantile>0.19.1 "
        "entropy_coef>1.6.0 use_adaptive_entropy>1.6.0 entropy_coef_min>1.6.0 entropy_coef_max>1.6.0 "
        "entropy_coef_delta>1.6.0 entropy_target>1.6.0 max_tool_calling_iterations>0.26.2 "
        "vllm_importance_sampling_correction>0.22.2 vllm_importance_sampling_mode>0.25.1 "
        "vllm_importance_sampling_clip_max>1.5.0 vllm_importance_sampling_clip_min>1.5.0 "
        "off_policy_mask_threshold>0.26.2 use_bias_correction_kl>0.25.1 log_completions>0.14.0 log_multimodal>1.8.0 "
        "num_completions_to_print>0.16.1 log_unique_prompts>0.25.1 log_completions_hub_repo>0.27.2 "
        "use_transformers_continuous_batching>1.6.0 transformers_continuous_batching_config>1.6.0 "
        "use_transformers_paged>0.19.1 vllm_importance_sampling_cap>0.22.2 use_liger_loss>0.16.1<0.28.0 "
        "max_prompt_length<0.28.0 vllm_guided_decoding_regex>0.15.2<0.28.0 wandb_log_unique_prompts>0.16.1<0.27.2 "
        "vllm_device<0.18.2 vllm_dtype>0.14.0<0.18.2 vllm_max_model_len>0.14.0<0.18.2 "
        "vllm_enable_prefix_caching>0.15.2<0.18.2"
    ),
    "trl.GRPOTrainer": (
        "model reward_funcs args train_dataset eval_dataset processing_class reward_processing_classes callbacks "
        "optimizers quantization_config>1.6.0 peft_config tools>0.25.1 rollout_func>0.24.0 environment_factory>0.28.0"
    ),
    "trl.KTOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 "
        "train_sampling_strategy>1.5.0 model_init_kwargs trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 "
        "disable_dropout>0.11.4 dataset_num_proc max_length pad_to_multiple_of>1.6.0 precompute_ref_log_probs "
        "precompute_ref_batch_size>1.1.0 loss_type>0.8.6 beta desirable_weight undesirable_weight "
        "activation_offloading>1.5.0 sync_ref_model>1.6.0 ref_model_mixup_alpha>1.6.0 ref_model_sync_steps>1.6.0 "
        "generate_during_eval<1.2.0 label_pad_token_id<0.28.0 padding_value<0.28.0 ref_model_init_kwargs<0.28.0 "
        "use_liger_loss>0.16.1<0.28.0 base_model_attribute_name>0.16.1<0.28.0 max_prompt_length<0.27.2 "
        "max_completion_length<0.27.2 truncation_mode<0.27.2 is_encoder_decoder<0.27.2 prompt_sample_size>0.8.6<0.10.1 "
        "min_density_ratio>0.8.6<0.10.1 max_density_ratio>0.8.6<0.10.1"
    ),
    "trl.KTOTrainer": (
        "model ref_model args data_collator train_dataset eval_dataset processing_class>0.11.4 compute_metrics "
        "callbacks optimizers quantization_config>1.6.0 peft_config model_init<1.4.0 "
        "preprocess_logits_for_metrics<1.4.0 model_adapter_name<1.2.0 ref_adapter_name<1.2.0 tokenizer<0.14.0 "
        "embedding_func>0.8.6<0.10.1 embedding_tokenizer>0.8.6<0.10.1"
    ),
    "trl.ModelConfig": (
        "model_name_or_path model_revision dtype>0.22.2 attn_implementation use_peft lora_r lora_alpha lora_dropout "
        "lora_target_modules lora_target_parameters>0.20.0 lora_modules_to_save lora_task_type>0.7.11 use_rslora>0.9.6 "
        "use_dora>0.15.2 load_in_8bit load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant "
        "bnb_4bit_quant_storage>0.25.1 trust_remote_code<1.8.0 torch_dtype<0.27.2"
    ),
    "trl.ORPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 max_length "
        "max_completion_length beta disable_dropout padding_value generate_during_eval is_encoder_decoder "
        "model_init_kwargs trust_remote_code>1.6.0 dataset_num_proc truncation_mode<1.0.0 max_prompt_length<0.28.0 "
        "label_pad_token_id<0.28.0"
    ),
    "trl.ORPOTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class>0.11.4 model_init callbacks optimizers "
        "preprocess_logits_for_metrics peft_config compute_metrics tokenizer<0.15.2"
    ),
    "trl.OnlineDPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 reward_model_path "
        "max_new_tokens max_length>0.13.0 temperature top_p>0.22.2 top_k>0.22.2 min_p>0.22.2 repetition_penalty>0.22.2 "
        "generation_kwargs>0.22.2 cache_implementation>0.22.2 missing_eos_penalty beta loss_type disable_dropout>0.10.1 "
        "use_vllm>0.13.0 vllm_model_impl>0.20.0 vllm_structured_outputs_regex>0.26.2 vllm_gpu_memory_utilization>0.22.2 "
        "vllm_mode>0.22.2 vllm_server_base_url>0.22.2 vllm_server_host>0.22.2 vllm_server_port>0.22.2 "
        "vllm_server_timeout>0.22.2 vllm_group_port>0.26.2 vllm_tensor_parallel_size>0.22.2 "
        "vllm_enable_sleep_mode>0.27.2 ds3_gather_for_generation>0.13.0 model_init_kwargs>0.19.1 "
        "trust_remote_code>1.6.0 reward_weights>0.22.2 use_transformers_paged>0.22.2<1.2.0 judge>0.11.4<1.1.0 "
        "vllm_guided_decoding_regex>0.22.2<0.27.2 dataset_num_proc<0.25.1 gpu_memory_utilization>0.16.1<0.25.1"
    ),
    "trl.OnlineDPOTrainer": (
        "model ref_model reward_funcs>0.22.2 args data_collator train_dataset eval_dataset processing_class>0.11.4 "
        "reward_processing_classes>0.22.2 peft_config>0.10.1 compute_metrics callbacks optimizers "
        "preprocess_logits_for_metrics judge<1.1.0 reward_model<0.25.1 reward_processing_class>0.11.4<0.25.1 "
        "tokenizer<0.14.0 model_init<0.11.4"
    ),
    "trl.PPOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 dataset_num_proc>0.9.6 "
        "num_mini_batches>0.11.4 total_episodes>0.11.4 local_rollout_forward_batch_size>0.11.4 "
        "num_sample_generations>0.11.4 response_length>0.11.4 stop_token>0.11.4 stop_token_id>0.11.4 temperature>0.11.4 "
        "missing_eos_penalty>0.11.4 sft_model_path>0.11.4 world_size>0.6.0 num_total_batches>0.11.4 "
        "micro_batch_size>0.11.4 local_batch_size>0.11.4 batch_size local_mini_batch_size>0.11.4 mini_batch_size "
        "reward_model_path>0.11.4 model_adapter_name>0.12.2 ref_adapter_name>0.12.2 num_ppo_epochs>0.11.4 "
        "whiten_rewards>0.7.2 kl_coef>0.11.4 kl_estimator>0.16.1 cliprange vf_coef cliprange_value gamma lam "
        "ds3_gather_for_generation>0.13.0 exp_name>0.6.0<0.28.0 log_with<0.12.2 task_name<0.12.2 model_name<0.12.2 "
        "query_dataset>0.6.0<0.12.2 reward_model>0.6.0<0.12.2 tracker_kwargs<0.12.2 accelerator_kwargs<0.12.2 "
        "project_kwargs<0.12.2 tracker_project_name<0.12.2 push_to_hub_if_best_kwargs<0.12.2 steps<0.12.2 "
        "adap_kl_ctrl<0.12.2 init_kl_coef<0.12.2 kl_penalty<0.12.2 target<0.12.2 horizon<0.12.2 "
        "forward_batch_size<0.12.2 ppo_epochs<0.12.2 optimize_cuda_cache<0.12.2 optimize_device_cache>0.7.2<0.12.2 "
        "early_stopping<0.12.2 target_kl<0.12.2 compare_steps<0.12.2 ratio_threshold<0.12.2 "
        "use_score_scaling>0.5.0<0.12.2 use_score_norm>0.5.0<0.12.2 score_clip>0.5.0<0.12.2 "
        "is_encoder_decoder>0.6.0<0.12.2 is_peft_model>0.6.0<0.12.2 backward_batch_size>0.4.7<0.12.2 "
        "global_backward_batch_size>0.6.0<0.12.2 global_batch_size>0.6.0<0.12.2"
    ),
    "trl.PPOTrainer": (
        "args>0.12.2 processing_class>0.11.4 model ref_model reward_model>0.11.4 train_dataset>0.11.4 "
        "value_model>0.11.4 data_collator eval_dataset>0.11.4 optimizers>0.11.4 callbacks>0.11.4 peft_config>0.12.2 "
        "config<0.15.2 policy>0.11.4<0.15.2 ref_policy>0.11.4<0.15.2 tokenizer<0.15.2 dataset<0.12.2 optimizer<0.12.2 "
        "num_shared_layers<0.12.2 lr_scheduler<0.12.2 training_data_collator>0.8.6<0.12.2"
    ),
    "trl.PRMConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 max_length "
        "max_completion_length disable_dropout>0.13.0 step_separator train_on_last_step_only dataset_num_proc "
        "max_prompt_length>0.13.0<0.28.0 average_tokens_across_devices>0.18.2<0.23.1"
    ),
    "trl.PRMTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class model_init compute_metrics callbacks "
        "optimizers preprocess_logits_for_metrics peft_config"
    ),
    "trl.RLOOConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs>0.21.0 "
        "trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 disable_dropout>0.21.0 num_generations>0.21.0 "
        "num_generations_eval>0.25.1 max_completion_length>0.21.0 ds3_gather_for_generation>0.13.0 "
        "shuffle_dataset>0.21.0 pad_to_multiple_of>0.29.1 generation_batch_size>0.21.0 steps_per_generation>0.21.0 "
        "temperature top_p>0.21.0 top_k>0.21.0 min_p>0.21.0 generation_kwargs>0.21.0 chat_template_kwargs>0.24.0 "
        "repetition_penalty>0.21.0 cache_implementation>0.21.0 use_vllm>0.21.0 vllm_mode>0.21.0 vllm_model_impl>0.21.0 "
        "vllm_enable_sleep_mode>0.23.1 vllm_structured_outputs_regex>0.26.2 vllm_server_base_url>0.21.0 "
        "vllm_server_host>0.21.0 vllm_server_port>0.21.0 vllm_server_timeout>0.21.0 vllm_group_port>0.26.2 "
        "vllm_gpu_memory_utilization>0.21.0 vllm_max_model_length>0.26.2 vllm_tensor_parallel_size>0.21.0 beta>0.21.0 "
        "num_iterations>0.21.0 epsilon>0.21.0 epsilon_high>0.21.0 reward_weights>0.21.0 normalize_advantages>0.21.0 "
        "reward_clip_range>0.13.0 mask_truncated_completions>0.21.0 sync_ref_model>0.21.0 ref_model_mixup_alpha>0.21.0 "
        "ref_model_sync_steps>0.21.0 log_completions>0.21.0 log_multimodal>1.8.0 num_completions_to_print>0.21.0 "
        "log_unique_prompts>0.25.1 use_transformers_continuous_batching>1.6.0 "
        "transformers_continuous_batching_config>1.6.0 use_transformers_paged>0.21.0 max_prompt_length>0.21.0<0.29.1 "
        "vllm_guided_decoding_regex>0.21.0<0.28.0 wandb_log_unique_prompts>0.21.0<0.27.2 rloo_k<0.25.1 cliprange<0.25.1 "
        "kl_coef<0.25.1 exp_name<0.25.1 normalize_reward>0.13.0<0.25.1 num_ppo_epochs<0.25.1 num_mini_batches<0.25.1 "
        "total_episodes<0.25.1 response_length<0.25.1 token_level_kl>0.13.0<0.25.1 dataset_num_proc>0.9.6<0.25.1 "
        "local_rollout_forward_batch_size<0.25.1 num_sample_generations<0.25.1 stop_token<0.25.1 stop_token_id<0.25.1 "
        "missing_eos_penalty>0.10.1<0.25.1 sft_model_path<0.22.2 world_size<0.22.2 num_total_batches>0.9.6<0.22.2 "
        "micro_batch_size<0.22.2 local_batch_size<0.22.2 batch_size<0.22.2 local_mini_batch_size<0.22.2 "
        "mini_batch_size<0.22.2 reward_model_path<0.22.2 whiten_rewards<0.22.2 normalize_advantage>0.13.0<0.22.2 "
        "sanity_check<0.11.4 penalty_reward_value<0.11.4 non_eos_penalty<0.11.4 num_updates<0.10.1 base_model<0.10.1 "
        "vf_coef<0.10.1 cliprange_value<0.10.1 gamma<0.10.1 lam<0.10.1"
    ),
    "trl.RLOOTrainer": (
        "model>0.21.0 reward_funcs>0.21.0 args>0.21.0 train_dataset eval_dataset processing_class>0.11.4 "
        "reward_processing_classes>0.21.0 callbacks optimizers quantization_config>1.6.0 peft_config>0.21.0 "
        "config<0.25.1 reward_model<0.25.1 policy<0.25.1 ref_policy<0.25.1 data_collator<0.25.1 tokenizer<0.14.0"
    ),
    "trl.RewardConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs>0.23.1 "
        "trust_remote_code>1.6.0 chat_template_path>0.23.1 disable_dropout>0.13.0 dataset_num_proc>0.9.6 "
        "eos_token>0.23.1 max_length pad_to_multiple_of>0.23.1 center_rewards_coefficient>0.9.6 "
        "activation_offloading>0.23.1 pad_token>0.23.1 average_tokens_across_devices>0.18.2<0.23.1"
    ),
    "trl.RewardTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class>0.11.4 compute_metrics callbacks "
        "optimizers optimizer_cls_and_kwargs>0.23.1 preprocess_logits_for_metrics quantization_config>1.6.0 peft_config "
        "model_init<0.24.0 tokenizer<0.15.2 max_length<0.14.0"
    ),
    "trl.SFTConfig": (
        "lr_scheduler_kwargs>0.24.0 use_liger_kernel>0.28.0 torch_empty_cache_steps>0.28.0 model_init_kwargs "
        "trust_remote_code>1.6.0 router_aux_loss_coef>1.6.0 chat_template_path>0.18.2 dataset_text_field dataset_kwargs "
        "dataset_num_proc eos_token>0.16.1 max_length>0.15.2 truncation_mode>0.29.1 shuffle_dataset>0.25.1 packing "
        "packing_strategy>0.18.2 padding_free>0.15.2 pad_to_multiple_of>0.17.0 eval_packing completion_only_loss>0.16.1 "
        "assistant_only_loss>0.18.2 loss_type>0.22.2 activation_offloading>0.17.0 pad_token>0.15.2 "
        "average_tokens_across_devices>0.18.2<0.23.1 max_seq_length<0.20.0 dataset_batch_size<0.18.2 "
        "num_of_sequences<0.18.2 chars_per_token<0.18.2 use_liger>0.9.6<0.18.2 neftune_noise_alpha<0.12.2"
    ),
    "trl.SFTTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class>0.11.4 compute_loss_func>0.14.0 "
        "compute_metrics callbacks optimizers optimizer_cls_and_kwargs>0.14.0 preprocess_logits_for_metrics "
        "quantization_config>1.6.0 peft_config formatting_func tokenizer<0.16.1 model_init<0.15.2 "
        "dataset_text_field<0.13.0 packing<0.13.0 max_seq_length<0.13.0 infinite<0.13.0 num_of_sequences<0.13.0 "
        "chars_per_token<0.13.0 dataset_num_proc>0.4.7<0.13.0 dataset_batch_size>0.4.7<0.13.0 "
        "neftune_noise_alpha>0.7.2<0.13.0 model_init_kwargs>0.7.2<0.13.0 dataset_kwargs>0.7.2<0.13.0 "
        "eval_packing>0.7.11<0.13.0"
    ),
    "trl.clone_chat_template": "model tokenizer source_tokenizer_path resize_to_multiple_of",
    "trl.setup_chat_format": "model tokenizer format resize_to_multiple_of",
}

#: first version without the names -> the names
REMOVED: dict[str, str] = {
    "0.9.6": "DpoScriptArguments SftScriptArguments",
    "0.12.2": "MultitaskPromptEmbedding MultitaskPromptTuningConfig MultitaskPromptTuningInit",
    "0.13.0": "DPOScriptArguments PPOv2Config PPOv2Trainer RandomPairwiseJudge RandomRankJudge SFTScriptArguments",
    "0.20.0": "DataCollatorForCompletionOnlyLM pack_examples",
    "0.21.0": "TextEnvironment TextHistory",
    "0.24.0": (
        "AlignPropConfig AlignPropTrainer DDPOConfig DDPOPipelineOutput DDPOSchedulerOutput DDPOStableDiffusionPipeline "
        "DDPOTrainer DefaultDDPOStableDiffusionPipeline IterativeSFTConfig IterativeSFTTrainer"
    ),
    "0.25.1": "BestOfNSampler",
    "0.26.2": "setup_chat_format",
    "0.27.2": "MergeModelCallback",
    "0.29.1": (
        "AllTrueJudge AutoModelForCausalLMWithValueHead AutoModelForSeq2SeqLMWithValueHead BCOConfig BCOTrainer "
        "BaseBinaryJudge BaseJudge BasePairwiseJudge BaseRankJudge CPOConfig CPOTrainer FDivergenceConstants "
        "FDivergenceType GKDConfig GKDTrainer HfPairwiseJudge NashMDConfig NashMDTrainer ORPOConfig ORPOTrainer "
        "OnlineDPOConfig OnlineDPOTrainer OpenAIPairwiseJudge PPOConfig PPOTrainer PRMConfig PRMTrainer PairRMJudge "
        "PreTrainedModelWrapper WinRateCallback XPOConfig XPOTrainer"
    ),
    "1.0.0": "truncate_dataset",
    "1.8.0": "get_kbit_device_map",
}
