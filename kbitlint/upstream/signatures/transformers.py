"""Parameters of transformers' constructors by version, and names that it no longer exports; from the released packages."""

from __future__ import annotations

#: class -> the class whose parameters it takes as well
BASES: dict[str, str] = {
    "transformers.Seq2SeqTrainingArguments": "transformers.TrainingArguments",
}

#: full name -> its parameters; ``lookup.py`` describes the marks of versions
ROWS: dict[str, str] = {
    "transformers.Seq2SeqTrainer": (
        "model args data_collator train_dataset eval_dataset processing_class>4.45.2 model_init "
        "compute_loss_func>4.47.1 compute_metrics callbacks optimizers preprocess_logits_for_metrics tokenizer<5.0.0"
    ),
    "transformers.Seq2SeqTrainingArguments": (
        "sortish_sampler predict_with_generate generation_max_length generation_num_beams generation_config"
    ),
    "transformers.Trainer": (
        "model args data_collator train_dataset eval_dataset processing_class>4.45.2 model_init "
        "compute_loss_func>4.45.2 compute_metrics callbacks optimizers optimizer_cls_and_kwargs>4.46.3 "
        "preprocess_logits_for_metrics tokenizer<5.0.0"
    ),
    "transformers.TrainingArguments": (
        "output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type "
        "lr_scheduler_kwargs>4.35.2 warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon "
        "optim_target_modules>4.38.2 gradient_accumulation_steps average_tokens_across_devices>4.45.2 max_grad_norm "
        "label_smoothing_factor bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing>5.20.0 "
        "activation_checkpointing_kwargs>5.20.0 gradient_checkpointing gradient_checkpointing_kwargs>4.34.1 "
        "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel>4.44.2 liger_kernel_config>4.52.4 "
        "use_cache>4.57.1 neftune_noise_alpha>4.34.1 torch_empty_cache_steps>4.42.4 auto_find_batch_size "
        "logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter "
        "include_num_input_tokens_seen>4.35.2 log_level log_level_replica disable_tqdm report_to run_name "
        "project>4.56.2 trackio_space_id>4.56.2 trackio_bucket_id>5.5.0 trackio_static_space_id>5.5.0 "
        "eval_strategy>4.40.2 eval_steps eval_delay per_device_eval_batch_size prediction_loss_only "
        "eval_on_start>4.41.2 eval_do_concat_batches>4.39.3 eval_use_gather_object>4.42.4 eval_accumulation_steps "
        "include_for_metrics>4.45.2 batch_eval_metrics>4.40.2 save_only_model>4.35.2 save_strategy save_steps "
        "save_on_each_node save_total_limit enable_jit_checkpoint>4.57.1 push_to_hub hub_token hub_private_repo "
        "hub_model_id hub_strategy hub_always_push>4.31.0 hub_revision>4.52.4 load_best_model_at_end "
        "metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint>4.40.2 "
        "full_determinism seed data_seed use_cpu>4.31.0 accelerator_config>4.37.2 parallelism_config>4.55.4 "
        "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers>4.35.2 "
        "dataloader_prefetch_factor>4.37.2 dataloader_multiprocessing_context>5.12.0 dataloader_in_order>5.12.0 "
        "remove_unused_columns label_names train_sampling_strategy>5.1.0 length_column_name ddp_find_unused_parameters "
        "ddp_bucket_cap_mb ddp_broadcast_buffers>4.30.2 ddp_static_graph>5.5.0 ddp_backend ddp_timeout fsdp fsdp_config "
        "deepspeed debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank "
        "warmup_ratio<5.16.0 logging_dir<5.16.0 group_by_length<5.2.0 overwrite_output_dir<5.0.0 "
        "per_gpu_train_batch_size<5.0.0 per_gpu_eval_batch_size<5.0.0 save_safetensors<5.0.0 no_cuda<5.0.0 "
        "use_mps_device<5.0.0 jit_mode_eval<5.0.0 fp16_opt_level<5.0.0 half_precision_backend<5.0.0 tpu_num_cores<5.0.0 "
        "tpu_metrics_debug<5.0.0 past_index<5.0.0 fsdp_min_num_params<5.0.0 fsdp_transformer_layer_cls_to_wrap<5.0.0 "
        "adafactor<5.0.0 use_legacy_prediction_loop<5.0.0 include_inputs_for_metrics<5.0.0 fp16_backend<5.0.0 "
        "push_to_hub_model_id<5.0.0 push_to_hub_organization<5.0.0 push_to_hub_token<5.0.0 mp_parameters<5.0.0 "
        "torchdynamo<5.0.0 ray_scope<5.0.0 include_tokens_per_second>4.33.3<5.0.0 use_ipex<4.57.1 tp_size>4.49.0<4.52.4 "
        "evaluation_strategy<4.51.3 dispatch_batches>4.31.0<4.51.3 split_batches>4.34.1<4.51.3 sharded_ddp<4.35.2 "
        "xpu_backend<4.32.1"
    ),
}

