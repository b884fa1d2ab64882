"""`hourglass fit sae --dialogues`: chat data from the command line, and what is kept of how it was read."""

import json

import pytest
from test_verbs import documented, fails, keys_of, run

import hourglass as hg
from hourglass.adapters.saes import load_sae

TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    turns = (("human", "what is {}?"), ("gpt", "a number, {} of them"))
    path.write_text(
        "".join(
            json.dumps({"conversations": [{"from": who, "value": said.format(i)} for who, said in turns]}) + "\n"
            for i in range(40)
        )
    )
    return path


def fit(source, out, *options):
    few = ["--width", 64, "--k", 4, "--steps", 20, "--layer", 2]
    return run("fit", "sae", source, "--dialogues", "--out", out, *few, *options)


def test_flows_from_the_command_line(source, causal_folder, tmp_path):
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    tokens = {}
    for name, options in {
        "own": [],
        "file": ["--template", tmp_path / "chat.jinja"],
        "blocks": ["--pack", "blocks", "--block", 64],
        "masked": ["--pack", "masked", "--block", 128, "--no-special"],
    }.items():
        model = ["--model", causal_folder / "llama"]
        found = json.loads(fit(source, tmp_path / name, *model, *options, "--json"))
        assert keys_of(found) <= documented("fit")
        assert json.loads((tmp_path / name / "model" / "reader.json").read_text())["pack"] == found["pack"]
        assert found["chat_template"] == (TEMPLATE if name == "file" else None)
        assert found["special"] == (name != "masked") and found["layer"] == 2
        tokens[name] = found["tokens"]
        assert load_sae(tmp_path / name).config.width == 64
    assert tokens["own"] == tokens["blocks"] < tokens["file"]
    assert tokens["masked"] == tokens["own"] - 4 * 40
    # It reads chats, and is steered in one, where the model has the template.
    steered = hg.steer(tmp_path / "own", "hello", feature=3, alphas=[2.0], max_tokens=3)
    plain = hg.steer(tmp_path / "own", "hello", feature=3, alphas=[2.0], max_tokens=3, chat=False)
    assert steered.table["unsteered"].tolist() != plain.table["unsteered"].tolist()


def test_mistakes_are_one_line_and_leave_nothing(source, causal_folder, tmp_path, capsys, monkeypatch):
    llama, gpt2 = (["--model", causal_folder / name, "--layer", 1] for name in ("llama", "gpt2"))
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    for options, said in [
        ([*gpt2, "--dialogues"], "its tokenizer has no chat template"),
        ([*llama, "--dialogues", "--pack", "blocks"], "block 2048: the model takes 160 tokens at most"),
        ([*llama, "--dialogues", "--pack", "block"], "no pack 'block' (did you mean 'blocks'?)"),
        (["--dialogues", "--template", template, "--pack", "masked"], "in minilm packed documents see each other"),
        ([*llama, "--dialogues", "--role", "user"], "role, max_norm and stream are for plain texts"),
        ([*llama, "--pack", "masked"], "pack and template are for dialogues: add dialogues (--dialogues)"),
        ([*llama, "--dialogues", "--template", tmp_path / "no"], "no: no text file that can be read (No such file"),
        ([*llama, "--dialogues", "--text", "chat"], "no column 'chat' with dialogues"),
    ]:
        code, line = fails(capsys, monkeypatch, "fit", "sae", source, "--out", tmp_path / "o", *options)
        assert code == 2 and said in line
        assert not (tmp_path / "o").exists()
