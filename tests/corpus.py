"""A small corpus with two groups that anybody can tell apart."""

import csv
import random

COOKING = [
    "onions",
    "garlic",
    "pan",
    "butter",
    "simmer",
    "sauce",
    "oven",
    "flour",
    "dough",
    "recipe",
    "taste",
    "salt",
    "pepper",
    "stir",
    "boil",
    "bake",
    "serve",
]
FOOTBALL = [
    "goal",
    "striker",
    "match",
    "referee",
    "penalty",
    "league",
    "coach",
    "defender",
    "midfield",
    "stadium",
    "season",
    "cup",
    "team",
    "score",
    "pass",
]
COMMON = [
    "the",
    "a",
    "and",
    "then",
    "with",
    "into",
    "after",
    "before",
    "very",
    "slowly",
    "quickly",
    "again",
    "people",
    "often",
    "here",
]


def documents(number, seed=0):
    """Dicts with id, body, topic, source."""
    draw = random.Random(seed)
    rows = []
    for i in range(number):
        topic, words = ("cooking", COOKING) if i % 2 else ("football", FOOTBALL)
        sentences = []
        for _ in range(draw.randint(2, 4)):
            words_here = [draw.choice(words if draw.random() < 0.5 else COMMON) for _ in range(draw.randint(6, 12))]
            sentences.append(" ".join(words_here).capitalize() + ".")
        rows.append({"id": f"d{i}", "body": " ".join(sentences), "topic": topic, "source": f"s{i % 3}"})
    return rows


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
