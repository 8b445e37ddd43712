import json
import math
import time

from transformers import Trainer, TrainerCallback, TrainingArguments

from helper import build, dataset


class Printer(TrainerCallback):
    def __init__(self):
        self.losses = []
        self.start = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.start = time.time()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])
            print(f"step {state.global_step}/{state.max_steps}: loss {logs['loss']:.3f} lr {logs['learning_rate']:.2e} norm {logs['grad_norm']:.2f}")

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % 2 == 0:
            control.should_save = False

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        print(f"perplexity {math.exp(metrics['eval_loss']):.2f}")

    def on_train_end(self, args, state, control, **kwargs):
        print(f"{time.time() - self.start:.1f} s")


model, tokenizer = build("tiny-llama")
data = dataset(tokenizer)
printer = Printer()
trainer = Trainer(
    model,
    TrainingArguments(
        "out", num_train_epochs=1, per_device_train_batch_size=4, logging_steps=1, eval_strategy="epoch", report_to="none", use_cpu=True
    ),
    train_dataset=data,
    eval_dataset=data.select(range(4)),
    callbacks=[printer],
)
output = trainer.train()
history = trainer.state.log_history
train_losses = [entry["loss"] for entry in history if "loss" in entry]
eval_losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
print(f"last {train_losses[-1]:.4f} best evaluation {min(eval_losses):.4f} mean {sum(printer.losses) / len(printer.losses):.4f}")
print(f"{output.training_loss:.4f} after {output.global_step} steps, {output.metrics['train_samples_per_second']:.1f} per second")
summary = history[-1]
print(summary["train_runtime"], summary["train_loss"], summary["total_flos"])
steps = [entry["step"] for entry in history if "grad_norm" in entry]
assert steps == sorted(steps)
with open("history.json", "w") as file:
    json.dump(history, file)
