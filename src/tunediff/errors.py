"""What can go wrong, and what does the user do about it?

One tree. Every message says what came and what was needed; every hint says what to do. The command
line turns any :class:`TunediffError` into exit code 2 (or, with ``--json``, into one JSON object).
"""

from __future__ import annotations


class TunediffError(Exception):
    """The root of the tree.

    Args:
        message: what came, and what was needed.
        hint: what to do about it, as an instruction.

    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(TunediffError):
    """Options that contradict each other or do not fit the input."""

    code = "usage"


class InputError(TunediffError):
    """An item file or an item that cannot be asked."""

    code = "input"


class LengthError(InputError):
    """An item that is too long, or of which nothing is left to ask once it was cut."""


class ModelError(TunediffError):
    """A model folder that cannot be opened."""

    code = "model"


class AdapterError(TunediffError):
    """Adapter files that are unsafe, incomplete or do not fit."""

    code = "adapter"


class PairError(TunediffError):
    """Two models that cannot be compared."""

    code = "pair"


class CertificateError(PairError):
    """The tuned side could not be proven to be base plus this adapter."""

    code = "certificate"


class UnsupportedError(TunediffError):
    """Something that exists in the field and is not supported here, refused by name."""

    code = "unsupported"


class MissingExtraError(TunediffError):
    """A part of tunediff that was not installed."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs {package}, which is not installed.",
            f"Install it with: pip install 'tunediff[{extra}]'",
        )


class RunError(TunediffError):
    """A run folder that cannot be read, written or continued."""

    code = "run"


class NumericsError(TunediffError):
    """NaN or infinity where a number was needed, or a self-check that failed."""

    code = "numerics"
