"""What TRL's trainers of preferences and rewards refuse of losses, rewards and heads: ``trl/trainer`` of 0.8 to 1.16."""

from __future__ import annotations

from kbitlint.upstream.contracts.rows import Contract

#: the losses of ``DPOTrainer``, and those that have an f-divergence
_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
_DIVERGING = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
LOSS_ROWS = (
    Contract(
        ("trl.DPOTrainer",),
        f"text(args.loss_type) and args.loss_type not in {_LOSSES!r}",
        "Unknown loss type:",
        drops="args.loss_type",
        moment="when it trains",
        since="0.29",
    ),
    Contract(
        ("trl.DPOTrainer",),
        "args.loss_type == 'exo_pair' and args.label_smoothing == 0",
        "Label smoothing must be greater than 0.0 when using 'exo_pair' loss",
        since="0.29",
    ),
    Contract(
        ("trl.DPOTrainer",),
        "text(args.f_divergence_type) and args.f_divergence_type != 'reverse_kl' and text(args.loss_type)"
        f" and args.loss_type not in {_DIVERGING!r}",
        "is only supported for the following loss types",
        drops="args.f_divergence_type",
        since="1.16",
    ),
    Contract(
        ("trl.DPOTrainer",),
        "args.use_weighting and args.loss_type in ('aot', 'aot_unpaired')",
        "WPO-style weighting is not implemented for 'aot' or 'aot_unpaired'",
        "NotImplementedError",
        drops="args.use_weighting",
        since="1.16",
    ),
    Contract(
        ("trl.DPOTrainer",),
        "peft_config is not None and model.object and ref_model is not None"
        " and args.force_use_ref_model is not True and force_use_ref_model is not True",
        "You passed both a ref_model and a peft_config",
        drops="ref_model",
        since="0.8",
        until="0.29",
    ),
    Contract(
        ("trl.KTOTrainer",),
        "args.loss_type == 'kto' and text(args.train_sampling_strategy) and args.train_sampling_strategy != 'sequential'",
        "estimates the KL divergence term and requires `train_sampling_strategy='sequential'`",
        drops="args.train_sampling_strategy",
        since="1.8",
    ),
    Contract(
        ("trl.GRPOTrainer", "trl.RLOOTrainer"),
        "listed(args.reward_weights) and listed(reward_funcs) and size(args.reward_weights) != size(reward_funcs)",
        "Number of reward weights () must match number of reward functions ()",
    ),
    Contract(
        ("trl.GRPOTrainer",),
        "reward_funcs is None and environment_factory is None",
        "No reward source provided. Pass `reward_funcs`",
        since="1.8",
        unset=True,
    ),
    Contract(
        ("trl.OnlineDPOTrainer",),
        "reward_funcs is None and judge is None",
        "`reward_funcs` must be provided.",
        since="1",
        unset=True,
    ),
    Contract(
        ("trl.GRPOTrainer", "trl.RLOOTrainer"),
        "number(args.temperature) and args.temperature <= 0",
        "has to be a strictly positive float, otherwise your next token scores will be invalid",
        drops="args.temperature",
        moment="when it generates",
    ),
    Contract(
        ("trl.RewardTrainer",),
        "model.object and whole(model.labels) and model.labels != 1",
        "but reward models require `num_labels=1` to output a single scalar reward per sequence",
        since="0.29",
    ),
    Contract(
        ("trl.SFTTrainer",),
        "args.loss_type == 'dft' and compute_loss_func is not None",
        "You passed a `compute_loss_func` together with `loss_type='dft'` to the `SFTTrainer`",
        since="0.29",
    ),
)
