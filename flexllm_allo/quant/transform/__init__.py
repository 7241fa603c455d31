"""Float models that compute the same function and are easier to quantize: views, never copies."""
