"""``GEMM`` for AMD's NPU, which is not a target of this engine."""

from ....lazy import unsupported

GEMM = unsupported("GEMM", "AMD's NPU is not a target", "flexllm_allo.library.systolic has matrix products")
