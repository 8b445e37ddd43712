"""A training batch for each kind of model, proven by the step that it makes possible."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers

from kbitlint.model.batch import loss_of, training_batch
from kbitlint.model.probe import probe

TEXT = tiny._TEXT


def classifier(name, **changes):
    return getattr(transformers, name)(transformers.LlamaConfig(**TEXT | changes, num_labels=3))


def whisper():
    config = transformers.WhisperConfig(
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=256,
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return transformers.WhisperForConditionalGeneration(config)


def vit():
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, image_size=32, patch_size=16
    )
    return transformers.ViTForImageClassification(config)


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_stride=(8, 8),
        conv_kernel=(16, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=256,
    )
    return transformers.Wav2Vec2ForCTC(config)


def bart_classifier():
    config = transformers.BartConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=64,
        max_position_embeddings=32,
    )
    return transformers.BartForSequenceClassification(config)


def git():
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 32}
    config = transformers.GitConfig(
        vision_config=vision | {"patch_size": 16},
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.GitForCausalLM(config)


def musicgen():
    config = transformers.MusicgenDecoderConfig(
        hidden_size=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=64,
        num_codebooks=2,
        pad_token_id=63,
        bos_token_id=63,
    )
    return transformers.MusicgenForCausalLM(config)


def reformer():
    config = transformers.ReformerConfig(
        hidden_size=32,
        feed_forward_size=32,
        attn_layers=["local"],
        num_attention_heads=2,
        attention_head_size=16,
        axial_pos_shape=(4, 8),
        axial_pos_embds_dim=(16, 16),
        local_attn_chunk_length=8,
        max_position_embeddings=32,
        is_decoder=True,
        vocab_size=64,
    )
    return transformers.ReformerModelWithLMHead(config)


def pix2struct():
    small = {"hidden_size": 32, "num_hidden_layers": 1, "d_ff": 32, "d_kv": 16}
    text = small | {"num_layers": 1, "num_heads": 2, "vocab_size": 64, "is_decoder": True}
    vision = small | {"num_attention_heads": 2, "patch_embed_hidden_size": 12}
    config = transformers.Pix2StructConfig(text_config=text, vision_config=vision)
    config.decoder_start_token_id = config.text_config.decoder_start_token_id = 0
    return transformers.Pix2StructForConditionalGeneration(config)


MODELS = {
    "sequence classification": lambda: classifier("LlamaForSequenceClassification"),
    "token classification": lambda: classifier("LlamaForTokenClassification"),
    "question answering": lambda: classifier("LlamaForQuestionAnswering"),
    "a bare decoder": lambda: classifier("LlamaModel"),
    "short positions": lambda: classifier("LlamaForCausalLM", max_position_embeddings=4),
    "encoder-decoder classification": bart_classifier,
    "speech to text": whisper,
    "image classification": vit,
    "raw audio": wav2vec2,
    "images that no token announces": git,
    "patches of images": pix2struct,
    "audio codes, an embedding each": musicgen,
    "positions with axes": reformer,
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_step_can_be_made_and_every_gradient_is_finite(kind):
    torch.manual_seed(0)
    model = MODELS[kind]()

    found = probe(model)

    assert (found.failure, found.gradients > 0) == (None, True)


def test_token_ids_with_a_meaning_are_avoided():
    model = tiny.load("llava (vision-language)")
    model.config.text_config.eos_token_id = 7

    tokens = training_batch(model, "cpu", batch=64)["input_ids"]

    assert model.config.image_token_id not in tokens
    assert set(tokens[:, -1].tolist()) == {7}
    assert 7 not in tokens[:, :-1]


def test_the_cache_is_off_as_in_training():
    assert training_batch(classifier("LlamaForCausalLM"), "cpu")["use_cache"] is False


def test_an_output_without_a_loss_is_trained_on_its_first_floats():
    output = {"ids": torch.ones(2, dtype=torch.long), "states": (None, torch.full((2, 2), 3.0))}

    assert loss_of(output) == 3.0
    with pytest.raises(ValueError, match="dict holds no floating tensor to train on"):
        loss_of({"ids": torch.ones(2, dtype=torch.long)})


def test_features_have_the_dtype_of_the_convolution_that_takes_them():
    model = whisper().to(torch.bfloat16)
    model.model.encoder.conv1.float()

    assert training_batch(model, "cpu")["input_features"].dtype is torch.float32
