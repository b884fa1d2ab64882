"""Steer a causal model: change what it writes by the features of a sparse autoencoder."""

from hourglass.uses.steer.edits import Edit, add, clamp, remove
from hourglass.uses.steer.features import feature_number, features_of_token
from hourglass.uses.steer.generation import Steered, generate
from hourglass.uses.steer.hook import steering

__all__ = ["Edit", "Steered", "add", "clamp", "feature_number", "features_of_token", "generate", "remove", "steering"]
