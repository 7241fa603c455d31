"""Everything that runs or emits a program; Allo's backends of other vendors answer with a refusal."""

from ..lazy import lazy

AIE_MLIRModule = None  # Allo's value where the NPU tools are absent

__getattr__ = lazy(
    __name__,
    dict.fromkeys("aie catapult config hls ip llvm pynq report simulator tapa vitis xls".split(), "."),
)
