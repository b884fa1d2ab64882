"""Judge features: does each mean one thing, as far as the places where it is most active say."""

from hourglass.uses.judge.contexts import Context, Strongest, strongest
from hourglass.uses.judge.judges import Judge, Judgement, asking, question, tokens_agree, understood
from hourglass.uses.judge.protocol import Judged, judge_features

__all__ = [
    "Context",
    "Judge",
    "Judged",
    "Judgement",
    "Strongest",
    "asking",
    "judge_features",
    "question",
    "strongest",
    "tokens_agree",
    "understood",
]
