"""Quantisation: formats, round-to-nearest, recipes, quantised models, perplexity."""

from .formats import INT4_WEIGHT, INT8_ACTIVATION, INT8_KV, INT8_WEIGHT, IntFormat
from .integer.rtn import dequantize, quantize_rows, quantize_weight, round_half_away
from .model import QuantizedModel, WeightStorage, bytes_per_weight, weight_storage
from .passes import Awq, FoldNorms, Gptq, LowRank, Outliers, Pass, Prune, Rotate, Rtn, Smooth, StaticScales
from .perplexity import Perplexity, perplexity, text_sha256
from .quantize import quantize
from .recipes import Recipe, get_recipe, recipes
from .transform.planting import plant_outliers

__all__ = [
    "INT4_WEIGHT",
    "INT8_ACTIVATION",
    "INT8_KV",
    "INT8_WEIGHT",
    "Awq",
    "FoldNorms",
    "Gptq",
    "IntFormat",
    "LowRank",
    "Outliers",
    "Pass",
    "Perplexity",
    "Prune",
    "QuantizedModel",
    "Recipe",
    "Rotate",
    "Rtn",
    "Smooth",
    "StaticScales",
    "WeightStorage",
    "bytes_per_weight",
    "dequantize",
    "get_recipe",
    "perplexity",
    "plant_outliers",
    "quantize",
    "quantize_rows",
    "quantize_weight",
    "recipes",
    "round_half_away",
    "text_sha256",
    "weight_storage",
]
