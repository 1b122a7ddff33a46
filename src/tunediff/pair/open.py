"""Which backend opens these two models, and where do they lie?

Local folders, or names on the model hub with ``download``. Nothing is fetched unless asked for,
and nothing stands in for a model that could not be opened.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunediff.errors import ModelError, UsageError
from tunediff.pair.folders import classify, parse_model_argument, require_base

if TYPE_CHECKING:
    from tunediff.pair.contract import Pair

DTYPES = ("float32", "bfloat16", "float16")
RECORDED = "recorded:"


def open_pair(
    base: str | Path,
    tuned: str | Path,
    *,
    backend: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    download: bool = False,
    revision: str | None = None,
    bits_per_byte_only: bool = False,
    template: str | None = None,
    intersect: bool = False,
) -> Pair:
    """Open base and tuned together.

    Args:
        base: a model folder, or a hub name with ``download``; or ``recorded:FILE.jsonl`` on both
            sides, replies that are there already.
        tuned: an adapter folder or a model folder (``adapter:PATH`` and ``full:PATH`` say which,
            where a folder holds both), or a hub name with ``download``.
        backend: "auto", or a name of ``BACKENDS``.
        dtype: float32, bfloat16 or float16; the same for both sides.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "mps".
        download: fetch hub names that are not local.
        revision: of base on the hub.
        bits_per_byte_only: allow different tokenizers, and measure that one figure.
        template: the chat template's text, in place of the one in base's folder.
        intersect: of recorded replies, keep those that both files have.

    Returns:
        The pair, with its certificate.

    Raises:
        TunediffError: whatever cannot be opened or proven; never a fallback.

    """
    if dtype not in DTYPES:
        raise UsageError(f"The dtype {dtype!r} is not one of {', '.join(DTYPES)}.", "Choose one.")
    chosen = choose_backend(backend, str(base), str(tuned))
    for option, given, needed in (
        ("template", template is not None, "hf"),
        ("intersect", intersect, "recorded"),
    ):
        if given and chosen != needed:
            raise UsageError(
                f"{option} does not go with the backend {chosen!r}, only with {needed!r}.",
                "Leave it out.",
            )
    return BACKENDS[chosen](
        str(base),
        str(tuned),
        dtype=dtype,
        device=device,
        download=download,
        revision=revision,
        bits_per_byte_only=bits_per_byte_only,
        template=template,
        intersect=intersect,
    )


def choose_backend(name: str, base: str, tuned: str) -> str:
    """The backend of this name; "auto" looks at what is to be opened.

    Raises:
        UsageError: no backend has this name.

    """
    if name == "auto":
        if any(name.startswith(RECORDED) for name in (base, tuned)):
            return "recorded"
        return "toy" if base == "toy" and tuned.partition(":")[0] == "toy" else "hf"
    if name not in BACKENDS:
        raise UsageError(
            f"The backend {name!r} is not one of {', '.join(BACKENDS)}.", "Choose one, or auto."
        )
    return name


def resolve(name: str, *, download: bool = False, revision: str | None = None) -> Path:
    """The local folder of a path or a hub name.

    Raises:
        ModelError: where it does not exist, naming the way out.

    """
    try:
        path = Path(name).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, a folder closed to us, no such user
        raise ModelError(f"{name} cannot be looked at: {error}.", "Check the path.") from None
    looks_like_hub = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_hub:
        raise ModelError(
            f"There is no folder {name}.",
            "Give the path of a model folder; on the hub a name has its owner in front, as in "
            "owner/name, and --download fetches it.",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=not download,
                allow_patterns=[
                    "*.json",
                    "*.safetensors",
                    "*.jinja",
                    "*.model",
                    "merges.txt",
                    "vocab.txt",
                ],
            )
        )
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name} is neither a local folder nor in the hub's local cache.",
            "The hub could not be reached." if download else "Pass --download to fetch it.",
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{name} could not be fetched: {first}", "Check the name.") from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: an import of torch and transformers makes millions of objects
    and no garbage, and collecting them over and over is a fifth of its time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _open_hf(
    base: str,
    tuned: str,
    *,
    dtype: str,
    device: str,
    download: bool,
    revision: str | None,
    bits_per_byte_only: bool,
    template: str | None,
    **_: object,
) -> Pair:
    base_path, tuned_path, kind = locate(base, tuned, download=download, revision=revision)
    with _uncollected():
        from tunediff.pair.hf_open import open_hf

    pair = open_hf(
        base_path,
        tuned_path,
        kind,
        dtype=dtype,
        device=device,
        bits_per_byte_only=bits_per_byte_only,
    )
    return pair if template is None else pair.with_template(template)


def locate(
    base: str, tuned: str, *, download: bool = False, revision: str | None = None
) -> tuple[Path, Path, str]:
    """The two folders, and whether tuned is an "adapter" or a "model".

    Raises:
        ModelError: where base is not a model folder.

    """
    base_path = resolve(parse_model_argument(base).path, download=download, revision=revision)
    require_base(base_path)
    said = parse_model_argument(tuned)
    tuned_path = resolve(said.path, download=download)
    return base_path, tuned_path, classify(tuned_path, said.kind)


def _open_toy(base: str, tuned: str, **_: object) -> Pair:
    """``toy`` and ``toy:STRENGTH``."""
    from tunediff.pair.toy import ToyPair

    strength = tuned.partition(":")[2] or "1"
    try:
        return ToyPair(float(strength))
    except ValueError:
        raise UsageError(f"{tuned!r} is not a toy.", "Write toy:STRENGTH, as in toy:0.5.") from None


def _open_recorded(base: str, tuned: str, *, intersect: bool, **_: object) -> Pair:
    """``recorded:FILE.jsonl`` on both sides."""
    from tunediff.pair.recorded import open_recorded

    for name in (base, tuned):
        if not name.startswith(RECORDED):
            raise UsageError(
                f"{name!r} is a model, and recorded replies are compared with recorded ones only.",
                f"Record its replies too, and give both sides as {RECORDED}FILE.jsonl.",
            )
    files = (Path(name.removeprefix(RECORDED)) for name in (base, tuned))
    return open_recorded(*files, intersect=intersect)


BACKENDS: dict[str, Callable[..., Pair]] = {
    "hf": _open_hf,
    "toy": _open_toy,
    "recorded": _open_recorded,
}
