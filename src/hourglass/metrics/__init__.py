"""Pure functions that measure: proportions, rankings, reconstruction, sparsity, dictionaries."""
