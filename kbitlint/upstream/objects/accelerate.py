"""Members and parameters of what accelerate makes, by version; from the released packages."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "accelerate.Accelerator": (
        "accumulate ao_recipe_handler>1.2.1 autocast autocast_handler backward check_trigger clear clip_grad_norm_ "
        "clip_grad_value_ context_parallel_rank>1.8.1 data_parallel_rank>1.8.1 data_parallel_shard_rank>1.8.1 "
        "dataloader_config>0.23.0 ddp_handler deepspeed_config deepspeed_engine_wrapped deepspeed_plugin>0.30.1 "
        "deepspeed_ulysses_dl_adapter>1.8.1 delayed_fp8_autocast>0.23.0 device device_placement dispatch_batches "
        "distributed_type end_training even_batches flag_tensor fp8_backend>0.30.1 fp8_enabled>1.2.1 fp8_recipe_handler "
        "free_memory gather gather_for_metrics get_state_dict get_tracker gradient_accumulation_steps gradient_state "
        "has_fp8_handler>1.2.1 has_lomo_optimizer>0.23.0 init_handler init_trackers is_composable_parallelism_enabled>1.8.1 "
        "is_fsdp2>1.2.1 is_last_process is_local_main_process is_main_process join_uneven_inputs load_state "
        "local_main_process_first local_process_index log log_with logging_dir lomo_backward>0.23.0 main_process_first "
        "maybe_context_parallel>1.8.1 mixed_precision msamp_recipe_handler>1.2.1 multi_device>1.8.1 native_amp no_sync "
        "non_blocking>0.23.0 num_processes on_last_process on_local_main_process on_local_process on_main_process "
        "on_process optimizer_step_was_skipped pad_across_processes parallelism_config>1.8.1 pipeline_parallel_rank>1.8.1 "
        "prepare prepare_data_loader prepare_model prepare_optimizer prepare_scheduler print process_index profile>0.30.1 "
        "profile_handler>0.30.1 project_configuration project_dir reduce register_for_checkpointing "
        "register_load_state_pre_hook register_save_state_pre_hook rng_types save save_iteration save_model save_state "
        "scaler scaler_handler set_trigger should_save_model>1.8.1 skip_first_batches split_batches split_between_processes "
        "state step step_scheduler_with_optimizer sync_gradients te_recipe_handler>1.2.1 tensor_parallel_rank>1.8.1 "
        "torch_device_mesh>1.8.1 trackers trigger_sync_in_backward unscale_gradients unwrap_model use_distributed "
        "use_fp16<1.2.1 use_seedable_sampler>0.23.0 use_stateful_dataloader>0.30.1 verify_device_map wait_for_everyone"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {
    "accelerate.Accelerator": (
        "device_placement split_batches mixed_precision gradient_accumulation_steps cpu dataloader_config>0.23.0 "
        "deepspeed_plugin fsdp_plugin torch_tp_plugin>1.2.1 megatron_lm_plugin rng_types log_with project_dir "
        "project_config gradient_accumulation_plugin step_scheduler_with_optimizer kwargs_handlers dynamo_backend "
        "dynamo_plugin>0.30.1 deepspeed_plugins>0.30.1 parallelism_config>1.8.1 dispatch_batches<1.2.1 even_batches<1.2.1 "
        "use_seedable_sampler>0.23.0<1.2.1"
    ),
    "accelerate.Accelerator.prepare": "device_placement *",
    "accelerate.Accelerator.backward": "loss! **",
    "accelerate.Accelerator.accumulate": "** *",
    "accelerate.Accelerator.clip_grad_norm_": "parameters! max_norm! norm_type",
    "accelerate.Accelerator.clip_grad_value_": "parameters! clip_value!",
    "accelerate.Accelerator.gather": "tensor!",
    "accelerate.Accelerator.gather_for_metrics": "input_data! use_gather_object>0.23.0",
    "accelerate.Accelerator.wait_for_everyone": "",
    "accelerate.Accelerator.unwrap_model": "model! keep_fp32_wrapper keep_torch_compile>1.2.1",
    "accelerate.Accelerator.save": "obj! f! safe_serialization",
    "accelerate.Accelerator.save_state": "output_dir safe_serialization>0.23.0 **",
    "accelerate.Accelerator.load_state": "input_dir load_kwargs>1.2.1 **",
    "accelerate.Accelerator.save_model": "model! save_directory! max_shard_size safe_serialization",
    "accelerate.Accelerator.get_state_dict": "model! unwrap",
    "accelerate.Accelerator.init_trackers": "project_name! config init_kwargs **",
    "accelerate.Accelerator.end_training": "**<1.2.1",
    "accelerate.Accelerator.log": "values! step log_kwargs **",
    "accelerate.Accelerator.autocast": "autocast_handler cache_enabled<1.2.1",
    "accelerate.Accelerator.register_for_checkpointing": "*",
    "accelerate.Accelerator.free_memory": "*",
}
