"""From Python source to the IR."""

from ..lazy import unsupported

from_pytorch = unsupported(
    "from_pytorch",
    "models are not traced by torch.fx",
    "write the layers with flexllm_allo.library.nn, or load a checkpoint with flexllm_allo.models",
)
