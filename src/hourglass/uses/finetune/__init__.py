"""What a model that was trained without labels is tuned to with a few."""
