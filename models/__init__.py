"""Models: a Hugging Face checkpoint becomes a graph of kernel calls. No torch is needed."""

from .hf import Checkpoint, load_checkpoint
from .model import Model, load
from .presets import architecture
from .spec import LlamaConfig

__all__ = ["Checkpoint", "LlamaConfig", "Model", "architecture", "load", "load_checkpoint"]
