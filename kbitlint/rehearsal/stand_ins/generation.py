"""Text that a model without weights generates: transformers prepares it, and a few tokens stand in for those of its loop."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbitlint.rehearsal.inside.imports import after_import, replace
from kbitlint.rehearsal.stand_ins.adapters import ARTEFACTS, is_without_weights, needs_values

if TYPE_CHECKING:
    from kbitlint.rehearsal.inside.record import Record

#: tokens of a text that ends by itself, its end included
NEW_TOKENS = 4
_TOKEN = 5
#: loops of ``GenerationMixin``, in ``GENERATION_MODES_MAPPING`` of transformers/generation/utils.py
_LOOPS = ("_sample", "_beam_search", "_assisted_decoding", "_group_beam_search", "_contrastive_search", "_dola_decoding")


def install(record: Record) -> None:
    """Replace the loops that generate tokens, until the process ends."""
    after_import("transformers.generation.utils", lambda module: _generating(record, module))
    name = "transformers.generation.continuous_batching.continuous_api"
    after_import(name, lambda module: replace(module.ContinuousMixin, "generate_batch", functools.partial(_batch, record)))


def _generating(record: Record, module: Any) -> None:
    owner = module.GenerationMixin
    replace(owner, "generate", lambda original: _generate(record, original))
    for name in _LOOPS:
        if hasattr(owner, name):
            replace(owner, name, lambda original: _loop(record, module, original))


def _guess(record: Record) -> None:
    record.guessed = True
    record.stand_in("generated text")


def _generate(record: Record, original: Any) -> Any:
    @functools.wraps(original)
    def generate(self: Any, *arguments: Any, **options: Any) -> Any:
        if record.paused or not is_without_weights(self):
            return original(self, *arguments, **options)
        _guess(record)
        given = [_valued(one) for one in arguments]
        named = {key: _valued(one) for key, one in options.items()}
        try:
            return original(self, *given, **named)
        except ARTEFACTS as error:
            if not needs_values(error):
                raise
        known = given[0] if given and isinstance(given[0], Tensor) else named.get("input_ids")
        known = torch.ones(1, 1, dtype=torch.long) if known is None else known
        return torch.cat([known, known.new_full((len(known), NEW_TOKENS), _TOKEN)], dim=1)

    return generate


def _valued(value: Any) -> Any:
    """Return token ids or a mask with values, if a tensor of integers has none; other values as they are."""
    if isinstance(value, Tensor) and value.is_meta and not value.is_floating_point():
        return torch.ones(value.shape, dtype=value.dtype, device="cpu")
    return value


def _loop(record: Record, module: Any, original: Any) -> Any:
    """Return a loop that appends tokens without computing them.

    The text ends by itself after a few tokens, or where its longest length is reached.
    """

    @functools.wraps(original)
    def decode(self: Any, input_ids: Tensor, *arguments: Any, **options: Any) -> Any:
        config = options.get("generation_config")
        if record.paused or config is None or not is_without_weights(self):
            return original(self, input_ids, *arguments, **options)
        prompts = _kept(_valued(input_ids), config)
        made = _new_tokens(prompts, config)
        sequences = torch.cat([prompts, made], dim=1)
        streamer = options.get("streamer")
        if streamer is not None:
            for column in made.T:
                streamer.put(column)
            streamer.end()
        return (
            _output(module, self, config, sequences, (len(input_ids), made.shape[1]))
            if config.return_dict_in_generate
            else sequences
        )

    return decode


def _kept(input_ids: Tensor, config: Any) -> Tensor:
    """Return the prompts, each as often as sequences are returned for it. ``generate`` has repeated them for each beam."""
    returned, width = config.num_return_sequences or 1, config.num_beams or 1
    if width <= returned:
        return input_ids
    return input_ids.view(-1, width, input_ids.shape[1])[:, :returned].flatten(0, 1)


def _new_tokens(prompts: Tensor, config: Any) -> Tensor:
    """Return the tokens after the prompts, of shape (sequences, new tokens)."""
    length = prompts.shape[1]
    room = max((config.max_length or length + NEW_TOKENS) - length, 0)
    count = min(room, max(NEW_TOKENS, (config.min_length or 0) - length, config.min_new_tokens or 0))
    made = prompts.new_full((len(prompts), count), _TOKEN)
    end = config.eos_token_id
    end = end[0] if isinstance(end, (list, tuple)) and end else end
    if isinstance(end, int) and 0 < count < room:
        made[:, -1] = end
    return made


def _output(module: Any, model: Any, config: Any, sequences: Tensor, steps: tuple[int, int]) -> Any:
    """Return the output of a loop as an object, with the scores and states that the config asks for, without values.

    Args:
        module: ``transformers.generation.utils``.
        model: The model.
        config: The generation config.
        sequences: The prompts and their new tokens.
        steps: The rows of a step of the loop, one for each beam, and the number of steps.
    """
    encodes = model.config.is_encoder_decoder
    beams = (config.num_beams or 1) > 1
    text = model.config.get_text_config()
    dtype, (rows, count) = model.dtype, steps

    def empty(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device="meta")

    scores = tuple(empty(rows, text.vocab_size) for _ in range(count))
    given: dict[str, Any] = {"sequences": sequences}
    given |= {"scores": scores} if config.output_scores else {}
    given |= {"logits": scores} if config.output_logits else {}
    given |= {"sequences_scores": empty(len(sequences))} if beams and config.output_scores else {}
    if config.output_hidden_states:
        layers = range((getattr(text, "num_hidden_layers", None) or 1) + 1)
        lengths = (sequences.shape[1] - count, *[1] * (count - 1)) if not encodes else (1,) * count
        states = tuple(tuple(empty(rows, length, text.hidden_size) for _ in layers) for length in lengths)
        given["decoder_hidden_states" if encodes else "hidden_states"] = states
    kind = f"Generate{'Beam' if beams else ''}{'EncoderDecoder' if encodes else 'DecoderOnly'}Output"
    return getattr(module, kind)(**given)


def _batch(record: Record, original: Any) -> Any:
    """Return continuous batching that answers each request with a few tokens."""

    @functools.wraps(original)
    def generate_batch(self: Any, inputs: Any, generation_config: Any = None, *arguments: Any, **options: Any) -> Any:
        if record.paused or not is_without_weights(self):
            return original(self, inputs, generation_config, *arguments, **options)
        from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus  # only here

        _guess(record)
        config = self.generation_config if generation_config is None else generation_config
        most = options.get("max_new_tokens") or config.max_new_tokens or NEW_TOKENS
        count = min(NEW_TOKENS, most)
        made = {}
        for number, prompt in enumerate(inputs):
            for child in range(config.num_return_sequences or 1):
                name = f"req_{number}" if child == 0 else f"req_{number}__child#{child - 1}"
                tokens = {"prompt_ids": list(prompt), "generated_tokens": [_TOKEN] * count}
                made[name] = GenerationOutput(name, **tokens, logprobs=[-1.0] * count, status=RequestStatus.FINISHED)
        return made

    return generate_batch
