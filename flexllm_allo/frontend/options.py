"""What `customize` was asked for beyond the kernel: the rules a whole program is lowered by."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DTypeError, did_you_mean

TYPING_RULE_SETS = ("default", "cpp-style")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the frontend, the same for every kernel of a program.

    Attributes:
        typing_rule_set: ``"default"`` (results wide enough for every value) or ``"cpp-style"``.
        lower_linalg: whole-array operations become named bands that schedules can address.
        enable_tensor: arrays are values; assigning to all of an existing one is refused.
        unroll: dataflow kernels become one function per instance.
    """

    typing_rule_set: str = "default"
    lower_linalg: bool = False
    enable_tensor: bool = False
    unroll: bool = True

    def __post_init__(self) -> None:
        if self.typing_rule_set not in TYPING_RULE_SETS:
            raise DTypeError(
                "FX103",
                f'there is no typing rule set "{self.typing_rule_set}"',
                hint=did_you_mean(self.typing_rule_set, TYPING_RULE_SETS),
            )


DEFAULT = Options()
