"""The folder a quantized model lives in: written in one step, resumed after a crash, checked when read."""
