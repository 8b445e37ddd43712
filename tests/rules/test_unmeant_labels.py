from __future__ import annotations

from script_cases import ADAPTED, LOADED, PREPARED, TRAINED, findings

CODE = "KB730"
PADDED = """\
def tokenize(row):
    made = tokenizer(row["text"], padding="max_length", max_length=512)
    made["labels"] = made["input_ids"].copy()
    return made
data = dataset.map(tokenize)
"""
MESSAGE = "the labels hold the padding of the tokens, and nothing sets it to -100: the loss counts it"


def test_labels_of_padding():
    body = LOADED + PREPARED + ADAPTED + PADDED + TRAINED
    masked = body.replace(
        "    return made", "    made['labels'] = [-100 if t == 0 else t for t in made['labels']]\n    return made"
    )

    assert findings(CODE, body) == [("warning", 'made["labels"] = made["input_ids"].copy()', MESSAGE)]
    assert findings(CODE, masked) == []
