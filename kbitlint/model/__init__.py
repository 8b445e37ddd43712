"""The model surface: facts and edits of live models. It imports torch, transformers and PEFT, and no rule."""
