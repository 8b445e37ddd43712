from __future__ import annotations

from script_cases import LOADED, findings

CODE = "KB582"
RUN = """\
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
def logits(scores, labels):
    return scores.argmax(-1)
def metric(pair):
    return {"accuracy": (%s).mean()}
Trainer(model=model, args=TrainingArguments("o"), train_dataset=dataset, eval_dataset=dataset, compute_metrics=metric,
        preprocess_logits_for_metrics=logits).train()
"""
SAID = "the metric compares the prediction at each token with the label of the same token: a decoder predicts the next one"


def test_a_metric_that_compares_the_same_token_is_a_warning():
    found = findings(CODE, LOADED + RUN % "pair.predictions == pair.label_ids")

    assert [(severity, message) for severity, _, message in found] == [("warning", SAID)]
    assert findings(CODE, LOADED + RUN % "pair.predictions[:, :-1] == pair.label_ids[:, 1:]") == []
