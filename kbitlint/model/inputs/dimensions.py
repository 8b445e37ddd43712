"""The value of a documented dimension, such as ``batch_size`` or ``config.num_mel_bins``, for one model."""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A dimension in the words of several classes -> the fields of the config that hold it.
_FIELDS = {
    "context_length": ("context_length",),
    "feature_dim": (
        "feature_projection_input_dim",
        "num_mel_bins",
        "input_feat_per_channel",
        "feature_size",
        "mel_bins",
        "n_mels",
        "input_dim",
    ),
    "channels": ("num_channels", "in_channels", "audio_channels", "in_chans"),
    "audio_channels": ("audio_channels",),
    "max_length": ("max_length",),
    "prediction_length": ("prediction_length",),
    "visual_feat_dim": ("visual_feat_dim",),
    "input_size": ("input_size",),
    "frames": ("num_frames", "frames_per_clip", "num_input_frames"),
    "embed_dims": (
        "caption_channels",
        "joint_attention_dim",
        "text_embed_dim",
        "text_dim",
        "cap_feat_dim",
        "cross_attention_dim",
        "encoder_hid_dim",
    ),
    "projection_dim": ("pooled_projection_dim", "projection_dim"),
}
_SAME = {
    "feature_size": "feature_dim",
    "num_mel_bins": "feature_dim",
    "mel_bins": "feature_dim",
    "n_mel_bins": "feature_dim",
    "num_banks": "feature_dim",
    "num_channels": "channels",
    "in_channels": "channels",
    "image_channels": "channels",
    "num_frames": "frames",
    "channel": "channels",
    "embed dims": "embed_dims",
    "embed_dim": "embed_dims",
}
#: Dimensions that a batch may choose freely.
_FREE = {
    "num_choices": 2,
    "num_images": 1,
    "max_num_images": 1,
    "num_videos": 1,
    "num_objects": 2,
    "num_boxes": 2,
    "point_batch_size": 1,
    "num_points": 2,
    "num_questions": 1,
    "num_negatives": 4,
    "entity_length": 4,
    "max_mention_length": 4,
    "num_visual_features": 4,
    "visual_seq_length": 4,
    "alignment_number": 2,
    "num_max_text_queries": 1,
    "episode_length": 4,
    "num_classes": 2,
    "total_classes": 2,
}
#: Pieces of a config, by what an argument's name speaks of. The first that has a field decides.
_PARTS = (
    (re.compile(r"pixel|image|visual|patch|video|mask_pos|noise"), ("vision_config", "backbone_config", "image_config")),
    (
        re.compile(r"audio|feature|input_values|speech|mel"),
        ("audio_config", "encoder_config", "speech_encoder", "encoder", "audio_encoder"),
    ),
)
#: Frames of a spectrogram, and samples of a second of sound. Encoders shorten them many times.
_FRAMES, _SAMPLES = 128, 16000
_SEQUENCE = re.compile(r"seq|length|_len$|^len|num_tokens|time_steps|num_samples|num_patches|num_mask")
_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The dimensions of one batch."""

    config: Any
    """The config of the model, or None."""
    batch: int
    """Samples in the batch."""
    seq_len: int
    """Tokens in each sample."""
    chosen: Mapping[str, int] = field(default_factory=dict)
    """Dimensions that a correction has set, by name."""

    def of(self, symbol: str, argument: str = "") -> int:
        """Return the value of a documented dimension.

        Args:
            symbol: The dimension, such as ``4``, ``num_channels`` or ``2 * config.d_model``.
            argument: The argument that has it. Its name tells which part of a composite config applies.
        """
        text = symbol.replace("`", "").replace(" x ", " * ").replace("**", "^")
        if text.isdigit():
            return int(text)
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError:
            return self._named(text.strip(), argument)
        return self._computed(tree, argument)

    def _computed(self, tree: ast.AST, argument: str) -> int:
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
            left, right = self._computed(tree.left, argument), self._computed(tree.right, argument)
            return max(int(_OPERATORS[type(tree.op)](left, right)), 1)
        if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
            return tree.value
        return self._named(ast.unparse(tree).rpartition(".")[2], argument)

    def _named(self, name: str, argument: str) -> int:
        """Return the value of a named dimension: a correction, a known word, a field of the config, or a free choice."""
        if name in self.chosen:
            return self.chosen[name]
        if name == "bs" or ("batch" in name and "point" not in name):
            return self.batch
        if name in ("height", "width", "image_size", "frame_size", "image_height", "image_width"):
            return self.image()[name in ("width", "image_width")]
        if name in _FREE:
            return _FREE[name]
        if name in ("num_patches", "image_num_patches", "num_image_patches") or (
            _SEQUENCE.search(name) and "mask_pos" in argument
        ):
            return self.patches()
        word = "embed_dims" if "encoder_hidden_states" in argument and name == "feature_dim" else _SAME.get(name, name)
        found = self.field(_FIELDS.get(word, (name,)), argument)
        if found is not None:
            return found
        return self._length(argument) if _SEQUENCE.search(name) else self._unnamed(word, argument)

    def _length(self, argument: str) -> int:
        """Return the length of a sequence: tokens, frames of a spectrogram, or samples of sound."""
        if "encoder_hidden_states" in argument and (limit := self.field(("max_text_seq_length",))):
            return limit
        return _FRAMES if "features" in argument else _SAMPLES if "input_values" in argument else self.seq_len

    def _unnamed(self, word: str, argument: str) -> int:
        """Return the usual value of a dimension that the config does not hold."""
        return {"channels": 1 if "input_values" in argument else 3, "frames": 2, "feature_dim": 80}.get(word, 2)

    def field(self, names: tuple[str, ...], argument: str = "") -> int | None:
        """Return the first integer of these fields in the part of the config that an argument belongs to, or None."""
        for part in self.parts(argument):
            for name in names:
                value = getattr(part, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    def parts(self, argument: str = "") -> Iterator[Any]:
        """Yield the parts of the config that may describe an argument, the nearest first."""
        for pattern, names in _PARTS:
            if pattern.search(argument):
                yield from (part for name in names if (part := getattr(self.config, name, None)) is not None)
        if self.config is not None:
            yield self.config
            text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else None
            if text is not None and text is not self.config:
                yield text
            for value in list(vars(self.config).values()):
                if hasattr(value, "model_type") and hasattr(value, "to_dict") and value is not text:
                    yield value

    def image(self) -> tuple[int, int]:
        """Return the height and width of an image. Classes that accept any size get 32 pixels."""
        if "image_size" in self.chosen:
            return (self.chosen["image_size"],) * 2
        for part in self.parts("pixel_values"):
            size = getattr(part, "image_size", None) or getattr(part, "sample_size", None)
            if isinstance(size, dict):
                size = (size.get("height"), size.get("width"))
            if isinstance(size, int) and size > 0:
                return (size, size)
            if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(edge, int) for edge in size):
                return (int(size[0]), int(size[1]))
        return (32, 32)

    def patches(self) -> int:
        """Return the number of patches of an image, or of a video of the config's length."""
        height, width = self.image()
        size = self.pair("patch_size", 16)
        frames, tubelet = self.field(_FIELDS["frames"]), self.field(("tubelet_size",))
        stride = self.field(("encoder_stride",)) if self.field(("depths",)) else None
        edges = (stride, stride) if stride else size
        count = max(height // edges[0], 1) * max(width // edges[1], 1)
        return count * max((frames or 1) // tubelet, 1) if tubelet else count

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """Return a field of the vision config that holds one edge or two."""
        for part in self.parts("pixel_values"):
            value = getattr(part, name, None)
            if isinstance(value, int) and value > 0:
                return (value, value)
            if isinstance(value, (list, tuple)) and value and all(isinstance(edge, int) for edge in value):
                return (int(value[-2] if len(value) > 1 else value[0]), int(value[-1]))
        return (default, default)
