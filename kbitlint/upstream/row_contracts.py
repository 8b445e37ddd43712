"""What trainers, collators and models do with rows by their columns and the form of each, by version of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.lazy_dataclass import dataclass
from kbitlint.upstream.versions import number

if TYPE_CHECKING:
    from collections.abc import Mapping

#: columns that some model of transformers takes, and the names of labels: Trainer keeps them
FORWARD = frozenset(
    (
        *("input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds", "labels", "label", "label_ids"),
        *("use_cache", "logits_to_keep", "token_type_ids", "cache_position", "pixel_values", "pixel_attention_mask"),
        *("image_grid_thw", "video_grid_thw", "pixel_values_videos", "image_sizes", "input_features", "input_values"),
        *("decoder_input_ids", "decoder_attention_mask", "start_positions", "end_positions", "output_attentions", "kwargs"),
        *("output_hidden_states", "return_dict", "mm_token_type_ids", "aspect_ratio_ids", "aspect_ratio_mask", "head_mask"),
        *("cross_attention_mask", "seq_lengths", "feature_attention_mask", "input_audio_embeds", "images", "image_mask"),
    )
)


@dataclass(frozen=True, slots=True)
class DataContract:
    """What one relation of data to code leads to."""

    message: str
    """A ``{}`` is the place of the detail."""
    fix: str
    library: str = "transformers"
    since: str = ""
    """The first version with this behaviour; empty for any."""
    until: str = ""
    """The first version without it; empty for none."""
    learns: bool = False
    """Whether the training runs, on labels that are not meant, or without what is asked for."""
    code: str = ""
    """The rule that reports it; empty for KB561 and KB730."""

    def holds_for(self, versions: Mapping[str, str]) -> bool:
        """Return whether the library behaves so in the script's version; an unknown version counts as the newest."""
        have = number(versions.get(self.library, ""))
        if self.until and (not have or have >= number(self.until)):
            return False
        return not self.since or not have or have >= number(self.since)


#: class of a model -> (column that its forward asks for in training, relation), in some versions alone;
#: ``create_causal_mask_mapping`` of each ``modeling_*.py``: compared in the releases from 4.48 to 5.23
REQUIRED: Mapping[str, tuple[str, str]] = {
    "Gemma3ForConditionalGeneration": ("token_type_ids", "no token types"),
    "PaliGemmaForConditionalGeneration": ("token_type_ids", "no token types of PaliGemma"),
    "Gemma4ForConditionalGeneration": ("mm_token_type_ids", "no multimodal token types"),
}
_NEEDS = "in training, the forward of {} in this version of transformers asks for %s, which the batch lacks: a ValueError"

