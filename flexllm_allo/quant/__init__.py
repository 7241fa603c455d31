"""Quantisation: formats, round-to-nearest, recipes, quantised models, perplexity."""

from .formats import INT4_WEIGHT, INT8_ACTIVATION, INT8_KV, INT8_WEIGHT, IntFormat
from .model import QuantizedModel, WeightStorage, bytes_per_weight, weight_storage
from .passes import (
    Awq, FoldNorms, Gptq, LowRank, Outliers, Pass, Prune, Rotate, Rtn, Smooth, StaticScales
)
from .planting import plant_outliers
from .perplexity import Perplexity, perplexity, text_sha256
from .quantize import quantize
from .recipes import Recipe, get_recipe, recipes
from .rtn import dequantize, quantize_rows, quantize_weight, round_half_away

__all__ = [
    "INT4_WEIGHT",
    "INT8_ACTIVATION",
    "INT8_KV",
    "INT8_WEIGHT",
    "IntFormat",
    "Perplexity",
    "QuantizedModel",
    "Recipe",
    "WeightStorage",
    "bytes_per_weight",
    "dequantize",
    "get_recipe",
    "perplexity",
    "quantize",
    "quantize_rows",
    "quantize_weight",
    "recipes",
    "round_half_away",
    "text_sha256",
    "weight_storage",
]
