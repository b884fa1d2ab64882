"""What parts of a model do: how much of what it predicts passes through an autoencoder's features."""

from hourglass.uses.circuits.splicing import Spliced, splice

__all__ = ["Spliced", "splice"]
