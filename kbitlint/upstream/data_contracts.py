"""What trainers, collators and models do with data of another form than they take, by version of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.row_contracts import FORWARD, ROWS, DataContract
from kbitlint.upstream.run_contracts import RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the trainers of transformers, whose collator is the default one unless they get another or a tokenizer
PLAIN = ("transformers.Trainer", "transformers.Seq2SeqTrainer")
#: the trainers of TRL that ask reward functions for rewards
ONLINE = ("trl.GRPOTrainer", "trl.RLOOTrainer")

#: losses of sentence-transformers that read labels, and the columns that its collator takes for them
COMPARING = frozenset(
    ("CosineSimilarityLoss", "CoSENTLoss", "AnglELoss", "ContrastiveLoss", "OnlineContrastiveLoss", "SoftmaxLoss")
)
LABEL_COLUMNS = frozenset(("label", "labels", "score", "scores"))
#: relation -> what it leads to; each was run with transformers 5.23, TRL 1.16 and datasets 5
CONTRACTS: Mapping[str, DataContract] = {
    **ROWS,
    **RUNS,
    # transformers/trainer.py, "Dataset validations"
    "streamed without max_steps": DataContract(
        "a streamed data set has no length, and max_steps is not given: Trainer raises a ValueError", "pass max_steps"
    ),
    # transformers/trainer.py, _remove_unused_columns
    "removed columns": DataContract(
        "the collator reads {}, which Trainer removes before: no argument of the model's forward has such a name",
        "pass remove_unused_columns=False",
    ),
    # transformers/trainer.py, compute_loss
    "no labels": DataContract(
        "the data has no labels and the collator makes none: the model returns no loss, and Trainer raises a ValueError",
        "use DataCollatorForLanguageModeling(tokenizer, mlm=False)",
    ),
    # transformers/data/data_collator.py, DataCollatorForLanguageModeling.__post_init__
    "masked without a token": DataContract(
        "DataCollatorForLanguageModeling masks tokens by default, and the tokenizer of {} has no mask token: a ValueError",
        "pass mlm=False",
    ),
    # transformers/data/data_collator.py, torch_mask_tokens: labels are -100 but for masked tokens, and the model shifts them
    "labels of masked tokens": DataContract(
        "DataCollatorForLanguageModeling masks tokens by default: a decoder learns from the few tokens before masked ones",
        "pass mlm=False",
        since="5",
        learns=True,
    ),
    # transformers/trainer.py, _determine_best_metric
    "unknown metric": DataContract(
        "metric_for_best_model is {}, which no evaluation returns: Trainer raises a KeyError after the first one",
        "name a metric that compute_metrics returns, or eval_loss",
    ),
    # trl/trainer/sft_trainer.py, _prepare_dataset
    "list of texts": DataContract(
        "{} returns a list, and SFTTrainer calls it for one example and takes one text: it raises an AttributeError",
        "return the text of one example",
        "trl",
        "0.20",
    ),
    # trl/chat_template_utils.py, get_training_chat_template
    "template without marks": DataContract(
        "assistant_only_loss needs {{% generation %}} in the chat template, and the script's own has none: TRL raises",
        "put {% generation %} and {% endgeneration %} around the assistant's text",
        "trl",
        "0.19",
    ),
    # trl/data_utils.py, apply_chat_template; transformers/tokenization_utils_base.py, get_chat_template
    "messages without a template": DataContract(
        "the rows hold messages, and the tokenizer of {} has no chat template: SFTTrainer raises a ValueError",
        "pass chat_template_path, or set tokenizer.chat_template",
        "trl",
    ),
    # trl/trainer/grpo_trainer.py, _generate: completions of conversational prompts are lists of messages
    "messages as text": DataContract(
        "the prompts are lists of messages, so {} gets lists of messages too, and takes them for text: it raises",
        'read completion[0]["content"]',
        "trl",
    ),
    "text as messages": DataContract(
        "the prompts are texts, so {} gets texts, and takes them for lists of messages: it raises a TypeError",
        "take the completion itself",
        "trl",
    ),
    # datasets/arrow_dataset.py, _map_single: a batch holds a list for each column
    "column as text": DataContract(
        "map with batched=True passes lists, and {} is taken for one text: it raises", "treat each item of the list", "datasets"
    ),
    "text for a batch": DataContract(
        "map with batched=True needs a list for {}, and the function returns one text: datasets raises a TypeError",
        "leave batched=True out",
        "datasets",
    ),
    # transformers/tokenization_utils_base.py, apply_chat_template: return_dict=True
    "encoding as token ids": DataContract(
        "apply_chat_template returns a BatchEncoding since transformers 5, and it is used as a list of token ids: this raises",
        "pass return_dict=False",
        since="5",
    ),
    # transformers/trainer.py, training_step, evaluation_loop, prediction_step; trl/trainer/grpo_trainer.py, _calculate_rewards
    "function without result": DataContract("{} returns nothing, and its Trainer uses what it returns: it raises", "return it"),
    "metrics without names": DataContract(
        "{} returns a number, and Trainer takes a dict of metrics: it raises at the first evaluation",
        'return it under a name: {"accuracy": ...}',
    ),
    "outputs for a loss": DataContract(
        "{} returns the outputs of the model, and Trainer takes the loss: the first step raises", "return outputs.loss"
    ),
    "loss without outputs": DataContract(
        "{} leaves return_outputs out, and an evaluation takes the loss and the outputs apart: the first one raises",
        "return (loss, outputs) if return_outputs else loss",
    ),
    # torch/cuda/__init__.py, _lazy_init: a forked process cannot initialize CUDA again
    "GPU in several processes": DataContract(
        "map computes on a GPU in {} processes, which are forked: CUDA cannot be initialized in them, a RuntimeError",
        "leave num_proc out, or set the start method to spawn",
        "datasets",
    ),
    # datasets/dataset_dict.py, DatasetDict.__getitem__; TRL 1 checks the type of train_dataset
    "splits for rows": DataContract(
        "load_dataset without split returns a dict of splits, and a Trainer takes the rows of one: it raises",
        'pass the split: train_dataset=data["train"]',
        "datasets",
    ),
    # datasets/iterable_dataset.py
    "length of a stream": DataContract(
        "a streamed data set has no length: len raises a TypeError", "leave streaming=True out, or count the rows", "datasets"
    ),
    # trl/trainer/dpo_trainer.py, kto_trainer.py, reward_trainer.py: _prepare_dataset
    "column missing": DataContract(
        "the data certainly lacks the column {}, which the trainer reads: it raises", "make it", "trl"
    ),
    # trl/trainer/sft_trainer.py, DataCollatorForLanguageModeling: without a completion_mask the labels are the input ids
    "completions of whole texts": DataContract(
        "the rows are whole texts without a completion, so completion_only_loss has no effect: every token is learned",
        "make the columns prompt and completion",
        "trl",
        "0.19",
        learns=True,
    ),
    # transformers/trainer_callback.py, EarlyStoppingCallback.on_train_begin
    "early stopping without metric": DataContract(
        "EarlyStoppingCallback needs {}, which the arguments do not set: an AssertionError when the training starts",
        "set load_best_model_at_end=True and equal eval_strategy and save_strategy",
    ),
    # transformers/trainer.py, compute_loss: takes the labels out of the inputs before the model is called
    "loss of no labels": DataContract(
        "compute_loss_func is given outputs of a model without labels, so outputs.loss is None: the first step raises",
        "compute the loss from outputs.logits and labels",
        since="4.46",
    ),
    # tokenizers refuses negative ids; transformers pads the labels of an evaluation with -100
    "ignored labels decoded": DataContract(
        "{} decodes labels, which the collator pads with -100: an OverflowError at the first evaluation",
        "put the padding token in the place of -100: np.where(labels != -100, labels, tokenizer.pad_token_id)",
    ),
    # trl/trainer/grpo_trainer.py, _calculate_rewards: iterates over the result
    "one reward for a batch": DataContract(
        "{} returns one number, and the trainer takes a list with a reward for each completion: a TypeError",
        "return [... for completion in completions]",
        "trl",
        "0.18",
    ),
    "rewards left out": DataContract(
        "{} does not return one reward for each completion: the step with the first one left out raises a ValueError",
        "return 0.0 for a completion without a reward",
        "trl",
    ),
    "reward called": DataContract(
        "{} is called, and the trainer takes the function itself: it cannot call what this returns",
        "pass the function without brackets",
        "trl",
    ),
    "reward of no number": DataContract(
        "{} returns rewards that are no numbers: the trainer makes a tensor of them, and raises",
        "return a list of floats",
        "trl",
    ),
    # trl/trainer/grpo_trainer.py, _generate_and_score_completions: an advantage is a reward less the mean of its group
    "equal rewards": DataContract(
        "every completion gets the same reward, so every advantage is 0: nothing is learned",
        "let the reward depend on the completion",
        "trl",
        code="KB732",
    ),
    # sentence_transformers/base/data_collator.py, __call__: no column of these names, so the loss gets no labels
    "pairs without labels": DataContract(
        "{} compares with labels, and no column is called label, labels, score or scores: the first step raises",
        "rename the column",
        "sentence_transformers",
    ),
    # trl/trainer/sft_trainer.py, __init__
    "assistant of whole texts": DataContract(
        "assistant_only_loss needs rows of messages, and these are whole texts: SFTTrainer raises a ValueError",
        "keep the messages, and let SFTTrainer apply the template",
        "trl",
        "0.19",
    ),
    # trl/trainer/dpo_trainer.py and kto_trainer.py, __init__
    "streamed reference": DataContract(
        "precompute_ref_log_probs needs a data set with a length, and this one is streamed: the trainer raises a ValueError",
        "leave precompute_ref_log_probs out",
        "trl",
        "1",
    ),
    # transformers/tokenization_utils_base.py, _get_padding_truncation_strategies
    "padding without a token": DataContract(
        "the tokenizer of {} has no padding token, and nothing sets one: padding raises a ValueError",
        "tokenizer.pad_token = tokenizer.eos_token",
    ),
    # transformers/data/data_collator.py, torch_default_data_collator
    "rows of unequal length": DataContract(
        "the texts are tokenized without padding, and the default collator does not pad: a batch of several raises",
        "pass DataCollatorForLanguageModeling or DataCollatorWithPadding",
    ),
    # transformers/loss/loss_utils.py, ForCausalLMLoss: shifts labels, ignores -100 alone
    "labels shifted": DataContract(
        "the labels are shifted by one token, and the model shifts them again: it learns the token after the next",
        "let the labels be the input ids",
        learns=True,
    ),
    # transformers: the logits at a position predict the token after it, and only the loss of the model shifts the labels
    "labels unshifted": DataContract(
        "the loss compares the logits of each token with the label of the same token: a decoder learns to repeat its input",
        "compare logits[:, :-1] with labels[:, 1:]",
        learns=True,
    ),
    # transformers/data/data_collator.py, torch_call: labels = input_ids.clone()
    "labels overwritten": DataContract(
        "DataCollatorForLanguageModeling makes labels of all tokens and drops those of the data, in which some are -100",
        "use DataCollatorForSeq2Seq(tokenizer), which pads the labels of the data",
        learns=True,
    ),
    # trl/trainer/sft_trainer.py, tokenize_fn: the tokenizer adds its special tokens to texts
    "two first tokens": DataContract(
        "the chat template has written the first token, and SFTTrainer's tokenizer adds it again: every text starts with two",
        "keep the messages in the column messages, and let SFTTrainer apply the template",
        "trl",
        learns=True,
    ),
    "labels of padding": DataContract(
        "the labels hold the padding of the tokens, and nothing sets it to -100: the loss counts it",
        "set the labels of padding to -100",
        learns=True,
    ),
}

__all__ = ["CONTRACTS", "FORWARD", "ONLINE", "PLAIN", "DataContract"]
