"""From float matrices to integers: rounding, GPTQ, masks, corrections."""
