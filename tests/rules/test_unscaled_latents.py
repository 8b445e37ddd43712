from __future__ import annotations

import pytest
from script_cases import LOADED, findings

CODE = "KB577"
ENCODED = "latents = vae.encode(pixels).latent_dist.sample()"
NOISED = "noisy = scheduler.add_noise(latents, noise, steps)\nloss = torch.nn.functional.mse_loss(unet(noisy), noise)\n"


def test_latents_without_a_scale():
    message = "the latents are not multiplied by the scaling factor of the autoencoder, as pipelines expect"
    assert findings(CODE, LOADED + f"{ENCODED}\n{NOISED}") == [("error", ENCODED, message)]


@pytest.mark.parametrize(
    "line", [f"{ENCODED} * vae.config.scaling_factor", f"{ENCODED} * 0.18215", f"{ENCODED}\nlatents = latents * scale_factor"]
)
def test_look_alikes(line):
    assert findings(CODE, LOADED + f"{line}\n{NOISED}") == []


def test_an_encoding_that_is_not_trained_on():
    assert findings(CODE, LOADED + f"{ENCODED}\nimage = vae.decode(latents)\n") == []
