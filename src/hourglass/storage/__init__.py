"""Folders on disk: atomic writes."""
