"""One file per foreign format: read, write, refuse clearly."""
