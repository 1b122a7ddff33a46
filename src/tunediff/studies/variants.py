"""How do several runs of one base share what base says, and one folder?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunediff.errors import RunError
from tunediff.pair.contract import Pair
from tunediff.pair.open import locate
from tunediff.run import files
from tunediff.run.comparing import Replied, compare
from tunediff.run.store import Run
from tunediff.run.variants import VARIANTS
from tunediff.values import Reply, Suite

if TYPE_CHECKING:
    from tunediff.scoring.states import BaseStates


class Series:
    """Runs of one opened pair, its adapter dialled in several ways; base is read and answers once.

    Args:
        pair: base and a plain LoRA; another kind is refused.
        suites: what is asked.
        out: a folder; each run is one within it, and ``variants.json`` holds their names.
        states: an empty folder for base's hidden states, whose owner removes it.
        names: of the runs that are known beforehand, in their order.
        more: how many others are expected, which are found on the way.
        template: "raw", "chat" or a file; None: raw, and ``notice`` hears of a chat template.
        progress: called with the thousandths of the work that are done, and of all of it.
        notice: called with a sentence on what a person should know of the input.
        asking: the other options of :func:`tunediff.run.comparing.compare`.

    """

    def __init__(
        self,
        pair: Any,
        suites: Sequence[Suite],
        out: Path,
        states: Path,
        *,
        names: Sequence[str],
        more: int = 0,
        template: str | None,
        progress: Callable[[int, int], None] | None,
        notice: Callable[[str], None],
        **asking: Any,
    ) -> None:
        from tunediff.pair.hf_dial import adapted

        adapted(pair)  # refuses what cannot be dialled before anything is asked
        self._pair, self._suites, self._out = pair, suites, out
        self._states = share_base(pair, states)
        self._names, self._more, self._progress = names, more, progress
        self._template, self._notice = template, notice
        self._asking = {"form": "raw" if template in (None, "raw") else "chat", **asking}
        self._known: Replied | None = None
        self._done = 0

    def run(self, name: str, **dial: Any) -> Run:
        """The run of this name; ``dial``: the arguments of ``pair.hf_dial.dialled``."""
        from tunediff.pair.hf_dial import dialled

        run = compare(
            dialled(self._pair, **dial),
            self._suites,
            out=self._out / name,
            variant=name,
            progress=share_of(
                self._progress, self._done, max(len(self._names) + self._more, self._done + 1)
            ),
            known=self._known,
            states=self._states,
            timed=False,
            look=None,
            begin=None if self._done else self._begin,
            **self._asking,
        )
        self._done += 1
        if self._known is None and self._asking.get("generation") is not None:
            self._known = base_replies(run)
        return run

    def _begin(self) -> None:
        """All is found to be askable, and nothing is written yet."""
        if self._template is None:
            notice_template(self._pair, self._suites, self._notice)
        keep_names(self._out, self._names, grows=self._more > 0)


def notice_template(pair: Pair, suites: Sequence[Suite], notice: Callable[[str], None]) -> None:
    """Say that there is a chat template, where prompts are given raw and nobody asked for that."""
    prompts = any(item.prompt is not None for suite in suites for item in suite.items)
    if prompts and pair.settings.get("template") is not None:
        notice("Prompts are given raw; the model has a chat template (--template chat).")


def share_base(pair: Any, folder: Path, states: BaseStates | None = None) -> BaseStates:
    """Let a pair of Hugging Face models read base once with others.

    Args:
        pair: the pair.
        folder: where states are kept until the last of them is done.
        states: those of the pairs before it.

    """
    from tunediff.scoring.states import BaseStates

    states = states or BaseStates(folder)
    pair.share_base(states)
    return states


def weigh_pair(base: str, tuned: str, opening: Mapping[str, Any]) -> dict[str, Any]:
    """The geometry of the change of weights, from the files; ``opening``: of ``open_pair``."""
    from tunediff.pair.from_files import weigh

    where = {key: opening[key] for key in ("download", "revision") if key in opening}
    return weigh(*locate(base, tuned, **where)).as_dict()


def share_of(
    progress: Callable[[int, int], None] | None, done: int, of: int
) -> Callable[[int, int], None] | None:
    """What hears how far one of several runs is, and tells how far they all are."""
    if progress is None:
        return None
    return lambda part, whole: progress(done * whole + part, of * whole)


def keep_names(out: Path, names: Sequence[str], *, grows: bool = False) -> None:
    """Write the names of a folder's variants, or see that they are those that it holds.

    ``grows``: more of them may come behind these, which are found on the way.

    Raises:
        RunError: the folder belongs to another comparison.

    """
    path = out / VARIANTS
    if path.is_file():
        there = json.loads(path.read_bytes())
        if (there[: len(names)] if grows else there) != list(names):
            raise RunError(
                f"{out} belongs to another run: its variants are {', '.join(there)}; those of this "
                f"one are {', '.join(names)}.",
                "Choose another folder, or give the same tuned models in the same order.",
            )
        return
    killed = VARIANTS + files.TEMPORARY  # what is left where this was killed in its middle
    if out.exists() and any(p.name != killed for p in out.iterdir()):
        raise RunError(f"{out} is not empty and not such a run.", "Choose a new or empty folder.")
    files.make_folder(out)
    files.write_whole(path, (json.dumps(list(names)) + "\n").encode())


def base_replies(run: Run) -> Replied:
    """Base's replies in a run, which another variant need not ask for again."""
    found = {}
    for line in run.replies():
        said = dict(line["base"])
        said["ids"] = None if said["ids"] is None else tuple(said["ids"])
        found[line["suite"], line["item"], line["sample"]] = Reply(**said)
    return found
