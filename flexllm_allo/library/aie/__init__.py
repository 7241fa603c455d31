"""``allo.library.aie``: importable; AMD's NPU is not a target of this engine."""
