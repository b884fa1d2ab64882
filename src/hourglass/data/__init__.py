"""Reading texts: every format and place, row by row, with what could not be read counted and named."""

from hourglass.data.report import ReadReport
from hourglass.data.sources import TextSource, open_texts

__all__ = ["ReadReport", "TextSource", "open_texts"]
