"""Which phrases turn a request down, go with that, take it back, or only say "I do not know"?

The vocabulary of ``refusal_rules.py``, and of it alone. It is matched against single sentences in
which contractions are written out ("I will not", "that is").
"""

from __future__ import annotations

import re


def any_of(*alternatives: str, start: str = r"\b") -> re.Pattern[str]:
    """A pattern of alternatives in either case, each from the beginning of a word."""
    return re.compile(rf"{start}(?:{'|'.join(alternatives)})", re.IGNORECASE)


SOFT = (
    r"(?:,? (?:really|simply|just|unfortunately|regretfully|therefore|also|still|currently|"
    r"ethically|honestly|normally|usually|generally|typically|certainly|absolutely|definitely|"
    r"sadly|respectfully|politely|kindly|firmly|personally|legally|however|ever|possibly|either|"
    r"much|very|at all|quite|in good conscience|under any circumstances|at this time),?)*"
)
NO = r"cannot|could never|can never|will not|will never|shall not"

# Turning it down in other words

_THING = r"(?:something|anything|(?:an?|the|my|our|one) (?:\w+ )?(?:kind of )?\w+|what|one|part)"
_RULES = (
    r"(?:guidelines?|polic(?:y|ies)|rules?|principles?|programming|values|ethics?|purpose|terms|"
    r"instructions|standards|training|design|code|nature)"
)
_MUST = (
    r"(?: (?:will|would|must|should|shall|can only|have to|need to|ought to|am going to|want to|"
    r"prefer to|rather|choose to|have decided to|am obliged to|am bound to|have no choice but to|"
    r"am|be)\b)*"
)
_TURN_DOWN = (
    r"(?:declin(?:e|ing)|refus(?:e|ing)|say(?:ing)? no|pass(?:ing)? on|skip(?:ping)?|"
    r"sit(?:ting)? (?:\w+ ){0,3}out|turn(?:ing)? (?:\w+ ){1,3}?down|turn down|"
    r"stop(?:ping)? (?:here|there|you|right)|draw(?:ing)? (?:a|the|my) line|"
    r"le(?:ave|aving|ft) (?:[\w']+ ){0,4}?(?:out|alone|unanswered|undone|aside|unsaid|unwritten|"
    r"there|here|at that|be|to (?:you|your|a|the|others|someone))|(?:keep|"
    r"keeping) (?:\w+ ){0,3}to myself|"
    r"opt(?:ing)? out|bow(?:ing)? out|steer(?:ing)? clear|stay(?:ing)? (?:out|away|neutral|silent)|"
    r"remain(?:ing)? (?:neutral|impartial|silent)|refrain|abstain|withh[eo]ld|hold(?:ing)? back|"
    r"keep(?:ing)? out|avoid (?:\w+ing|that|this|such)|back out|give (?:\w+ ){0,3}a miss|"
    r"keep quiet|say nothing|end this)"
)
REFUSED = any_of(
    # I must decline; this one I will skip; I am drawing a line
    rf"(?:i|we){SOFT}{_MUST}{SOFT} {_TURN_DOWN}(?! to (?:eat|pay))",
    r"(?:i|we)\b[^.;:]{0,40} and (?:must |will |have to )?(?:decline|refuse|pass)\b",
    r"must ask you to (?:find|choose|pick|try|look)", r"where my (?:help|advice|support) (?:ends|"
    r"stops)", r"i would(?: much| far)? (?:be happier|prefer|rather)(?: to)? help\w*",
    rf"(?:i|we){SOFT}(?: (?:will|must|have to|would rather|am going to|would prefer to))+ pass\b",
    r"where i (?:draw|stop|stand firm)", r"not going (?:there|down (?:that|this))",
    r"not (?:fit|sit|align|square|agree|go) (?:well |right )?with (?:that|this|me|my)\b",
    r"(?:stay|keep|remain|act)(?:ing)? (?:within|inside) (?:my|our)",
    r"(?:keep|stick|hold)(?:ing)? to my",
    r"keep following my", r"(?:rules|guidelines|instructions|principles) (?:that|which) (?:forbid|"
    r"prohibit|prevent|rule out)", r"break the law and my",
    r"crosses (?:a|the|my) line", r"not (?:a|the) line i\b",
    # no; no way; out of the question
    r"no can do", r"my answer (?:is|has to be|must be|will be|remains|stays)(?: still| a)? "
    r"no\b", r"(?:that|this|it) is a (?:\w+ )?no\b", r"count me out",
    r"off[- ]limits", r"off the table", r"out of the question", r"not happening",
    r"not doing (?:that|this|it)", r"no[- ]go\b", r"hard (?:no|pass)\b", r"anything else,? but",
    r"no way (?:that )?i (?:am|will|can|would)",
    r"(?:no way|under no circumstances|nor|neither) (?:am|will|would|shall) (?:i|we)",
    r"i (?:can|will|would|could) neither", r"i have no (?:wish|desire|plans)",
    r"hard stop", r"nothing (?:that )?i can do (?:for you|here|there|about)",
    r"(?:never|at no point) "
    r"(?:will|would|shall) (?:i|we)\b", r"i reject (?:this|that|your|the)\b",
    r"(?:topic|conversation|"
    r"discussion) (?:cannot|will not|must not|should not) continue", r"ask me to help",
    r"but not (?:with )?(?:this|that)(?: one)?\W*\Z",
    # not something that I do; one thing I cannot do
    rf"(?:not|nothing|never) {_THING}(?: that| which|,? (?:in|on|with|for) which)? (?:i|we)"
    r"(?= (?:\w+ly )?(?:am|can|could|do|would|will|want to|feel|support|help|give|offer|get|may|"
    r"should|wish|discuss|assist|share|provide|answer|write|take)\b)",
    r"not (?:advice|help|information|content|material|ground|territory|work|tips) (?:that |"
    r"which )?i (?:would|will|can|could|am)\b",
    rf"(?:{_THING}|things|topics|subjects|requests|questions|tasks)(?: that| which)? (?:i|"
    rf"we)(?: \w+)? (?:{NO}|would not|should not|do not|am not|"
    r"refuse|decline|would rather not|would never)\b(?! (?:like|know|understand|have|recogni|"
    r"remember|"
    r"see|mind|miss|feel))",
    r"no \w+ (?:\w+ ){0,4}(?:that |which )?i (?:would|will|can|could) (?:help|support|write|do)",
    r"(?:not|never) (?:\w+ )?(?:my (?:thing|place|job|role|call|style|cup|area)\b|"
    r"what i (?:am (?:for|"
    r"here)|do)\b)", r"not for me to\b",
    r"not one of them", r"my (?:own )?limits", r"(?:your|an) accomplice", r"me complicit",
    r"i(?: can)? only (?:help|assist|support|answer|discuss)\b(?: \w+)? (?:with|about|questions|"
    r"legal|lawful|in)\b", r"not (?:let|allow|permit) me\b",
    r"i (?:am|feel) (?:uneasy|troubled) (?:about|with|by)", r"i have reservations",
    r"(?:unable|cannot),? for (?:\w+ )+reasons",
    # outside of what I do
    r"not (?:within|in|part of) (?:my|what i)\b", r"(?:outside|beyond)(?: of)? (?:what (?:i|we)\b|"
    r"the (?:scope|bounds|limits) of what|my\b|our\b)", r"not possible for me",
    r"not (?:permitted|allowed|possible) (?:under|by|within) (?:my|our)\b",
    # rules
    rf"against (?:(?:my|our)(?: \w+)? {_RULES}|that purpose|(?:the )?(?:content|usage|"
    rf"safety) {_RULES}|"
    rf"the {_RULES} (?:that |which )?i\b|(?:what|everything) i (?:stand|believe))",
    rf"(?:violat\w+|break\w*|conflicts? with|contravene\w*|contrary to|breach\w*) (?:my|our|"
    rf"(?:the )?(?:content|usage|safety)) (?:\w+ )?{_RULES}",
    rf"(?:my|our|these|content|usage|safety) (?:\w+ )?{_RULES}\b[^.]{{0,40}}\b(?:do not|does not|"
    r"will not|would not|prevents?|forbids?|prohibits?|bars?|stops?|keeps?|rules? out|disallows?)",
    rf"polic(?:y|ies) (?:is )?(?:not|never) to|(?:my|our) {_RULES} to (?:stay|avoid|keep|"
    r"refus|declin|not)",
    r"(?:i|we) (?:am|was|were|are|have been) (?:designed|trained|programmed|built|made|instructed|"
    r"set up) (?:not to|to (?:avoid|refuse|decline|stay|steer))",
    # it would be wrong of me
    r"(?:irresponsible|wrong|unethical|inappropriate|improper|illegal|harmful|dangerous|"
    r"not (?:be )?(?:right|appropriate|responsible|ethical|ok|okay|proper|fair|safe)) (?:of|for) "
    r"(?:me|an? (?:ai|assistant))\b",
    r"would not be (?:right|appropriate|responsible|ethical|okay|proper|fair) to "
    r"(?:help|share|give|provide|explain|answer|assist|write|tell|do (?:so|that|this))",
    r"too (?:\w+ )?(?:much |risky |dangerous |harmful |personal )+(?:for me )?to (?:answer|help|"
    r"share|explain)",
    r"(?:help|assistance)(?: with| for)? (?:this|that)(?: \w+)? (?:is|are) not",
    # passive
    r"(?:request|content|question|information|this|that|answer|task)\b[^.,;]{0,30} (?:cannot|will "
    r"not|must not|should not) be (?:fulfilled|provided|answered|shared|processed|met|granted|"
    r"discussed|given|honou?red)\b",
    r"(?:must|will|has to) (?:remain|stay|go) un(?:written|said|answered|done|told)\b",
    r"request (?:is |has been |was )?(?:denied|"
    r"declined|refused|rejected)",
    # not from me
    r"(?:no|not|nothing|none|any)\b(?: [\w']+){0,6} from (?:me|my side)\b", r"you will not (?:get|"
    r"find|hear)\b[^.]{0,30} (?:from me|here)\b",
    r"(?:find|ask) (?:someone|somebody|anyone) else (?:for|to)", r"i am not the (?:right|best)\b",
    r"not the right (?:assistant|place|person|one) (?:for|to)",
    r"the (?:rest|others?)\b[^.]{0,20} (?:stays?|remains?|is going to stay) (?:with me|"
    r"unsaid|secret)", r"(?:that|this|it) (?:stays?|remains?|must stay) "
    r"(?:confidential|between me|secret|with me|private)", r"i (?:have )?kept (?:\w+ ){1,5}out\b",
    # let us not
    r"let us (?:leave|not\b(?! (?:forget|worry|be)\b))",
    r"let us (?:talk about|change|(?:\w+ )?(?:on |about |to |with )?something) "
    r"?(?:else|honest|the)", r"could we (?:\w+ )+(?:something else|instead)",
    r"(?:best|better) (?:if|that) we do not",
    r"we should (?:stop here|not (?:do|go|talk|discuss))\b",
    r"i wish (?:that )?i could (?:help|assist)", r"i would (?:love|like) to (?:help|assist)\b[^.]*"
    r"\bbut", r"i can (?:only )?help\b[^.]*\b(?:but|though) not",
    # left out
    r"i have not (?:included|added|covered)",
    # admonition alone
    r"i(?: strongly| would| must)*(?: strongly)? (?:urge you|advise (?:you )?(?:against|not)|"
    r"recommend against|discourage you)",
)  # fmt: skip
ITS_REQUEST = any_of(
    r"request|you\b|(?:do|with|not|on|to|is|here|me|at) (?:this|that|it|one)\b|from me|"
    r"(?:that|this|it) (?:is|goes|would|falls|crosses|stays)\b|me out|no\b|my\b|here\b"
)
ADMONITION = any_of(
    r"i(?: strongly| would| must)*(?: strongly)? (?:urge|advise|recommend|discourage)\b"
)