#: relation -> what it leads to; each was run with transformers 5.23, TRL 1.16 and datasets 5
ROWS: Mapping[str, DataContract] = {
    # transformers/trainer.py, _remove_unused_columns
    "no tokens": DataContract(
        "the rows hold {}, none of which the model's forward takes: Trainer refuses them with a ValueError",
        "map the tokenizer over the data, and pass Trainer what map returns",
    ),
    "columns of a transform": DataContract(
        "the data set tokenizes when a row is read, and Trainer removes the stored column {} before: it raises",
        "pass remove_unused_columns=False",
    ),
    "inputs removed": DataContract(
        "compute_loss takes {} from the inputs, and Trainer has removed this column: no argument of forward has its name",
        "pass remove_unused_columns=False",
    ),
    # transformers/data/data_collator.py, torch_default_data_collator: vars() of a row that is no mapping
    "rows as tuples": DataContract(
        "the data set returns tuples, and Trainer's collator takes dicts: the first batch raises",
        'return {"input_ids": ..., "attention_mask": ..., "labels": ...}',
    ),
    # transformers/trainer.py, "Dataset validations"; torch/utils/data/sampler.py
    "rows without a length": DataContract(
        "the class of the data set has no __len__: Trainer raises before the first step", "define __len__"
    ),
    # transformers: a model takes input_ids of two dimensions
    "tensors in rows": DataContract(
        "each row holds a tensor with a dimension for one text, so a batch has three dimensions: a step with padding raises",
        'leave return_tensors="pt" out, or take [0] of each',
    ),
    # transformers/loss/loss_utils.py: a model computes a loss of the labels that it is given
    "loss of popped labels": DataContract(
        "compute_loss takes the labels out of the inputs, so the outputs of the model have no loss: the first step raises",
        "compute the loss from outputs.logits and the labels, or leave the labels in",
    ),
    # transformers/data/data_collator.py: a text is no tensor, so the default collator leaves it out
    "labels as text": DataContract(
        "the labels are texts: no batch holds them as tensors, and the first one raises", "tokenize them"
    ),
    # transformers/loss/loss_utils.py, ForCausalLMLoss
    "one label for a text": DataContract(
        "the labels are one number for a text, and a decoder compares each token with one: the first step raises",
        "give each token its label, or load a model for sequence classification",
    ),
    # transformers/tokenization_utils_base.py, pad: pads what the tokenizer makes, no labels
    "labels of unequal length": DataContract(
        "the labels have the length of their text, and this collator does not pad labels: a batch of several raises",
        "pass DataCollatorForSeq2Seq(tokenizer)",
    ),
    # datasets/arrow_dataset.py
    "split of rows": DataContract(
        "load_dataset with split= returns the rows of it, which have no column {}: this raises",
        "leave the subscript out",
        "datasets",
    ),
    "split absent": DataContract("the split is {} alone are loaded: a KeyError", "name a split that is there", "datasets"),
    # transformers/tokenization_utils_base.py, pad; torch/utils/data/_utils/collate.py: texts become no tensors
    "texts in batches": DataContract(
        "the column {} of texts stays in the rows, and a batch of them is no tensor: the first batch raises",
        "pass remove_columns to map",
    ),
    # torch/utils/data/_utils/collate.py
    "lists in batches": DataContract(
        "the rows hold lists, of which torch's own collate makes lists of tensors and no tensor: the first batch raises",
        'data.set_format("torch"), or pass a collator as collate_fn',
    ),
    "stacked rows of unequal length": DataContract(
        "the texts are tokenized without padding, and torch's own collate does not pad: a batch of several raises",
        "pass a collator that pads as collate_fn",
    ),
    "column absent": DataContract(
        "the data set certainly has no column {}: datasets raises", "name a column that is there", "datasets"
    ),
    "rows of other number": DataContract(
        "map returns more or fewer rows than it gets, beside the column {} that keeps its number: datasets raises",
        "pass remove_columns=data.column_names",
        "datasets",
    ),
    # datasets/arrow_dataset.py, _map_single: a function without result changes nothing
    "rows not returned": DataContract(
        "{} changes its row and returns nothing, and map keeps only what it returns: the data stays as it is",
        "return the row",
        "datasets",
    ),
    # trl/trainer/grpo_trainer.py, _calculate_rewards: calls with prompts, completions and all columns
    "column of rewards missing": DataContract(
        "the reward function takes {}, and the data certainly has no such column: a TypeError at the first step",
        "keep the column, or take it through **kwargs",
        "trl",
    ),
    # the number of characters of a text is several times that of its tokens
    "labels by characters": DataContract(
        "token ids are cut or masked by the number of characters of a text: most of the answer, or all of it, is masked",
        "count tokens: len(tokenizer(prompt).input_ids)",
        learns=True,
    ),
    # transformers/tokenization_utils_base.py, _pad: padding_side="left" puts padding before the first token
    "mask on padding": DataContract(
        "the tokens are padded on the left, and their first ones are masked as the prompt: that masks padding, not the prompt",
        "count from the first token that is no padding, or pad on the right",
        learns=True,
    ),
    "no token types": DataContract(
        _NEEDS % "token_type_ids",
        'add batch["token_type_ids"], zeros for text, or install transformers 5.6',
        since="5",
        until="5.6",
    ),
    "no token types of PaliGemma": DataContract(
        _NEEDS % "token_type_ids", 'add batch["token_type_ids"], zeros for the prompt', since="5", until="5.9"
    ),
    "no multimodal token types": DataContract(
        _NEEDS % "mm_token_type_ids",
        'add batch["mm_token_type_ids"], zeros for text, or install transformers 5.6',
        since="5.5",
        until="5.6",
    ),
}
