"""``FA`` for AMD's NPU, which is not a target of this engine."""

from ....lazy import unsupported

FA = unsupported("FA", "AMD's NPU is not a target", "flexllm_allo.library.nn has attention")
