"""Network parts that two systems share, one idea per file."""
