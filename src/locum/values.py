"""`dataclass`, as that of the standard library, but `frozen` for the type checker alone.

Knows no class that it is used for. mypy, which is strict, sees every line that could assign to a field. Looking
after that once more at run time makes an object three times as expensive, and a handshake makes a hundred of them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, **options: Any) -> Any:
        """See `dataclasses.dataclass`; with `frozen`, two that are equal have the same hash."""

        def make(cls: type) -> type:
            hashable = frozen and options.get("eq", True) and "__hash__" not in vars(cls)
            return dataclasses.dataclass(**options, unsafe_hash=hashable)(cls)

        return make if cls is None else make(cls)