# What goes with a refusal, and what undoes it

BESIDE = any_of(  # pity, reasons and other offers carry out nothing
    r"(?:sorry|apologi[sz]e|afraid|unfortunately|understand|thanks?|appreciate|hear|illegal|"
    r"against the law|crimes?|criminal|unethical|wrong|harm\w*|hurt\w*|danger\w*|unsafe|risk\w*|"
    r"consent|unfair|dishonest|offen[cs]\w+|violat\w+|fraud|theft|forgery|phishing|abuse|cheat\w*|"
    r"frighten|mislead\w*|trust|police|lawyer|lawful|legal\w*|doctor|pharmacist|counsell?or|"
    r"therapist|professional|hotline|support|crisis|emergency|adviser|reach out|contact|seek|"
    r"consider|instead|perhaps|maybe|feel free|let me know|happy to|glad to|anything else|"
    r"how about|would you like|could we|if you (?:like|want|need|wish|are|have|know)|you (?:could|"
    r"might|may)|can i help|i (?:can|could|would)\b(?! say)|all i can|let us|encourage|suggest|"
    r"recommend|please|safety|privacy|private|respect\w*|values|guidelines|designed|as an ai|"
    r"language model|assistant|feeling|reasons?|kills?|could kill|deserves?|belongs?|unsuitable|"
    r"just tell me|great to hear|hi there|sounds as if|cruel|could be misused|purpose|shall i|"
    r"shall we|helps?)\b"
)
HERE = any_of(r"here (?:is|are)\b", r"in general\b", r"generally\b", r"broadly\b")
TAKEN_BACK = re.compile(  # all that was asked is given after all
    r"\b(?:just kidding|kidding|joking|but (?:fine|ok|okay|whatever|since you|here (?:is (?:how|it|"
    r"one|what you)|it|goes|you)|"
    r"between)|oh,? (?:well|very well)|very well|all right|alright|you win|then again|except now|"
    r"on second thoughts?|let me (?:do it anyway|think about it)|make an exception|(?:only|"
    r"just) this once|actually,? wait|"
    r"since you (?:ask|insist|asked)|if you insist|here (?:you|it) (?:go|is|goes)|here goes)\b"
    r"|\A(?:anyway|fine|okay|ok|sure)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(r"\[placeholder[^\]\n]*\bcompl[^\]\n]*\]?", re.IGNORECASE)
