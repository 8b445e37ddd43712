from __future__ import annotations

import json
import shutil

import pytest
import resume
import torch
from checkpoint_cases import adapter, findings, lora, skipped
from safetensors.torch import load_file, save_file

OTHER = ("error", "optimizer.pt", "the optimizer's state is of 4 parameters, and the adapter has 28 tensors of LoRA")


def test_the_optimizer_of_another_run(tmp_path):
    folder = resume.saved(tmp_path)
    shutil.copy(resume.saved(tmp_path / "other", "q_proj") / "optimizer.pt", folder)

    assert findings("KB826", folder) == [OTHER]
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        resume.resumed(folder)


def test_a_folder_that_lacks_what_was_trained(tmp_path):
    folder = resume.saved(tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if ".layers.0." in name}, file)

    assert findings("KB826", folder) == [
        ("warning", "optimizer.pt", "the optimizer's state is of 28 parameters, and the folder holds 14 of them")
    ]


def test_a_whole_folder_is_clean_and_resumes(tmp_path):
    folder = resume.saved(tmp_path)

    assert findings("KB826", folder) == []
    assert resume.resumed(folder).state.global_step == 4


def test_an_optimizer_of_lora_b_alone(tmp_path):
    """LoRA-FA freezes A, so that half of the tensors are trained."""
    folder = resume.saved(tmp_path)
    frozen = [torch.nn.Parameter(torch.zeros(1)) for _ in range(14)]
    torch.save(torch.optim.AdamW(frozen).state_dict(), folder / "optimizer.pt")

    assert findings("KB826", folder) == []


@pytest.mark.parametrize("name", ["policy/adapter_model.safetensors", "pytorch_model.bin"])
def test_weights_in_further_files_may_be_what_is_missing(tmp_path, name):
    folder = resume.saved(tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if ".layers.0." in name}, file)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")

    assert findings("KB826", folder) == []


def test_other_adapters_and_other_folders_are_not_counted(tmp_path):
    folder = resume.saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "ADALORA"}))

    assert skipped("KB826", folder) == ["the tensors of other adapters than LoRA are not all trained"]
    assert skipped("KB826", adapter(tmp_path / "plain", lora("q_proj"))) == [
        "no folder with an adapter and the state of its optimizer"
    ]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", bytes(range(256))])
def test_a_damaged_file_is_not_counted_and_nothing_of_it_runs(tmp_path, content):
    folder = resume.saved(tmp_path)
    (folder / "optimizer.pt").write_bytes(content)

    assert skipped("KB826", folder) == ["no folder with an adapter and the state of its optimizer"]


def test_a_pickle_that_would_run_a_command_is_only_listed(tmp_path):
    folder, ran = resume.saved(tmp_path), tmp_path / "ran"

    class Command:
        def __reduce__(self):
            return (ran.write_text, ("it ran",))

    torch.save({"params": [1, 2], "further": Command()}, folder / "optimizer.pt")

    assert [message for _, _, message in findings("KB826", folder)] == [
        "the optimizer's state is of 2 parameters, and the adapter has 28 tensors of LoRA"
    ]
    assert not ran.exists()
