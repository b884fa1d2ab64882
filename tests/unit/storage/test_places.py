import fsspec
import pytest

from hourglass.errors import SourceError
from hourglass.storage.places import Place, is_url


def test_paths_and_urls():
    assert [is_url(name) for name in ("s3://b/x", "memory://x", "C:\\x", "a/b", "hf:owner/name", "docstrings:")] == [
        True,
        True,
        *[False] * 4,
    ]
    place = Place.of("memory://places/a.TSV.gz")
    assert (str(place), place.suffixes, place.is_local) == ("memory://places/a.TSV.gz", [".tsv", ".gz"], False)
    assert Place.of("file:///tmp/x").is_local


def test_what_is_inside_a_folder(tmp_path):
    memory = fsspec.filesystem("memory")
    for name in ("b.csv", "a.csv", "deep/c.csv", ".hidden"):
        memory.pipe(f"/inside/{name}", b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for root in ("memory://inside", str(tmp_path), f"file://{tmp_path}/"):
        place = Place.of(root)
        assert place.is_folder()
        assert [str(f) for f in place.inside()] == [f"{root.rstrip('/')}/{name}" for name in ("a.csv", "b.csv")]
        assert len(place.inside(deep=True)) == 3
        assert place.inside()[0].size() == 1


@pytest.mark.parametrize("root", ["memory://replaced", "{tmp}", "file://{tmp}"])
def test_a_file_is_there_once_it_is_whole(root, tmp_path):
    place = Place.of(root.format(tmp=tmp_path) + "/new/x.bin")
    with place.replaced() as stream:
        stream.write(b"one")
    with place.open() as stream:
        assert stream.read() == b"one"
    if place.is_local:
        with pytest.raises(ZeroDivisionError), place.replaced() as stream:
            stream.write(b"half")
            1 / 0  # noqa: B018
        with place.open() as stream:
            assert stream.read() == b"one"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere://x/y.csv", r"nowhere://x/y\.csv: cannot be reached \(Protocol not known: nowhere\)"),
        ("/proc/self/mem/x", r"cannot be reached \(Not a directory\)"),
    ],
)
def test_out_of_reach_is_one_line(name, said):
    with pytest.raises(SourceError, match=said):
        Place.of(name).open()
