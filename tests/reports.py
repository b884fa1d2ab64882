"""A report of invented data, with a text in it that would like to be a page."""

from hourglass.uses.explore.report import Concept, Corpus, Difference, DifferenceRow, Example, Group, Map, Report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"quoted\" & 'so' שלום 🙂 " + "x" * 300


def sample(*, points=60, number=25, mapped=10, groups=3, **changes):
    names = [HOSTILE if i == 0 else f"group {i}" for i in range(groups)]
    values = {
        "title": "What is in a test",
        "source": "test.csv",
        "created": "2030-01-01",
        "corpus": Corpus(
            points, 1234, 20.0, [HOSTILE], ["a"], "kind" if groups else None, [Group(n, 20, 9.5) for n in names]
        ),
        "named": number,
        "concepts": [
            Concept(
                i,
                HOSTILE if i == 0 else f"topic: word{i}, other" if i % 2 else f"word{i}, other",
                0.9,
                (i + 1) / 40,
                [0.1 * ((i + g) % 5) for g in range(groups)],
                [Example("d1", names[0] if names else None, [(HOSTILE, 0.9), (" and quiet text", 0.0)])],
            )
            for i in range(number)
        ],
        "map": Map(
            [float(i % 17) for i in range(points)],
            [float(i % 13) for i in range(points)],
            [i % groups if groups else -1 for i in range(points)],
            [HOSTILE[:140]] * points,
            [f"d{i}" for i in range(points)],
            {f: [(i + f) % 10 for i in range(points)] for f in range(mapped)},
        ),
        "differences": [
            Difference(
                name,
                "(the rest)",
                10,
                20,
                [
                    DifferenceRow("concept", f"topic: t{g}", 3, 0.5, 0.1, 0.4, 0.2, 0.6, 1e-5, 1e-4),
                    DifferenceRow("word", HOSTILE, None, 0.1, 0.5, -0.4, -0.6, -0.2, 0.01, 0.03),
                ],
                [f"All that was tested taken together: {name}."] if g % 2 else [],
            )
            for g, name in enumerate(names)
        ],
        "method": [("Reader", "a model")],
        "caveats": ["Take care."],
    }
    return Report(**{**values, **changes})
