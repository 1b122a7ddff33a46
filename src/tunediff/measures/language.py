"""Does the reply keep the language of its prompt?"""

from __future__ import annotations

import re

from tunediff.measures.pairs import both_sides
from tunediff.measures.text import asked, dominant_script
from tunediff.values import Item, Measure, Reply

_OTHER_LANGUAGE = re.compile(
    r"\btranslat|\b(?:in|into|to|only|the)\s+(?:the\s+)?"
    r"(?:Arabic|Armenian|Bengali|Bulgarian|Burmese|Chinese|Czech|Danish|Dutch|English|Finnish|"
    r"French|Georgian|German|Greek|Gujarati|Hebrew|Hindi|Hungarian|Indonesian|Italian|Japanese|"
    r"Kannada|Khmer|Korean|Lao|Latin|Malayalam|Mandarin|Marathi|Nepali|Norwegian|Pashto|Persian|"
    r"Polish|Portuguese|Punjabi|Romanian|Russian|Serbian|Sinhala|Spanish|Swahili|Swedish|Tamil|"
    r"Telugu|Thai|Tibetan|Turkish|Ukrainian|Urdu|Vietnamese)\b",
    re.IGNORECASE,
)


def language_kept(item: Item, reply: Reply) -> float | str:
    """1 where most letters of the reply are of the script of most letters of the prompt, else 0.

    Unit share; higher is better; 0 means that both keep it as often. Code is left out. Scripts
    are told apart, not languages: a reply in French to a prompt in English keeps it. Null where
    either has no letters (an empty reply among them), and where the prompt names a language or
    asks for a translation.
    """
    prompt = asked(item)
    named = any(c.kind == "language:response_language" for c in item.constraints or ())
    if named or _OTHER_LANGUAGE.search(prompt):
        return "The prompt names a language, so its own need not be kept."
    wanted = dominant_script(prompt)
    if wanted is None:
        return "The prompt has no letters."
    given = dominant_script(reply.text)
    return float(given == wanted) if given else "The reply has no letters."


LANGUAGE: tuple[Measure, ...] = (
    Measure(
        "language_kept",
        "share",
        1,
        "both keep the prompt's script as often",
        ("replies",),
        both_sides(language_kept),
        margin=0.02,
    ),
)
