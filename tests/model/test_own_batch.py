"""The memory of a step on a batch of the user's own, with a loss of the user's own, beside what a real step saves."""

from __future__ import annotations

import pytest
import tiny
import torch
from diffusion import quantized
from torch import nn

import kbitlint
from kbitlint.errors import KbitlintError
from kbitlint.memory_result import OFF

WIDTH, WORDS = 64, 100


class Tagger(nn.Module):
    """Layers to quantize, each with a low-rank path beside it that is written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH)) for _ in range(4))
        self.paths = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)) for _ in range(4))
        self.tags = nn.Linear(WIDTH, WORDS)

    def forward(self, batch):
        """Return scores for each word of ``batch.words``."""
        hidden = self.words(batch["words"])
        for layer, path in zip(self.layers, self.paths, strict=True):
            hidden = hidden + layer(hidden) + path(hidden)
        return self.tags(hidden)


def tagger():
    torch.manual_seed(0)
    model = quantized(Tagger(), leave=("paths", "tags"))
    model.requires_grad_(requires_grad=False)
    model.paths.requires_grad_(requires_grad=True)
    return model


def loss_of_tags(model, batch):
    return nn.functional.cross_entropy(model(batch).flatten(0, 1), batch["tags"].flatten())


BATCH = {name: torch.arange(7 * 33).reshape(7, 33) % WORDS for name in ("words", "tags")}
OWN = {"inputs": BATCH, "step": loss_of_tags, "lora": None}


def saved_by(model, run):
    """The bytes that a real forward pass keeps for its backward pass, without those of the model itself."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def told(model, **options):
    report = kbitlint.memory(model, context=kbitlint.TrainingContext(autocast_dtype="float32"), **options)
    step = report.states[0].steps[OFF]
    return report, step.activations + step.logits


def test_the_bytes_of_a_step_on_a_batch_of_ones_own_are_those_of_a_real_one():
    model = tagger()
    report, saved = told(model, **OWN)

    assert saved == saved_by(model, lambda: loss_of_tags(model, BATCH))
    assert (report.batch, report.own_batch, "one step of your batch" in str(report)) == ((7, 33), True, True)


def test_arguments_of_a_class_of_a_library_are_taken_too():
    model = tiny.with_lora(tiny.load()).train()
    ids = torch.arange(3 * 21).reshape(3, 21) % tiny.VOCAB
    inputs = {"input_ids": ids, "labels": ids}
    report, saved = told(model, inputs=inputs)

    assert abs(saved / saved_by(model, lambda: model(**inputs)) - 1) < 0.02
    assert report.batch == (3, 21)


def test_no_other_batch_is_proposed_to_make_it_fit():
    fits, too_large = (kbitlint.fit(tagger(), gpu=card, **OWN) for card in ("24GB", "0.1GB"))

    assert (fits.fits, fits.largest, fits.grid) == (True, (), None)
    assert "your batch" in str(fits)
    assert not too_large.fits
    assert not {change.name for change in too_large.changes} & {"one sequence at a time", "packed experts"}


@pytest.mark.parametrize("given", [{"batch": 2}, {"seq_len": 8}])
def test_a_second_size_is_refused(given):
    for call in (kbitlint.memory, lambda *args, **options: kbitlint.fit(*args, gpu="24GB", **options)):
        with pytest.raises(KbitlintError, match=f"{next(iter(given))} is that of the batch in inputs"):
            call(tagger(), **OWN, **given)


def test_a_script_makes_its_own_batches(tmp_path):
    (tmp_path / "train.py").write_text("import torch")

    with pytest.raises(KbitlintError, match="makes its own batches: leave inputs out"):
        kbitlint.memory(str(tmp_path / "train.py"), inputs=BATCH)


def test_a_batch_that_no_class_documents_is_made_for_the_step():
    """The forward takes one dictionary. It is seen what the code reads of it."""
    report, saved = told(tagger(), lora=None, batch=2, seq_len=16)

    assert report.states[0].failure is None
    assert saved > 0