#: first version without the names -> the names
REMOVED: dict[str, str] = {
    "4.40.2": "top_k_top_p_filtering",
    "4.46.3": (
        "AzureOpenAiAgent Conversation ConversationalPipeline ForceTokensLogitsProcessor HfAgent LocalAgent OpenAiAgent "
        "RemoteTool"
    ),
    "4.49.0": "LogitsWarper PyTorchBenchmark PyTorchBenchmarkArguments TensorFlowBenchmark TensorFlowBenchmarkArguments",
    "4.52.4": (
        "AdamW Agent CodeAgent ColPaliForRetrievalOutput HfApiEngine MT5Stack ManagedAgent PipelineTool ReactAgent "
        "ReactCodeAgent ReactJsonAgent Tool ToolCollection Toolbox TransformersEngine is_torch_tpu_available load_tool"
    ),
    "4.57.1": "BeamSearchScorer CacheConfig HammingDiversityLogitsProcessor QuantizedCacheConfig",
    "5.0.0": (
        "AdamWeightDecay AdaptiveEmbedding AutoModelForVision2Seq AutoModelWithLMHead BeamScorer BeitFeatureExtractor "
        "BloomTokenizerFast CLIPFeatureExtractor ChineseCLIPFeatureExtractor ChunkedSlidingLayer "
        "ConditionalDetrFeatureExtractor ConstrainedBeamSearchScorer Constraint ConstraintListState "
        "ConvNextFeatureExtractor DPTFeatureExtractor DeformableDetrFeatureExtractor DeiTFeatureExtractor DetaConfig "
        "DetaForObjectDetection DetaImageProcessor DetaModel DetaPreTrainedModel DetrFeatureExtractor "
        "DisjunctiveConstraint DonutFeatureExtractor EfficientFormerConfig EfficientFormerForImageClassification "
        "EfficientFormerForImageClassificationWithTeacher EfficientFormerImageProcessor EfficientFormerModel "
        "EfficientFormerPreTrainedModel ErnieMConfig ErnieMForInformationExtraction ErnieMForMultipleChoice "
        "ErnieMForQuestionAnswering ErnieMForSequenceClassification ErnieMForTokenClassification ErnieMModel "
        "ErnieMPreTrainedModel ErnieMTokenizer FlavaFeatureExtractor GLPNFeatureExtractor GPTSanJapaneseConfig "
        "GPTSanJapaneseForConditionalGeneration GPTSanJapaneseModel GPTSanJapanesePreTrainedModel "
        "GPTSanJapaneseTokenizer GradientAccumulator GraphormerConfig GraphormerForGraphClassification GraphormerModel "
        "GraphormerPreTrainedModel HQQQuantizedCache HybridCache HybridChunkedCache ImageGPTFeatureExtractor "
        "ImageToTextPipeline InstructBlipVideoImageProcessor JukeboxConfig JukeboxModel JukeboxPreTrainedModel "
        "JukeboxPrior JukeboxPriorConfig JukeboxTokenizer JukeboxVQVAE JukeboxVQVAEConfig KerasMetricCallback "
        "LEDForSequenceClassification LayoutLMv2FeatureExtractor LayoutLMv3FeatureExtractor LevitFeatureExtractor "
        "LineByLineTextDataset LineByLineWithRefDataset LineByLineWithSOPTextDataset LlavaNextVideoImageProcessor "
        "MCTCTConfig MCTCTFeatureExtractor MCTCTForCTC MCTCTModel MCTCTPreTrainedModel MCTCTProcessor MMBTConfig "
        "MMBTForClassification MMBTModel MODEL_FOR_VISION_2_SEQ_MAPPING MODEL_WITH_LM_HEAD_MAPPING MT5Tokenizer "
        "MT5TokenizerFast MaskFormerFeatureExtractor MegaConfig MegaForCausalLM MegaForMaskedLM MegaForMultipleChoice "
        "MegaForQuestionAnswering MegaForSequenceClassification MegaForTokenClassification MegaModel "
        "MegaPreTrainedModel MistralCommonTokenizer MobileNetV1FeatureExtractor MobileNetV2FeatureExtractor "
        "MobileViTFeatureExtractor ModalEmbeddings ModelCard NatBackbone NatConfig NatForImageClassification NatModel "
        "NatPreTrainedModel NezhaConfig NezhaForMaskedLM NezhaForMultipleChoice NezhaForNextSentencePrediction "
        "NezhaForPreTraining NezhaForQuestionAnswering NezhaForSequenceClassification NezhaForTokenClassification "
        "NezhaModel NezhaPreTrainedModel OffloadedCache OffloadedStaticCache OpenLlamaConfig OpenLlamaForCausalLM "
        "OpenLlamaForSequenceClassification OpenLlamaModel OpenLlamaPreTrainedModel OwlViTFeatureExtractor "
        "PYTORCH_PRETRAINED_BERT_CACHE PYTORCH_TRANSFORMERS_CACHE PerceiverFeatureExtractor PhrasalConstraint "
        "PoolFormerFeatureExtractor PushToHubCallback QDQBertConfig QDQBertForMaskedLM QDQBertForMultipleChoice "
        "QDQBertForNextSentencePrediction QDQBertForQuestionAnswering QDQBertForSequenceClassification "
        "QDQBertForTokenClassification QDQBertLMHeadModel QDQBertLayer QDQBertModel QDQBertPreTrainedModel "
        "QuantoQuantizedCache RealmConfig RealmEmbedder RealmForOpenQA RealmKnowledgeAugEncoder RealmPreTrainedModel "
        "RealmReader RealmRetriever RealmScorer RealmTokenizer RealmTokenizerFast RetriBertConfig RetriBertModel "
        "RetriBertPreTrainedModel RetriBertTokenizer RetriBertTokenizerFast SegformerFeatureExtractor SinkCache "
        "SlidingWindowCache SlidingWindowLayer SpecialTokensMixin Speech2Text2Config Speech2Text2ForCausalLM "
        "Speech2Text2PreTrainedModel Speech2Text2Processor Speech2Text2Tokenizer SummarizationPipeline "
        "TRANSFORMERS_CACHE TapexTokenizer Text2TextGenerationPipeline TextDataset TextDatasetForNextSentencePrediction "
        "TrajectoryTransformerConfig TrajectoryTransformerModel TrajectoryTransformerPreTrainedModel TransfoXLConfig "
        "TransfoXLCorpus TransfoXLForSequenceClassification TransfoXLLMHeadModel TransfoXLModel "
        "TransfoXLPreTrainedModel TransfoXLTokenizer TranslationPipeline TvltConfig TvltFeatureExtractor "
        "TvltForAudioVisualClassification TvltForPreTraining TvltImageProcessor TvltModel TvltPreTrainedModel "
        "TvltProcessor VanConfig VanForImageClassification VanModel VanPreTrainedModel ViTFeatureExtractor "
        "ViTHybridConfig ViTHybridForImageClassification ViTHybridImageProcessor ViTHybridModel "
        "ViTHybridPreTrainedModel VideoMAEFeatureExtractor ViltFeatureExtractor WarmUp Wav2Vec2ForMaskedLM "
        "Wav2Vec2Tokenizer XLMProphetNetConfig XLMProphetNetDecoder XLMProphetNetEncoder XLMProphetNetForCausalLM "
        "XLMProphetNetForConditionalGeneration XLMProphetNetModel XLMProphetNetPreTrainedModel XLMProphetNetTokenizer "
        "YolosFeatureExtractor"
    ),
    "5.8.0": (
        "Ernie4_5_VL_MoeProcessor Ernie4_5_VL_MoeVideoProcessor FalconMambaCache ImageToImagePipeline "
        "MODEL_NAMES_MAPPING MambaCache QuestionAnsweringPipeline VisualQuestionAnsweringPipeline"
    ),
    "5.16.0": "ViTMAELayer",
}
