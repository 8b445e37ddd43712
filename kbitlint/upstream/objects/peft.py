"""Members and parameters of what PEFT makes, by version; from the released packages."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "peft.PeftModel": (
        "T_destination active_adapter active_adapters>0.4.0 active_peft_config add_adapter add_module apply base_model "
        "base_model_torch_dtype bfloat16 buffers call_super_init children compile config<0.7.1 cpu "
        "create_or_update_model_card cuda delete_adapter>0.14.0 disable_adapter double dump_patches eval extra_repr float "
        "forward from_pretrained generate>0.7.1 get_base_model get_buffer get_extra_state get_layer_status>0.7.1 "
        "get_model_status>0.7.1 get_nb_trainable_parameters>0.4.0 get_parameter get_prompt get_prompt_embedding_to_save "
        "get_submodule half has_active_enabled_adapter>0.17.1 ipu load_adapter load_state_dict modules modules_to_save mtia "
        "named_buffers named_children named_modules named_parameters old_prepare_inputs_for_generation<0.11.1 parameters "
        "peft_config peft_type prepare_inputs_for_generation prepare_model_for_gradient_checkpointing>0.14.0 "
        "print_trainable_parameters prompt_encoder prompt_tokens push_to_hub register_backward_hook register_buffer "
        "register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
        "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
        "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ save_pretrained set_adapter "
        "set_additional_trainable_modules<0.17.1 set_extra_state set_requires_grad>0.17.1 set_submodule share_memory "
        "special_peft_forward_args>0.7.1 state_dict supports_lora_conversion>0.17.1 to to_empty train "
        "transformer_backbone_name type word_embeddings xpu zero_grad"
    ),
    "peft.LoraModel": (
        "T_destination active_adapter active_adapters add_module add_weighted_adapter apply bfloat16 buffers "
        "call_super_init children compile cpu cuda delete_adapter disable_adapter_layers double dump_patches "
        "enable_adapter_layers eval extra_repr float forward get_buffer get_extra_state get_model_config get_parameter "
        "get_peft_config_as_dict<0.21.2 get_submodule half inject_adapter ipu load_state_dict merge_adapter "
        "merge_and_unload modules mtia named_buffers named_children named_modules named_parameters parameters prefix "
        "register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook "
        "register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook "
        "register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ "
        "set_adapter set_extra_state set_requires_grad set_submodule share_memory smart_apply state_dict "
        "subtract_mutated_init>0.11.1 subtract_pissa_init>0.7.1<0.14.0 supports_lora_conversion "
        "target_module_mapping>0.17.1 to to_empty train tuner_layer_cls>0.17.1 type unload unmerge_adapter "
        "uses_shared_state xpu zero_grad"
    ),
    "peft.LoraConfig": (
        "alora_invocation_tokens>0.17.1 alpha_pattern arrow_config>0.17.1 auto_mapping base_model_name_or_path bias "
        "check_kwargs>0.11.1 corda_config>0.14.0 ensure_weight_tying>0.17.1 eva_config>0.11.1 exclude_modules>0.11.1 "
        "fan_in_fan_out from_json_file from_peft_type>0.7.1 from_pretrained inference_mode init_lora_weights "
        "is_adaption_prompt is_prompt_learning kasa_config>0.17.1 layer_replication>0.7.1 layers_pattern "
        "layers_to_transform loftq_config lora_alpha lora_bias>0.11.1 lora_dropout lora_ga_config>0.17.1 megatron_config "
        "megatron_core modules_to_save modules_to_tie>0.17.1 monteclora_config>0.17.1 peft_type peft_version>0.17.1 "
        "push_to_hub qalora_group_size>0.14.0 r rank_pattern revision runtime_config>0.11.1 save_pretrained target_modules "
        "target_modules_to_tie>0.17.1 target_parameters>0.14.0 task_type to_dict trainable_token_indices>0.14.0 "
        "use_bdlora>0.17.1 use_dora>0.7.1 use_qalora>0.14.0 use_rslora>0.7.1 velora_config>0.17.1"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {
    "peft.PeftModel.save_pretrained": (
        "save_directory! safe_serialization selected_adapters save_embedding_layers>0.4.0 is_main_process>0.4.0 "
        "path_initial_model_for_weight_conversion>0.11.1 convert_pissa_to_lora>0.7.1<0.14.0 **"
    ),
    "peft.PeftModel.load_adapter": (
        "model_id! adapter_name! is_trainable torch_device>0.7.1 autocast_adapter_dtype>0.11.1 ephemeral_gpu_offload>0.11.1 "
        "low_cpu_mem_usage>0.11.1 key_mapping>0.14.0 **"
    ),
    "peft.PeftModel.add_adapter": "adapter_name! peft_config! low_cpu_mem_usage>0.11.1 autocast_adapter_dtype>0.17.1",
    "peft.PeftModel.set_adapter": "adapter_name! inference_mode>0.17.1",
    "peft.PeftModel.delete_adapter": "adapter_name!",
    "peft.PeftModel.get_base_model": "",
    "peft.PeftModel.print_trainable_parameters": "",
    "peft.LoraModel.merge_and_unload": "progressbar safe_merge adapter_names",
    "peft.LoraModel.unload": "",
    "peft.LoraModel.add_weighted_adapter": (
        "adapters! weights! adapter_name! combination_type svd_rank svd_clamp svd_full_matrices svd_driver density>0.7.1 "
        "majority_sign_method>0.7.1"
    ),
}
