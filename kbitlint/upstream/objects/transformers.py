"""Members and parameters of what transformers makes, by version; from the released packages."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "transformers.Trainer": (
        "accelerator add_callback amp_dtype<5.0.0 args autocast_smart_context_manager call_model_init callback_handler "
        "can_return_loss compare_trainer_and_checkpoint_args>4.36.2 compute_loss compute_loss_context_manager "
        "compute_loss_func>4.44.2 compute_metrics compute_objective control create_accelerator_and_postprocess "
        "create_model_card create_optimizer create_optimizer_and_scheduler create_scheduler current_flos "
        "current_gradient_accumulation_steps>4.52.4 data_collator deepspeed end>5.0.0 eval_dataset evaluate evaluation_loop "
        "floating_point_ops gather_function get_batch_samples>4.44.2 get_cp_size>4.57.1 get_decay_parameter_names "
        "get_eval_dataloader get_learning_rates>4.36.2 get_num_trainable_parameters>4.36.2 get_optimizer_cls_and_kwargs "
        "get_optimizer_group>4.36.2 get_sp_size>4.57.1 get_test_dataloader get_total_train_batch_size>4.52.4 "
        "get_tp_size>4.52.4 get_train_dataloader hp_name hp_search_backend hp_space hub_model_id hyperparameter_search "
        "init_hf_repo initial_num_input_tokens_seen_for_session>4.57.1<5.23.0 ipex_optimize_model<4.57.1 "
        "is_deepspeed_enabled is_distributed_loading_by_transformers>5.0.0 is_fsdp_enabled is_fsdp_xla_enabled "
        "is_fsdp_xla_v1_enabled>4.44.2 is_fsdp_xla_v2_enabled>4.36.2 is_in_train is_local_process_zero is_model_parallel "
        "is_tp_enabled>4.44.2<5.23.0 is_world_process_zero jit_compilation_time<5.0.0 label_names label_smoother log "
        "log_metrics loss_is_scaled_for_ga>5.0.0 lr_scheduler metrics_format model model_accepts_loss_kwargs>4.44.2 "
        "model_init model_preparation_time>4.36.2 model_wrapped neftune_hook_handle neftune_noise_alpha num_examples "
        "num_tokens objective optimizer optimizer_cls_and_kwargs>4.44.2 place_model_on_device pop_callback predict "
        "prediction_loop<5.0.0 prediction_step preprocess_logits_for_metrics processing_class>4.44.2 "
        "propagate_args_to_deepspeed>4.36.2 push_in_progress push_to_hub remove_callback save_metrics save_model save_state "
        "set_initial_training_values>4.44.2 state store_flos tokenizer<5.0.0 torch_jit_model_eval<5.0.0 train train_dataset "
        "training_step use_apex<5.0.0 use_cpu_amp<5.0.0"
    ),
    "transformers.TrainOutput": "count global_step index metrics training_loss",
    "transformers.PredictionOutput": "count index label_ids metrics predictions",
    "transformers.TrainerState": (
        "best_global_step>4.44.2 best_metric best_model_checkpoint compute_steps>4.44.2 epoch eval_steps global_step "
        "init_training_references>4.44.2 is_hyper_param_search is_local_process_zero is_world_process_zero load_from_json "
        "log_history logging_steps max_steps num_input_tokens_seen num_train_epochs save_steps save_to_json "
        "stateful_callbacks>4.36.2 total_flos train_batch_size trial_name trial_params"
    ),
    "transformers.TrainingArguments": (
        "accelerator_config>4.36.2 activation_checkpointing>5.0.0 activation_checkpointing_kwargs>5.0.0 adafactor<5.0.0 "
        "adam_beta1 adam_beta2 adam_epsilon auto_find_batch_size average_tokens_across_devices>4.44.2 "
        "batch_eval_metrics>4.36.2 bf16 bf16_full_eval data_seed dataloader_drop_last dataloader_in_order>5.0.0 "
        "dataloader_multiprocessing_context>5.0.0 dataloader_num_workers dataloader_persistent_workers "
        "dataloader_pin_memory dataloader_prefetch_factor>4.36.2 ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb "
        "ddp_find_unused_parameters ddp_static_graph>5.0.0 ddp_timeout ddp_timeout_delta debug deepspeed deepspeed_plugin "
        "default_optim device disable_tqdm dispatch_batches<4.52.4 distributed_state do_eval do_predict do_train "
        "enable_jit_checkpoint>4.57.1 eval_accumulation_steps eval_batch_size eval_delay eval_do_concat_batches>4.36.2 "
        "eval_on_start>4.36.2 eval_steps eval_strategy>4.36.2 eval_use_gather_object>4.36.2 evaluation_strategy<4.52.4 fp16 "
        "fp16_backend<5.0.0 fp16_full_eval fp16_opt_level<5.0.0 framework<5.0.0 fsdp fsdp_config fsdp_min_num_params<5.0.0 "
        "fsdp_plugin_args>4.57.1 fsdp_transformer_layer_cls_to_wrap<5.0.0 full_determinism get_process_log_level "
        "get_warmup_steps gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs "
        "greater_is_better group_by_length<5.23.0 half_precision_backend<5.0.0 hf_deepspeed_config hub_always_push "
        "hub_model_id hub_private_repo hub_revision>4.52.4 hub_strategy hub_token ignore_data_skip "
        "include_for_metrics>4.44.2 include_inputs_for_metrics<5.0.0 include_num_input_tokens_seen "
        "include_tokens_per_second<5.0.0 is_torch_greater_or_equal_than_2_8 jit_mode_eval<5.0.0 label_names "
        "label_smoothing_factor learning_rate length_column_name liger_kernel_config>4.52.4 load_best_model_at_end "
        "local_process_index local_rank log_level log_level_replica log_on_each_node logging_dir logging_first_step "
        "logging_nan_inf_filter logging_steps logging_strategy lr_scheduler_kwargs lr_scheduler_type main_process_first "
        "max_grad_norm max_steps metric_for_best_model mixed_precision>4.57.1 mp_parameters<5.0.0 n_gpu neftune_noise_alpha "
        "no_cuda<5.0.0 num_train_epochs optim optim_args optim_target_modules>4.36.2 output_dir overwrite_output_dir<5.0.0 "
        "parallel_mode parallelism_config>4.52.4 past_index<5.0.0 per_device_eval_batch_size per_device_train_batch_size "
        "per_gpu_eval_batch_size<5.0.0 per_gpu_train_batch_size<5.0.0 place_model_on_device prediction_loss_only "
        "process_index project>4.52.4 push_to_hub push_to_hub_model_id<5.0.0 push_to_hub_organization<5.0.0 "
        "push_to_hub_token<5.0.0 ray_scope<5.0.0 remove_unused_columns report_to "
        "restore_callback_states_from_checkpoint>4.36.2 resume_from_checkpoint run_name save_on_each_node save_only_model "
        "save_safetensors<5.0.0 save_steps save_strategy save_total_limit seed set_dataloader set_evaluate set_logging "
        "set_lr_scheduler set_optimizer set_push_to_hub set_save set_testing set_training should_log should_save "
        "skip_memory_metrics split_batches<4.52.4 tf32 to_dict to_json_string to_sanitized_dict torch_compile "
        "torch_compile_backend torch_compile_mode torch_empty_cache_steps>4.36.2 torchdynamo<5.0.0 tpu_metrics_debug<5.0.0 "
        "tpu_num_cores<5.0.0 trackio_bucket_id>5.0.0 trackio_space_id>4.52.4 trackio_static_space_id>5.0.0 train_batch_size "
        "train_sampling_strategy>5.0.0 use_cache>4.57.1 use_cpu use_ipex<4.57.1 use_legacy_prediction_loop<5.0.0 "
        "use_liger_kernel>4.44.2 use_mps_device<5.0.0 warmup_ratio<5.23.0 warmup_steps weight_decay world_size "
        "xla_fsdp_config"
    ),
    "transformers.GenerationConfig": (
        "assistant_confidence_threshold>4.44.2 assistant_early_exit>4.44.2 assistant_ensemble_weight>5.0.0 "
        "assistant_lookbehind>4.44.2 bad_words_ids begin_suppress_tokens bos_token_id cache_config>4.36.2 "
        "cache_implementation>4.36.2 compile_config>4.44.2 constraints continuous_batching_config>5.0.0 "
        "decoder_start_token_id dict_dtype_to_str>4.52.4 dict_torch_dtype_to_str<4.57.1 disable_compile>4.44.2 "
        "diversity_penalty do_sample dola_layers>4.36.2 early_stopping encoder_no_repeat_ngram_size "
        "encoder_repetition_penalty eos_token_id epsilon_cutoff eta_cutoff exponential_decay_length_penalty "
        "extra_output_flags>4.44.2 force_words_ids forced_bos_token_id forced_decoder_ids<4.57.1 forced_eos_token_id "
        "from_dict from_model_config from_pretrained generation_kwargs<4.57.1 get_generation_mode>4.36.2 guidance_scale "
        "is_assistant>4.44.2 length_penalty low_memory max_cache_len>5.0.0 max_length max_matching_ngram_size>4.36.2 "
        "max_new_tokens max_time min_length min_new_tokens min_p>4.36.2 no_repeat_ngram_size num_assistant_tokens "
        "num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_attentions "
        "output_hidden_states output_logits>4.36.2 output_scores pad_token_id penalty_alpha prefill_chunk_size>4.44.2 "
        "prompt_lookup_num_tokens>4.36.2 push_to_hub remove_invalid_values renormalize_logits repetition_penalty "
        "return_dict_in_generate return_legacy_cache>4.36.2<5.0.0 save_pretrained sequence_bias speculation_type>5.0.0 "
        "stop_strings>4.36.2 suppress_tokens target_lookbehind>4.44.2 temperature to_dict to_diff_dict to_json_file "
        "to_json_string token_healing>4.36.2 top_h>4.57.1 top_k top_p transformers_version typical_p update use_cache "
        "use_mtp>5.0.0 validate watermarking_config>4.36.2"
    ),
    "transformers.BitsAndBytesConfig": (
        "bnb_4bit_compute_dtype bnb_4bit_quant_storage>4.36.2 bnb_4bit_quant_type bnb_4bit_use_double_quant from_dict "
        "is_quantizable llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight llm_int8_skip_modules llm_int8_threshold "
        "load_in_4bit load_in_8bit post_init quant_method quantization_method to_dict to_diff_dict to_json_file "
        "to_json_string update>4.36.2"
    ),
    "transformers.PreTrainedModel": (
        "T_destination activation_checkpointing_disable>5.0.0 activation_checkpointing_enable>5.0.0 active_adapter<4.57.1 "
        "active_adapters add_adapter add_memory_hooks<5.0.0 add_model_tags>4.36.2 add_module all_tied_weights_keys>4.57.1 "
        "apply assisted_decoding<4.44.2 barrier_after_gathered_checkpoint_save>5.0.0 base_model base_model_prefix "
        "beam_sample<4.44.2 beam_search<4.44.2 bfloat16 buffers call_super_init can_generate can_record_outputs>4.52.4 "
        "children compile compute_transition_scores<4.52.4 config config_class constrained_beam_search<4.44.2 "
        "contrastive_search<4.52.4 cpu create_extended_attention_mask_for_decoder<5.23.0 cuda decoder>4.52.4<5.0.0 "
        "delete_adapter>4.44.2 dequantize>4.36.2 device disable_adapters disable_input_require_grads double dtype "
        "dtype_plan>4.57.1 dummy_inputs dump_patches enable_adapters enable_input_require_grads enable_peft_hotswap>4.57.1 "
        "ep_plan>5.0.0 estimate_tokens<5.0.0 eval>4.52.4 extra_repr float floating_point_ops<5.0.0 forward framework<5.0.0 "
        "from_pretrained fsdp_plan>5.0.0 fsdp_size>5.0.0 gather_sharded_state_dict_for_save>5.0.0 generate<4.52.4 "
        "generation_config generation_config_class>5.0.0 get_adapter_state_dict get_buffer get_compiled_call>4.44.2 "
        "get_correct_attn_implementation>4.52.4 get_correct_experts_implementation>4.57.1 get_decoder>4.52.4 "
        "get_encoder>4.57.1 get_expanded_tied_weights_keys>4.57.1 get_experts_implementation>5.0.0 "
        "get_extended_attention_mask<5.23.0 get_extra_state get_head_mask<5.0.0 get_init_context>4.44.2 "
        "get_input_embeddings get_memory_footprint get_output_embeddings get_parameter get_parameter_or_buffer>4.44.2 "
        "get_position_embeddings get_submodule gradient_checkpointing gradient_checkpointing_disable "
        "gradient_checkpointing_enable greedy_search<4.44.2 group_beam_search<4.44.2 half heal_tokens>4.36.2<4.52.4 "
        "init_parallel_plans>5.0.0 init_weights initialize_weights>4.44.2 input_modalities>4.57.1 "
        "invert_attention_mask<5.23.0 ipu is_activation_checkpointing>5.0.0 is_backend_compatible>4.44.2 "
        "is_custom_code>5.0.0 is_distributed_loading_by_transformers>5.0.0 is_gradient_checkpointing "
        "is_parallelizable<5.0.0 is_remote_code>5.0.0 kernel_config>5.0.0 kernelize>4.52.4 lm_head>4.52.4 load_adapter "
        "load_state_dict loss_function>4.44.2 loss_type>4.44.2 main_input_name mark_tied_weights_as_initialized>4.57.1 "
        "maybe_distribute_model>5.0.0 model>4.52.4 model_tags>4.36.2 modules mtia name_or_path named_buffers named_children "
        "named_modules named_non_persistent_buffers>4.57.1 named_parameters num_parameters parameters peft_config>5.0.0 "
        "post_init pp_plan>4.52.4 prepare_distribute_model>5.0.0 prepare_inputs_for_generation<4.52.4 prune_heads<5.0.0 "
        "push_to_hub register_backward_hook register_buffer register_for_auto_class register_forward_hook "
        "register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
        "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
        "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ reset_memory_hooks_state<5.0.0 "
        "resize_position_embeddings resize_token_embeddings retrieve_modules_from_names reverse_bettertransformer<5.0.0 "
        "sample<4.44.2 save_distributed_checkpoint>5.0.0 save_pretrained set_adapter set_attn_implementation>4.52.4 "
        "set_decoder>4.52.4 set_encoder>4.57.1 set_experts_implementation>4.57.1 set_extra_state set_input_embeddings "
        "set_output_embeddings>4.52.4 set_submodule set_use_kernels>4.57.1 share_memory should_save_on_this_rank>5.0.0 "
        "state_dict supports_context_parallel>5.0.0 supports_gradient_checkpointing supports_pp_plan>4.44.2 "
        "supports_tp_plan>4.44.2 tie_embeddings_and_encoder_decoder>4.52.4<5.0.0 tie_weights to to_bettertransformer<5.0.0 "
        "to_empty tp_plan>4.52.4 tp_size>4.44.2 train>4.52.4 type use_kernels>4.52.4 vocab_size "
        "warn_if_padding_and_no_attention_mask warnings_issued<5.23.0 xpu zero_grad"
    ),
    "transformers.PreTrainedTokenizerBase": (
        "SPECIAL_TOKENS_ATTRIBUTES add_bos_token add_eos_token add_special_tokens add_tokens added_tokens_decoder "
        "added_tokens_encoder additional_special_tokens<4.52.4 additional_special_tokens_ids<4.52.4 all_special_ids "
        "all_special_tokens all_special_tokens_extended<5.0.0 apply_chat_template as_target_tokenizer<5.0.0 backend>4.57.1 "
        "backend_tokenizer batch_decode batch_encode_plus<5.0.0 bos_token<4.52.4 bos_token_id<4.52.4 "
        "build_inputs_with_special_tokens<5.0.0 can_save_slow_tokenizer chat_control_tokens>5.0.0 chat_template "
        "clean_up_tokenization clean_up_tokenization_spaces "
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output>5.0.0 cls_token<4.52.4 cls_token_id<4.52.4 "
        "convert_added_tokens convert_ids_to_tokens>4.57.1 convert_to_native_format>4.57.1 convert_tokens_to_ids>4.57.1 "
        "convert_tokens_to_string create_token_type_ids_from_sequences<5.0.0 decode decoder default_chat_template<4.44.2 "
        "deprecation_warnings encode encode_message_with_chat_template>4.52.4 encode_plus<5.0.0 eos_token<4.52.4 "
        "eos_token_id<4.52.4 extra_special_tokens>4.44.2<5.0.0 files_loaded>4.57.1 from_pretrained get_added_vocab "
        "get_chat_template>4.36.2 get_response_parser>5.0.0 get_special_tokens_mask get_vocab init_inputs init_kwargs "
        "is_fast mask_token<4.52.4 mask_token_id<4.52.4 max_len_sentences_pair max_len_single_sentence "
        "max_model_input_sizes<4.44.2 model model_input_names model_max_length name_or_path num_special_tokens_to_add pad "
        "pad_token<4.52.4 pad_token_id<4.52.4 pad_token_type_id padding_side parse_response>4.57.1 prepare_for_model<5.0.0 "
        "prepare_seq2seq_batch<5.0.0 pretrained_init_configuration<4.44.2 pretrained_vocab_files_map push_to_hub "
        "register_for_auto_class response_template>5.0.0 sanitize_special_tokens<5.0.0 save_chat_templates>4.44.2 "
        "save_pretrained save_vocabulary sep_token<4.52.4 sep_token_id<4.52.4 set_truncation_and_padding "
        "slow_tokenizer_class special_tokens_map special_tokens_map_extended<5.0.0 split_special_tokens tokenize "
        "train_new_from_iterator truncate_sequences<5.0.0 truncation_side unk_token<4.52.4 unk_token_id<4.52.4 "
        "update_post_processor verbose vocab vocab_files_names vocab_size>4.57.1"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {
    "transformers.Trainer.train": "resume_from_checkpoint trial ignore_keys_for_eval **<5.0.0",
    "transformers.Trainer.evaluate": "eval_dataset ignore_keys metric_key_prefix",
    "transformers.Trainer.predict": "test_dataset! ignore_keys metric_key_prefix",
    "transformers.Trainer.save_model": "output_dir _internal_call",
    "transformers.Trainer.push_to_hub": "commit_message blocking token>4.36.2 revision>4.44.2 private>5.0.0 **",
    "transformers.Trainer.add_callback": "callback!",
    "transformers.Trainer.remove_callback": "callback!",
    "transformers.Trainer.create_optimizer_and_scheduler": "num_training_steps!",
    "transformers.Trainer.create_scheduler": "num_training_steps! optimizer",
    "transformers.PreTrainedModel.gradient_checkpointing_enable": "gradient_checkpointing_kwargs **>5.0.0",
    "transformers.PreTrainedModel.resize_token_embeddings": "new_num_tokens pad_to_multiple_of mean_resizing>4.44.2",
    "transformers.PreTrainedModel.save_pretrained": (
        "save_directory! is_main_process state_dict push_to_hub max_shard_size variant token save_peft_format "
        "save_original_format>4.57.1 distributed_checkpoint>5.0.0 save_function<5.0.0 safe_serialization<5.0.0 **"
    ),
    "transformers.PreTrainedModel.push_to_hub": (
        "repo_id! commit_message private token max_shard_size create_pr revision commit_description tags use_temp_dir<5.0.0 "
        "safe_serialization<5.0.0 **<5.0.0"
    ),
    "transformers.PreTrainedModel.add_adapter": "adapter_config! adapter_name",
    "transformers.PreTrainedModel.load_adapter": (
        "peft_model_id adapter_name peft_config adapter_state_dict low_cpu_mem_usage>4.44.2 is_trainable>4.44.2 "
        "hotswap>4.57.1 local_files_only>4.57.1 adapter_kwargs load_config>4.57.1 revision<5.0.0 token<5.0.0 "
        "device_map<5.0.0 max_memory<5.0.0 offload_folder<5.0.0 offload_index<5.0.0 **>4.57.1"
    ),
    "transformers.PreTrainedModel.set_adapter": "adapter_name!",
    "transformers.PreTrainedModel.enable_input_require_grads": "",
    "transformers.PreTrainedTokenizerBase.__call__": (
        "text text_pair text_target text_pair_target add_special_tokens padding truncation max_length stride "
        "is_split_into_words pad_to_multiple_of padding_side>4.44.2 return_tensors return_token_type_ids "
        "return_attention_mask return_overflowing_tokens return_special_tokens_mask return_offsets_mapping return_length "
        "verbose tokenizer_kwargs>4.57.1 **"
    ),
    "transformers.PreTrainedTokenizerBase.save_pretrained": ("save_directory! legacy_format filename_prefix push_to_hub **"),
    "transformers.PreTrainedTokenizerBase.add_tokens": "new_tokens! special_tokens",
    "transformers.PreTrainedTokenizerBase.add_special_tokens": (
        "special_tokens_dict! replace_extra_special_tokens>4.57.1 replace_additional_special_tokens<5.0.0"
    ),
    "transformers.PreTrainedTokenizerBase.decode": ("token_ids! skip_special_tokens clean_up_tokenization_spaces<5.0.0 **"),
    "transformers.PreTrainedTokenizerBase.batch_decode": ("sequences! skip_special_tokens clean_up_tokenization_spaces **"),
    "transformers.PreTrainedTokenizerBase.pad": (
        "encoded_inputs! padding max_length pad_to_multiple_of padding_side>4.44.2 return_attention_mask return_tensors verbose"
    ),
    "transformers.PreTrainedTokenizerBase.apply_chat_template": (
        "conversation! tools>4.36.2 documents>4.36.2 chat_template add_generation_prompt continue_final_message>4.44.2 "
        "tokenize sanitize_control_tokens>5.0.0 padding truncation max_length return_tensors return_dict>4.36.2 "
        "return_assistant_tokens_mask>4.36.2 tokenizer_kwargs>4.36.2 **"
    ),
    "transformers.PreTrainedTokenizerBase.push_to_hub": (
        "repo_id! commit_message commit_description private token revision create_pr max_shard_size tags>4.36.2 "
        "use_temp_dir<5.0.0 safe_serialization<5.0.0 **<5.0.0"
    ),
    "transformers.get_scheduler": "name! optimizer! num_warmup_steps num_training_steps scheduler_specific_kwargs",
    "transformers.get_linear_schedule_with_warmup": "optimizer! num_warmup_steps! num_training_steps! last_epoch",
    "transformers.get_cosine_schedule_with_warmup": ("optimizer! num_warmup_steps! num_training_steps! num_cycles last_epoch"),
    "transformers.set_seed": "seed! deterministic>4.36.2",
    "transformers.EarlyStoppingCallback": "early_stopping_patience early_stopping_threshold",
}
