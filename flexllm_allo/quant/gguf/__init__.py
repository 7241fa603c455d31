"""GGUF files and the block formats of ggml."""
