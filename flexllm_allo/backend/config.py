"""``allo.backend.config``: the options of HLS projects and their defaults."""

from __future__ import annotations

from ..hardware.devices import part_numbers

PART_NUMBER = dict(part_numbers())
DEFAULT_CONFIG = {"device": "u280", "frequency": 300}
