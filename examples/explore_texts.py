"""Explore a few texts, compare two groups, find what has a property.

python examples/explore_texts.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import hourglass as hg


def main(folder: Path) -> None:
    texts = [
        {"text": f"{who} {what} {where}.", "kind": kind}
        for kind, who, what in [
            ("kitchen", "The cook", "stirs the soup"),
            ("kitchen", "My aunt", "bakes fresh bread"),
            ("kitchen", "A friend", "chops the onions"),
            ("pitch", "The keeper", "saves a penalty"),
            ("pitch", "Our striker", "scores a late goal"),
            ("pitch", "The coach", "changes the team"),
        ]
        for where in ("in the morning", "once again", "while it rains", "before noon", "and smiles", "very slowly")
    ]
    workspace = hg.explore(texts, by="kind", out=folder / "workspace", width=64, k=8)
    print(workspace)
    print(workspace.diff("kind").table.head())
    print(workspace.find("somebody scores").documents[["id", "text"]].head(3))
    print("report:", workspace.folder / "report.html")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
