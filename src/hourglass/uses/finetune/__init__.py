"""Fine-tune any encoder: heads for labels of texts and of words, answers in passages, and retrieval; and a fair comparison."""

from hourglass.uses.finetune.answering import Answerer, AnswererConfig, Question
from hourglass.uses.finetune.classification import Classifier, ClassifierConfig
from hourglass.uses.finetune.mining import mine_negatives, with_teacher
from hourglass.uses.finetune.protocol import FineTuned, fine_tune, recipe
from hourglass.uses.finetune.representation import JointRows
from hourglass.uses.finetune.retriever import Pair, Retriever, RetrieverConfig
from hourglass.uses.finetune.sweep import sweep
from hourglass.uses.finetune.tagging import Tagger, TaggerConfig

__all__ = [
    "Answerer",
    "AnswererConfig",
    "Classifier",
    "ClassifierConfig",
    "FineTuned",
    "JointRows",
    "Pair",
    "Question",
    "Retriever",
    "RetrieverConfig",
    "Tagger",
    "TaggerConfig",
    "fine_tune",
    "mine_negatives",
    "recipe",
    "sweep",
    "with_teacher",
]
