"""Parameters of PEFT's constructors by version, and names that it no longer exports; from the released packages."""

from __future__ import annotations

_CONFIGS = (
    "AdaLora Adamss AdaptionPrompt BOFT Beft Bone C3A CPT Cartridge Deft Delora FourierFT Frod Glora Gralora HRA "
    "Hira IA3 LNTuning Lily LoHa LoKr Lora Miss MultitaskPromptTuning OFT OSF Peanut Poly PrefixTuning "
    "PromptEncoder PromptTuning Psoft Pvera RandLora Road Shadow Shira Supertuning TinyLora TrainableTokens UniLora "
    "VBLoRA Vera WaveFT XLora"
)
#: class -> the class whose parameters it takes as well
BASES: dict[str, str] = {f"peft.{name}Config": "peft.PeftConfig" for name in _CONFIGS.split()}

#: full name -> its parameters; ``lookup.py`` describes the marks of versions
ROWS: dict[str, str] = {
    "peft.AdaLoraConfig": (
        "r target_modules exclude_modules>0.13.2 lora_alpha lora_dropout fan_in_fan_out bias use_rslora>0.7.1 "
        "modules_to_save init_lora_weights layers_to_transform>0.3.0 layers_pattern>0.3.0 rank_pattern "
        "alpha_pattern>0.5.0 megatron_config>0.6.2 megatron_core>0.6.2 trainable_token_indices>0.14.0 "
        "loftq_config>0.6.2 eva_config>0.13.2 corda_config>0.14.0 lora_ga_config>0.18.0 use_dora>0.8.2 "
        "velora_config>0.18.0 alora_invocation_tokens>0.17.1 use_qalora>0.15.2 qalora_group_size>0.15.2 "
        "monteclora_config>0.18.0 layer_replication>0.9.0 runtime_config>0.11.1 lora_bias>0.13.2 "
        "target_parameters>0.16.0 use_bdlora>0.18.0 arrow_config>0.17.1 kasa_config>0.18.0 ensure_weight_tying>0.17.1 "
        "target_r init_r tinit tfinal deltaT beta1 beta2 orth_reg_weight total_step"
    ),
    "peft.AdamssConfig": (
        "r num_subspaces subspace_rank target_modules init_weights modules_to_save layers_to_transform layers_pattern "
        "use_asa asa_target_subspaces init_warmup final_warmup mask_interval asa_importance_beta asa_uncertainty_beta "
        "asa_schedule_exponent use_dynamic_rank svd_threshold random_seed"
    ),
    "peft.AdaptionPromptConfig": "target_modules adapter_len adapter_layers",
    "peft.ArrowConfig": "top_k router_temperature use_gks rng_seed",
    "peft.BOFTConfig": (
        "boft_block_size boft_block_num boft_n_butterfly_factor target_modules exclude_modules>0.13.2 boft_dropout "
        "fan_in_fan_out bias modules_to_save init_weights layers_to_transform layers_pattern"
    ),
    "peft.BdLoraConfig": "target_modules_bd_a target_modules_bd_b nblocks match_strict",
    "peft.BeftConfig": "target_modules modules_to_save init_weights",
    "peft.BoneConfig": (
        "r target_modules exclude_modules init_weights layers_to_transform layers_pattern bias modules_to_save"
    ),
    "peft.C3AConfig": (
        "block_size target_modules bias modules_to_save layers_to_transform layers_pattern block_size_pattern init_weights"
    ),
    "peft.CPTConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save>0.16.0 "
        "cpt_token_ids cpt_mask cpt_tokens_type_mask opt_weighted_loss_type opt_loss_decay_factor "
        "opt_projection_epsilon opt_projection_format_epsilon tokenizer_name_or_path"
    ),
    "peft.CartridgeConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save "
        "num_frozen_tokens"
    ),
    "peft.CordaConfig": ("cache_file covariance_file corda_method verbose use_float16_for_covariance prune_temporary_fields"),
    "peft.DeftConfig": (
        "r target_modules exclude_modules decomposition_method init_scale alpha para fan_in_fan_out deft_dropout "
        "init_weights layers_to_transform layers_pattern bias modules_to_save"
    ),
    "peft.DeloraConfig": (
        "r delora_lambda module_dropout target_modules exclude_modules bias init_weights layers_to_transform "
        "layers_pattern rank_pattern lambda_pattern modules_to_save"
    ),
    "peft.EvaConfig": "rho tau use_label_mask label_mask_value whiten adjust_scaling_factors",
    "peft.FourierFTConfig": (
        "n_frequency scaling random_loc_seed fan_in_fan_out target_modules exclude_modules>0.13.2 bias modules_to_save "
        "layers_to_transform layers_pattern n_frequency_pattern init_weights"
    ),
    "peft.FrodConfig": (
        "target_modules projection_prng_key save_projection frod_dropout fan_in_fan_out bias modules_to_save "
        "init_weights layers_to_transform layers_pattern sparse_rate regularization_alpha progressbar "
        "runtime_offload_base_weight"
    ),
    "peft.GloraConfig": "r target_modules bias modules_to_save config_A_B config_C config_D_E init_weights",
    "peft.GraloraConfig": (
        "r hybrid_r target_modules alpha gralora_dropout gralora_k fan_in_fan_out bias modules_to_save init_weights "
        "layers_to_transform layers_pattern"
    ),
    "peft.HRAConfig": (
        "r apply_GS target_modules exclude_modules>0.13.2 init_weights layers_to_transform layers_pattern bias modules_to_save"
    ),
    "peft.HiraConfig": (
        "r target_modules exclude_modules hira_dropout fan_in_fan_out modules_to_save init_weights layers_to_transform "
        "layers_pattern rank_pattern"
    ),
    "peft.IA3Config": (
        "target_modules exclude_modules>0.13.2 feedforward_modules fan_in_fan_out modules_to_save init_ia3_weights"
    ),
    "peft.KasaConfig": "beta gamma",
    "peft.LNTuningConfig": "target_modules exclude_modules>0.13.2 modules_to_save",
    "peft.LilyConfig": (
        "r stride_A num_B scaling target_modules exclude_modules modules_to_save layers_to_transform layers_pattern "
        "init_weights"
    ),
    "peft.LoHaConfig": (
        "rank_pattern alpha_pattern r alpha rank_dropout module_dropout use_effective_conv2d target_modules "
        "exclude_modules>0.13.2 init_weights layers_to_transform layers_pattern modules_to_save"
    ),
    "peft.LoKrConfig": (
        "rank_pattern alpha_pattern r alpha rank_dropout module_dropout use_effective_conv2d decompose_both "
        "decompose_factor rank_dropout_scale>0.13.2 target_modules exclude_modules>0.13.2 init_weights "
        "layers_to_transform layers_pattern modules_to_save"
    ),
    "peft.LoftQConfig": "loftq_bits loftq_iter",
    "peft.LoraConfig": (
        "r target_modules exclude_modules>0.13.2 lora_alpha lora_dropout fan_in_fan_out bias use_rslora>0.7.1 "
        "modules_to_save init_lora_weights layers_to_transform>0.3.0 layers_pattern>0.3.0 rank_pattern>0.5.0 "
        "alpha_pattern>0.5.0 megatron_config>0.6.2 megatron_core>0.6.2 trainable_token_indices>0.14.0 "
        "loftq_config>0.6.2 eva_config>0.13.2 corda_config>0.14.0 lora_ga_config>0.18.0 use_dora>0.8.2 "
        "velora_config>0.18.0 alora_invocation_tokens>0.17.1 use_qalora>0.15.2 qalora_group_size>0.15.2 "
        "monteclora_config>0.18.0 layer_replication>0.9.0 runtime_config>0.11.1 lora_bias>0.13.2 "
        "target_parameters>0.16.0 use_bdlora>0.18.0 arrow_config>0.17.1 kasa_config>0.18.0 ensure_weight_tying>0.17.1"
    ),
    "peft.LoraGAConfig": "direction scale stable_gamma",
    "peft.LoraRuntimeConfig": "ephemeral_gpu_offload",
    "peft.MissConfig": (
        "r miss_dropout mini_r target_modules exclude_modules init_weights layers_to_transform layers_pattern bias "
        "modules_to_save"
    ),
    "peft.MontecloraConfig": "num_samples use_entropy dirichlet_prior sample_scaler kl_loss_weight buffer_size",
    "peft.MultitaskPromptTuningConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save>0.16.0 "
        "prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs>0.6.2 "
        "prompt_tuning_init_state_dict_path prompt_tuning_init_task num_ranks num_tasks"
    ),
    "peft.OFTConfig": (
        "r oft_block_size>0.13.2 module_dropout target_modules fan_in_fan_out>0.13.2 bias>0.13.2 exclude_modules>0.13.2 "
        "init_weights layers_to_transform layers_pattern modules_to_save coft eps block_share use_cayley_neumann>0.15.2 "
        "num_cayley_neumann_terms>0.15.2 rank_pattern<0.15.2 alpha_pattern<0.15.2"
    ),
    "peft.OSFConfig": "effective_rank target_modules rank_pattern init_weights modules_to_save target_svd_config",
    "peft.PeanutConfig": (
        "r depth act_fn scaling target_modules exclude_modules modules_to_save layers_to_transform layers_pattern init_weights"
    ),
    "peft.PeftConfig": (
        "task_type peft_type auto_mapping>0.3.0 peft_version>0.17.1 base_model_name_or_path revision>0.3.0 inference_mode"
    ),
    "peft.PolyConfig": (
        "r target_modules exclude_modules>0.13.2 modules_to_save init_weights poly_type n_tasks n_skills n_splits"
    ),
    "peft.PrefixTuningConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save>0.16.0 "
        "init_weights>0.18.0 encoder_hidden_size prefix_projection"
    ),
    "peft.PromptEncoderConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save>0.16.0 "
        "encoder_reparameterization_type encoder_hidden_size encoder_num_layers encoder_dropout"
    ),
    "peft.PromptTuningConfig": (
        "num_virtual_tokens token_dim num_transformer_submodules num_attention_heads num_layers modules_to_save>0.16.0 "
        "prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs>0.6.2"
    ),
    "peft.PsoftConfig": (
        "r target_modules exclude_modules psoft_alpha psoft_dropout fan_in_fan_out ab_svd_init psoft_svd "
        "psoft_svd_lowrank_niter random_seed psoft_orth psoft_mag_b psoft_mag_a use_cayley_neumann "
        "num_cayley_neumann_terms cayley_neumann_eps modules_to_save init_weights layers_to_transform layers_pattern"
    ),
    "peft.PveraConfig": (
        "r target_modules projection_prng_key save_projection pvera_dropout d_initial fan_in_fan_out bias "
        "modules_to_save init_weights layers_to_transform layers_pattern sample_at_inference generator_seed"
    ),
    "peft.RandLoraConfig": (
        "r target_modules projection_prng_key save_projection sparse very_sparse randlora_dropout fan_in_fan_out "
        "randlora_alpha bias modules_to_save init_weights layers_to_transform layers_pattern"
    ),
    "peft.RoadConfig": "variant group_size init_weights target_modules modules_to_save",
    "peft.ShadowConfig": (
        "target_modules exclude_modules r shadow_alpha shadow_dropout init_weights shadow_model "
        "shadow_num_hidden_layers shadow_hidden_size shadow_num_attention_heads shadow_intermediate_size "
        "share_embeddings update_hidden_size auxiliary_loss_weight layers_to_transform layers_pattern modules_to_save"
    ),
    "peft.ShiraConfig": "r mask_type random_seed target_modules fan_in_fan_out init_weights modules_to_save",
    "peft.SupertuningConfig": (
        "target_modules modules_to_save sparsity select_top r lora_alpha lora_dropout init_weights save_precomputed_indices"
    ),
    "peft.TinyLoraConfig": (
        "r u weight_tying projection_seed save_projection init_v_bound target_modules tinylora_dropout fan_in_fan_out "
        "bias modules_to_save init_weights layers_to_transform layers_pattern"
    ),
    "peft.TrainableTokensConfig": "token_indices target_modules init_weights",
    "peft.UniLoraConfig": (
        "r proj_seed theta_d_length target_modules unilora_dropout fan_in_fan_out bias modules_to_save "
        "init_theta_d_bound init_weights save_indices layers_to_transform layers_pattern"
    ),
    "peft.VBLoRAConfig": (
        "r num_vectors vector_length topk target_modules exclude_modules>0.13.2 save_only_topk_weights vblora_dropout "
        "fan_in_fan_out bias modules_to_save init_vector_bank_bound init_logits_std layers_to_transform layers_pattern"
    ),
    "peft.VeloraConfig": "num_groups scale init_type",
    "peft.VeraConfig": (
        "r target_modules projection_prng_key save_projection vera_dropout d_initial fan_in_fan_out bias "
        "modules_to_save init_weights layers_to_transform layers_pattern"
    ),
    "peft.WaveFTConfig": (
        "n_frequency scaling wavelet_family use_idwt random_loc_seed fan_in_fan_out target_modules exclude_modules bias "
        "modules_to_save layers_to_transform layers_pattern n_frequency_pattern proportional_parameters init_weights"
    ),
    "peft.XLoraConfig": (
        "hidden_size adapters enable_softmax enable_softmax_topk layerwise_scalings xlora_depth xlora_size "
        "xlora_dropout_p use_trainable_adapters softmax_temperature top_k_lora scaling_pass_value global_scaling_weight"
    ),
    "peft.get_peft_model": (
        "model peft_config adapter_name>0.3.0 mixed>0.6.2 autocast_adapter_dtype>0.11.1 revision>0.11.1 "
        "low_cpu_mem_usage>0.13.2"
    ),
    "peft.prepare_model_for_kbit_training": (
        "model use_gradient_checkpointing gradient_checkpointing_kwargs>0.5.0 auto_clear_cache>0.18.0"
    ),
}

#: first version without the names -> the names
REMOVED: dict[str, str] = {
    "0.10.0": "prepare_model_for_int8_training",
    "0.20.0": "BoneConfig BoneModel",
}
