"""What a student learns of a teacher's scores, for students of every kind: vectors, weights of words, impacts of terms.

"kl"      KL(softmax(teacher) || softmax(student)) over a query's document and its negatives (listwise)
"margin"  squared difference of margins, (t+ - t-) - (s+ - s-), mean over the negatives (MarginMSE; Hofstätter et al. 2020)
"mse"     squared difference of scores, mean (pointwise); the student has to reach the teacher's scale
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from hourglass.errors import ConfigError, nearest

Teaching = Literal["kl", "margin", "mse"]


def checked_teaching(teaching: str) -> None:
    """ConfigError for a way that does not exist."""
    if teaching not in get_args(Teaching):
        raise ConfigError(f"teaching {teaching!r}{nearest(str(teaching), get_args(Teaching))}")


def distilled(student: Tensor, teacher: Tensor, teaching: Teaching = "kl") -> Tensor:
    """A scalar of scores [n, 1 + negatives], a query's own document first; only the student's get gradients."""
    teacher = teacher.detach().to(student.dtype)
    if teaching == "kl":
        return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    if teaching == "margin":
        return F.mse_loss(student[:, :1] - student[:, 1:], teacher[:, :1] - teacher[:, 1:])
    return F.mse_loss(student, teacher)
