"""What a training leaves behind, and what a script asks for that its arguments leave out, by version of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint.upstream.row_contracts import DataContract

if TYPE_CHECKING:
    from collections.abc import Mapping

#: keys of the metrics that ``Trainer.train`` returns; ``transformers/trainer.py``, ``_finalize_training``
TRAINED = frozenset(
    (
        "train_runtime",
        "train_samples_per_second",
        "train_steps_per_second",
        "total_flos",
        "train_loss",
        "epoch",
        "train_samples",
    )
)
#: keys of the metrics that ``Trainer.evaluate`` returns without ``compute_metrics``, behind their prefix
EVALUATED = frozenset(
    ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "num_input_tokens_seen", "samples")
)

#: relation -> what it leads to; each was run with transformers 5.23, PEFT 0.21, accelerate 1.15 and torch 2.13
RUNS: Mapping[str, DataContract] = {
    # transformers/trainer.py, get_eval_dataloader
    "evaluation without data": DataContract(
        "evaluate is called, and the Trainer has no eval_dataset: it raises a ValueError",
        "pass eval_dataset to the Trainer or to evaluate",
        code="KB580",
    ),
    # transformers/trainer.py, _finalize_training, evaluate
    "metric of no run": DataContract(
        "{}, and no metric has this name: a KeyError after the run", "read a metric that is there", code="KB580"
    ),
    # transformers/trainer.py, _determine_best_metric: asks for metric_for_best_model
    "best checkpoint unknown": DataContract(
        "best_model_checkpoint stays None without load_best_model_at_end and metric_for_best_model, so {} raises",
        "set load_best_model_at_end=True, with equal eval_strategy and save_strategy",
        code="KB580",
    ),
    # transformers/trainer.py, train: get_last_checkpoint(args.output_dir)
    "resumed without checkpoints": DataContract(
        'the run resumes from its own checkpoints, and save_strategy="no" writes none: it raises a ValueError',
        "save checkpoints, or leave resume_from_checkpoint out",
        code="KB580",
    ),
    # transformers/trainer.py, _save_checkpoint, _load_optimizer_and_scheduler: returns where the files are missing
    "resumed without optimizer": DataContract(
        "save_only_model=True writes checkpoints without the optimizer: the run that resumes starts it anew, at a later step",
        "leave save_only_model out",
        learns=True,
        code="KB581",
    ),
    # transformers/trainer.py, train: reads its own argument alone
    "resume argument unread": DataContract(
        "Trainer does not read resume_from_checkpoint of its arguments: the training starts from the beginning",
        "trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)",
        learns=True,
        code="KB581",
    ),
    # peft/peft_model.py, save_pretrained: stores the adapters as they are
    "saved before training": DataContract(
        "{} is called before the training and at no time after it: the folder holds adapters that have learned nothing",
        "save after trainer.train()",
        learns=True,
        code="KB581",
    ),
    "never trained": DataContract(
        "{} never trains, and the new adapters are saved as they were drawn",
        "call train() before the model is saved",
        code="KB592",
    ),
    "nothing saved": DataContract(
        'save_strategy="no" writes no checkpoint, and nothing uses or saves the model after the training: it is lost',
        "save it: trainer.save_model()",
        learns=True,
        code="KB581",
    ),
    # transformers: the logits at a position predict the token after it
    "metrics unshifted": DataContract(
        "the metric compares the prediction at each token with the label of the same token: a decoder predicts the next one",
        "compare predictions[:, :-1] with labels[:, 1:]",
        learns=True,
        code="KB582",
    ),
    # transformers/trainer.py, evaluation_loop: predictions are what preprocess_logits_for_metrics returns
    "argmax of ids": DataContract(
        "preprocess_logits_for_metrics returns token ids, and the metric takes argmax of them again: one place in each text",
        "use the predictions as they are",
        learns=True,
        code="KB582",
    ),
    # chat templates: add_generation_prompt=True puts the beginning of an answer behind the messages
    "generation prompt learned": DataContract(
        "the texts of the training end with the beginning of an answer that does not come: the model learns to begin another",
        "pass add_generation_prompt=False",
        learns=True,
        code="KB582",
    ),
    # transformers/trainer.py, train: get_last_checkpoint(args.output_dir)
    "resumed from a new folder": DataContract(
        "output_dir is another one at each start, so the run that resumes finds no checkpoint in it: it raises a ValueError",
        "let output_dir be the same at each start",
        code="KB580",
    ),
    # peft/peft_model.py, set_adapter, delete_adapter
    "adapter unknown": DataContract(
        "the model has no adapter {}: it raises a ValueError", "name an adapter that is there", "peft", code="KB583"
    ),
    "adapter of a merged model": DataContract(
        "{} holds a merged model, and no adapter_config.json: the load of an adapter raises",
        "load it with AutoModelForCausalLM.from_pretrained",
        "peft",
        code="KB583",
    ),
    # transformers/tokenization_utils_base.py: a model saves no tokenizer
    "tokenizer not saved": DataContract(
        "{} holds what a model saved, and no tokenizer: the load of one raises an OSError",
        "save the tokenizer there too",
        code="KB583",
    ),
    # peft/tuners/lora/model.py, add_weighted_adapter
    "ranks that differ": DataContract(
        "adapters of different ranks are combined, and this way of combining them takes one rank: a ValueError",
        'pass combination_type="cat" or "svd"',
        "peft",
        code="KB583",
    ),
    # accelerate/accelerator.py, load_state: loads into what prepare has been given before
    "state loaded before prepare": DataContract(
        "load_state comes before prepare: it loads nothing into model and optimizer, and the run starts from the beginning",
        "call load_state after prepare",
        "accelerate",
        learns=True,
        code="KB581",
    ),
    # torch/serialization.py: weights_only is True since 2.6
    "model pickled": DataContract(
        "torch.load reads weights alone, and {} holds a whole model: an UnpicklingError",
        "save the adapters with model.save_pretrained",
        "torch",
        "2.6",
        code="KB583",
    ),
    "rows not prepared": DataContract(
        "skip_prepare_dataset leaves the texts as they are, and nothing tokenizes them: the first batch raises",
        "leave skip_prepare_dataset out",
        "trl",
    ),
}
