"""``allo.backend.aie.vliw``: pragmas of the NPU's processors; nothing of it applies to this engine."""
