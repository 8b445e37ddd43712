from __future__ import annotations

from script_cases import LOADED, OLD, findings

CODE = "KB732"
REWARD = "def reward(completions, **kwargs):\n    return {}\n"
TRAINED = (
    "from trl import GRPOTrainer\nGRPOTrainer(model, reward_funcs=[{}], peft_config=LoraConfig(), train_dataset=d).train()\n"
)


def test_rewards_that_are_equal_for_every_completion():
    body = LOADED + REWARD + TRAINED.format("reward")
    message = "every completion gets the same reward, so every advantage is 0: nothing is learned"

    for equal in ("[1.0] * len(completions)", "[0.5 for _ in completions]"):
        assert findings(CODE, body.format(equal)) == [("warning", f"return {equal}", message)]
    assert findings(CODE, body.format("[len(one) for one in completions]")) == []
    assert findings(CODE, (LOADED + REWARD + TRAINED.format("reward, other")).format("[1.0] * len(completions)")) == []
    assert findings(CODE, "def reward(completions):\n    return [1.0]\n", versions=OLD) == []