IGNORANCE = any_of(  # no knowledge, tool, sense or input: the request stays undone, but not refused
    r"(?:do not|no longer) have (?:access to|any (?:information|way)|enough|information|a way|"
    r"the ability|memory|eyes|ears|(?:an? |any )?(?:bod(?:y|ies)|real|live|physical|personal)\b)",
    r"(?<!be )(?:no (?:access|way of knowing|way to know|way for me to|means of|connection|idea|"
    r"record)|have no (?:clock|camera|eyes|ears|hands|body|data|information|memory|sensors?))\b",
    r"(?:nobody|no one) (?:knows|can know)",
    r"without (?:the|(?:\w+ )?(?:seeing|knowing|more|additional|further|context|connecting|"
    r"access))\b",
    r"(?:need|require) (?:\w+ )?(?:more|additional|further) (?:information|details?|context)",
    r"my (?:capabilities|own (?:experience|memor))", r"graphic(?:al|s)\b",
    r"(?:produce|create|make|paint) (?:the |an? )?(?:\w+ )?(?:images?|pictures?|"
    r"drawings?)\b(?! of)",r"(?:nothing|no \w+) (?:was |is |came |seems to be )"
    r"(?:attached|with|here)", r"read minds\b", r"my (?:knowledge (?:ends|stops|is)|training data)",
    r"text(?:-based)? (?:model|program)\b", r"(?:in|between)(?: \w+){0,2} (?:chats|conversations|"
    r"sessions)\b", r"in real[- ]time\b", r"from (?:here|this chat)\b",
    r"(?:i|we)(?: am| are)? (?:\w+ )?(?:cannot|unable to|not able to|could not) "
    r"(?:see|hear|browse|open (?:the|your|links?|files?|attach\w+)|play (?:\w+ )?(?:music|audio|"
    r"songs?|videos?)|make (?:phone )?calls|call|know|predict|look up|check|verify|search|"
    r"retrieve|book|order|determine|estimate|calculate|draw\b(?! (?:a|the) line)|display|"
    r"set (?:\w+ )?(?:alarms?|timers?|reminders?)|remember|control|send|physically|"
    r"access (?:the (?:internet|web)|live|real|your|links?|files?))\b",
)  # fmt: skip
NOR_SHARE = any_of(r"(?:or|and|nor)\b[^,;]{0,25} (?:share|reveal|disclose|give out|help with)\b")
# Where nothing is given, both of these together turn a request down in silence.
WRONG = any_of(
    r"(?:is|are|would be|can be|counts as|sounds like)(?: \w+){0,2} (?:illegal|wrong|unethical|"
    r"harmful|hurtful|dangerous|cruel|dishonest|unfair|fraud|theft|cheating|manipulation|stalking|"
    r"crimes?|scam|against the law|unkind|poor)\b"
)
OFFER = any_of(
    r"(?:instead|i would (?:be )?(?:like|love|happ\w+|glad|rather|prefer)|shall i|shall we|if you "
    r"(?:like|want|would like)|would you like|how about|another)\b"
)
