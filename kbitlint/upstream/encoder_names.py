"""Encoders of transformers 5: names of their linear layers, and checkpoints; further rows of the tables of decoders.

transformers 5 renamed the layers of many vision models: ViT's ``query`` is ``q_proj``, as in decoders. A test compares the
names with the classes that the Auto classes make. ``parts`` stays empty: the start of a name depends on the class.
"""

from __future__ import annotations

#: (model type, linear layers, linear layers that only some classes have), as in ``Architecture``
ENCODERS: tuple[tuple[str, str, str], ...] = (
    ("vit", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", "dense"),
    ("deit", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", "dense"),
    ("dinov2", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("dinov2_with_registers", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("dinov3_vit", "down_proj k_proj o_proj q_proj up_proj v_proj", ""),
    ("beit", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("swin", "classifier fc1 fc2 k_proj o_proj q_proj reduction v_proj", ""),
    ("swinv2", "classifier dense key query reduction value", ""),
    ("vit_mae", "fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("videomae", "dense key query value", ""),
    ("audio-spectrogram-transformer", "dense fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("clip", "classifier fc1 fc2 k_proj out_proj q_proj v_proj", "text_projection visual_projection"),
    ("clip_vision_model", "fc1 fc2 k_proj out_proj q_proj v_proj", ""),
    ("siglip", "classifier fc1 fc2 k_proj out_proj q_proj v_proj", "head"),
    ("siglip_vision_model", "fc1 fc2 k_proj out_proj q_proj v_proj", ""),
    ("siglip2", "classifier fc1 fc2 k_proj out_proj patch_embedding q_proj v_proj", "head"),
    ("whisper", "classifier fc1 fc2 k_proj out_proj projector q_proj v_proj", "proj_out"),
    ("wav2vec2", "classifier intermediate_dense k_proj out_proj output_dense projection projector q_proj v_proj", ""),
    ("hubert", "classifier intermediate_dense k_proj out_proj output_dense projection projector q_proj v_proj", ""),
    (
        "wavlm",
        "classifier gru_rel_pos_linear intermediate_dense k_proj out_proj output_dense projection projector q_proj v_proj",
        "",
    ),
    (
        "wav2vec2-bert",
        "classifier intermediate_dense linear_k linear_out linear_q linear_v output_dense projection projector",
        "",
    ),
    ("bert", "classifier dense key query value", "decoder"),
    ("roberta", "dense key out_proj query value", "classifier decoder"),
    ("xlm-roberta", "dense key out_proj query value", "classifier decoder"),
    ("camembert", "dense key out_proj query value", "classifier decoder"),
    ("electra", "dense embeddings_project key out_proj query value", "classifier generator_lm_head"),
    ("albert", "classifier dense embedding_hidden_mapping_in ffn ffn_output key pooler query value", ""),
    ("deberta", "classifier dense in_proj", ""),
    ("mpnet", "dense k o out_proj q v", "classifier"),
    ("segformer", "classifier fc1 fc2 k_proj o_proj q_proj v_proj", ""),
    ("convnext", "classifier pwconv1 pwconv2", ""),
    ("convnextv2", "classifier pwconv1 pwconv2", ""),
    ("bart", "dense fc1 fc2 k_proj out_proj q_proj v_proj", ""),
    ("mbart", "dense fc1 fc2 k_proj out_proj q_proj v_proj", ""),
    ("pegasus", "fc1 fc2 k_proj out_proj q_proj v_proj", ""),
    ("blip", "decoder dense fc1 fc2 key projection qkv query value", "text_projection visual_projection"),
    ("layoutlm", "classifier dense key query value", ""),
    ("layoutlmv3", "dense key out_proj query rel_pos_bias rel_pos_x_bias rel_pos_y_bias value", "classifier"),
    ("longformer", "dense key key_global out_proj query query_global value value_global", "classifier"),
    ("big_bird", "dense key out_proj pooler query value", "classifier decoder"),
    ("data2vec-text", "dense key out_proj query value", "classifier decoder"),
    ("data2vec-vision", "classifier dense key query value", ""),
    ("speecht5", "intermediate_dense k_proj out_proj output_dense projection q_proj v_proj", ""),
    ("moonshine", "fc1 fc2 k_proj o_proj proj_out q_proj v_proj", ""),
    ("xlm-roberta-xl", "dense key out_proj query value", "classifier decoder"),
)

#: (checkpoint, words of a name, model type, dtype), as in ``Family``
ENCODER_FAMILIES: tuple[tuple[str, str, str, str], ...] = (
    ("facebook/vit-mae-base", "vit-mae", "vit_mae", "float32"),
    ("google/vit-base-patch16-224-in21k", "vit-base vit-large vit-huge vit-small vit-tiny", "vit", "float32"),
    ("facebook/deit-base-patch16-224", "deit", "deit", "float32"),
    ("facebook/dinov2-base", "dinov2", "dinov2", "float32"),
    ("microsoft/beit-base-patch16-224", "beit", "beit", "float32"),
    ("microsoft/swinv2-base-patch4-window8-256", "swinv2", "swinv2", "float32"),
    ("microsoft/swin-base-patch4-window7-224", "swin", "swin", "float32"),
    ("nvidia/mit-b0", "mit-b0 mit-b1 mit-b2 mit-b3 mit-b4 mit-b5 segformer", "segformer", "float32"),
    ("facebook/convnextv2-base-22k-224", "convnextv2", "convnextv2", "float32"),
    ("MCG-NJU/videomae-base", "videomae", "videomae", "float32"),
    ("MIT/ast-finetuned-audioset-10-10-0.4593", "ast-finetuned", "audio-spectrogram-transformer", "float32"),
    ("facebook/wav2vec2-base", "wav2vec2-base wav2vec2-large", "wav2vec2", "float32"),
    ("facebook/hubert-large-ls960-ft", "hubert", "hubert", "float32"),
    ("microsoft/wavlm-base", "wavlm", "wavlm", "float32"),
    ("microsoft/mpnet-base", "mpnet", "mpnet", "float32"),
    ("google/electra-base-discriminator", "electra", "electra", "float32"),
    ("albert/albert-base-v2", "albert", "albert", "float32"),
)
