"""``allo.library.aie.modules``: importable; AMD's NPU is not a target of this engine."""
