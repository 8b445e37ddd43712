"""Members and parameters of what torch makes; from torch 2.13."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "torch.optim.Optimizer": (
        "OptimizerPostHook OptimizerPreHook add_param_group defaults load_state_dict param_groups profile_hook_step "
        "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_state_dict_post_hook "
        "register_state_dict_pre_hook register_step_post_hook register_step_pre_hook state state_dict step zero_grad"
    ),
    "torch.optim.lr_scheduler.LRScheduler": (
        "H OptimizerPostHook OptimizerPreHook T T_max abs abs_ absolute absolute_ acos acos_ acosh acosh_ add add_ "
        "add_param_group addbmm addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr addr_ adjoint all "
        "allclose amax amin aminmax angle any apply_ arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan "
        "arctan2 arctan2_ arctan_ arctanh arctanh_ argmax argmin args argsort argwhere as_strided as_strided_ "
        "as_strided_scatter as_subclass asin asin_ asinh asinh_ atan atan2 atan2_ atan_ atanh atanh_ backward baddbmm "
        "baddbmm_ base_lrs bernoulli bernoulli_ bfloat16 bincount bitwise_and bitwise_and_ bitwise_left_shift "
        "bitwise_left_shift_ bitwise_not bitwise_not_ bitwise_or bitwise_or_ bitwise_right_shift bitwise_right_shift_ "
        "bitwise_xor bitwise_xor_ bmm bool broadcast_to byte cauchy_ ccol_indices cdouble ceil ceil_ cfloat chalf char "
        "cholesky cholesky_inverse cholesky_solve chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clear clip "
        "clip_ clone coalesce col_indices conj conj_physical conj_physical_ const_data_ptr contiguous copy copy_ copysign "
        "copysign_ corrcoef cos cos_ cosh cosh_ count_nonzero cov cpu cross crow_indices cuda cummax cummin cumprod "
        "cumprod_ cumsum cumsum_ data data_ptr deg2rad deg2rad_ dense_dim dequantize det detach detach_ device diag "
        "diag_embed diagflat diagonal diagonal_scatter diff digamma digamma_ dim dim_order dist div div_ divide divide_ dot "
        "double dsplit dtype eig element_size elements eq eq_ equal erf erf_ erfc erfc_ erfinv erfinv_ eta_min exp exp2 "
        "exp2_ exp_ expand expand_as expm1 expm1_ exponential_ fill_ fill_diagonal_ fix fix_ flatten flip fliplr flipud "
        "float float_power float_power_ floor floor_ floor_divide floor_divide_ fmax fmin fmod fmod_ frac frac_ frexp "
        "fromkeys func gamma gather gcd gcd_ ge ge_ geometric_ geqrf ger get get_device get_last_lr get_lr grad grad_dtype "
        "grad_fn greater greater_ greater_equal greater_equal_ gt gt_ half hardshrink hash_tensor heaviside heaviside_ "
        "histc histogram hsplit hypot hypot_ i0 i0_ igamma igamma_ igammac igammac_ imag in_cooldown index index_add "
        "index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce index_reduce_ "
        "index_select indices inner int int_repr inverse ipu is_coalesced is_complex is_conj is_contiguous is_cpu is_cuda "
        "is_distributed is_floating_point is_inference is_ipu is_leaf is_maia is_meta is_mkldnn is_mps is_mtia is_neg "
        "is_nested is_nonzero is_pinned is_quantized is_same_size is_set_to is_shared is_signed is_sparse is_sparse_csr "
        "is_vulkan is_xla is_xpu isclose isfinite isinf isnan isneginf isposinf isreal istft item items itemsize keys "
        "keywords kron kthvalue last_epoch layout lcm lcm_ ldexp ldexp_ le le_ lerp lerp_ less less_ less_equal less_equal_ "
        "lgamma lgamma_ load_state_dict log log10 log10_ log1p log1p_ log2 log2_ log_ log_normal_ log_softmax logaddexp "
        "logaddexp2 logcumsumexp logdet logical_and logical_and_ logical_not logical_not_ logical_or logical_or_ "
        "logical_xor logical_xor_ logit logit_ logsumexp long lr_lambdas lstsq lt lt_ lu lu_solve mH mT map2_ map_ "
        "masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select matmul matrix_exp matrix_power max maximum "
        "mean median milestones min minimum mm mode module_load most_common moveaxis movedim msort mtia mul mul_ "
        "multinomial multiply multiply_ mv mvlgamma mvlgamma_ name nan_to_num nan_to_num_ nanmean nanmedian nanquantile "
        "nansum narrow narrow_copy nbytes ndim ndimension ne ne_ neg neg_ negative negative_ nelement new new_empty "
        "new_empty_strided new_full new_ones new_tensor new_zeros nextafter nextafter_ nonzero nonzero_static norm normal_ "
        "not_equal not_equal_ numel numpy optimizer orgqr ormqr outer output_nr permute pin_memory pinverse polygamma "
        "polygamma_ pop popitem positive pow pow_ prelu prod profile_hook_step put put_ q_per_channel_axis "
        "q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qr qscheme quantile rad2deg rad2deg_ random_ "
        "ravel real reciprocal reciprocal_ record_stream recursive_undo register_hook register_load_state_dict_post_hook "
        "register_load_state_dict_pre_hook register_post_accumulate_grad_hook register_state_dict_post_hook "
        "register_state_dict_pre_hook register_step_post_hook register_step_pre_hook reinforce relu relu_ remainder "
        "remainder_ renorm renorm_ repeat repeat_interleave requires_grad requires_grad_ reshape reshape_as resize resize_ "
        "resize_as resize_as_ resize_as_sparse_ resolve_conj resolve_neg retain_grad retains_grad roll rot90 round round_ "
        "row_indices rsqrt rsqrt_ scale_fn scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ select "
        "select_scatter set_ setdefault sgn sgn_ shape share_memory_ short sigmoid sigmoid_ sign sign_ signbit sin sin_ "
        "sinc sinc_ sinh sinh_ size slice_inverse slice_scatter slogdet smm softmax solve sort sparse_dim sparse_mask "
        "sparse_resize_ sparse_resize_and_clear_ split split_with_sizes sqrt sqrt_ square square_ squeeze squeeze_ sspaddmm "
        "state_dict std step step_size stft storage storage_offset storage_type stride sub sub_ subtract subtract_ sum "
        "sum_to_size svd swapaxes swapaxes_ swapdims swapdims_ symeig t t_ take take_along_dim tan tan_ tanh tanh_ "
        "tensor_split tile to to_dense to_mkldnn to_padded_tensor to_sparse to_sparse_bsc to_sparse_bsr to_sparse_coo "
        "to_sparse_csc to_sparse_csr tolist topk total total_steps trace transpose transpose_ triangular_solve tril tril_ "
        "triu triu_ true_divide true_divide_ trunc trunc_ type type_as unbind unflatten unfold uniform_ unique "
        "unique_consecutive unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_ untyped_storage update "
        "values var vdot verbose view view_as volatile vsplit where xlogy xlogy_ xpu zero_ zero_grad"
    ),
    "torch.nn.parallel.DistributedDataParallel": (
        "batched_grad_copy broadcast_bucket_size broadcast_buffers bucket_bytes_cap bucket_bytes_cap_default "
        "bucket_bytes_cap_list buffer_hook device device_ids device_mesh device_type dim find_unused_parameters "
        "forward_sync_buffers gather gradient_as_bucket_view is_multi_device_module join join_device join_hook "
        "join_process_group logger mixed_precision module modules_buffers named_module_buffers no_sync output_device "
        "parameters_to_ignore process_group reducer register_comm_hook require_backward_grad_sync "
        "require_forward_param_sync scatter skip_all_reduce_unused_params static_graph to_kwargs "
        "use_side_stream_for_tensor_copies will_sync_module_buffers"
    ),
    "torch.nn.DataParallel": "device_ids dim gather module output_device parallel_apply replicate scatter src_device_obj",
    "torch.nn.Module": (
        "T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval "
        "extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules "
        "mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer "
        "register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
        "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
        "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule "
        "share_memory smart_apply state_dict to to_empty train type xpu zero_grad training"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {
    "torch.optim.AdamW": "params! lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused",
    "torch.optim.Adam": (
        "params! lr betas eps weight_decay amsgrad foreach maximize capturable differentiable fused decoupled_weight_decay"
    ),
    "torch.optim.SGD": "params! lr momentum dampening weight_decay nesterov maximize foreach differentiable fused",
    "torch.utils.data.DataLoader": (
        "dataset! batch_size shuffle sampler batch_sampler num_workers collate_fn pin_memory drop_last timeout "
        "worker_init_fn multiprocessing_context generator prefetch_factor persistent_workers pin_memory_device in_order"
    ),
    "torch.nn.utils.clip_grad_norm_": "parameters! max_norm! norm_type error_if_nonfinite foreach",
    "torch.optim.lr_scheduler.CosineAnnealingLR": "optimizer! T_max! eta_min last_epoch",
    "torch.optim.lr_scheduler.LinearLR": "optimizer! start_factor end_factor total_iters last_epoch",
    "torch.optim.lr_scheduler.StepLR": "optimizer! step_size! gamma last_epoch",
    "torch.optim.lr_scheduler.LambdaLR": "optimizer! lr_lambda! last_epoch",
    "torch.optim.lr_scheduler.OneCycleLR": (
        "optimizer! max_lr! total_steps epochs steps_per_epoch pct_start anneal_strategy cycle_momentum base_momentum "
        "max_momentum div_factor final_div_factor three_phase last_epoch"
    ),
}
