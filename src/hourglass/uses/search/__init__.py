"""Search a corpus: an index on disk, stages that retrieve, rank, fuse and expand, and pipelines of them."""
