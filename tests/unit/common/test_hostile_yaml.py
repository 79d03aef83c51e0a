"""Settings files somebody else wrote: refused with a place, quickly, in little memory, and nothing is built of them."""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

import pytest

from rl.apps.commands.entry import run_command
from rl.common.errors import ConfigError
from rl.common.strict_yaml import LARGEST_FILE_BYTES, apply_overrides, load_yaml
from rl.market.instruments import load_instruments
from rl.stages.plan import load_plan

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n"
    for n in range(1, 40)
)

HOSTILE = {
    "a tag that runs code": ("seed: !!python/object/apply:os.system ['touch {canary}']\n", "the tag"),
    "a tag that makes an object": ("seed: !!python/object:rl.stages.plan.Plan {{}}\n", "the tag"),
    "a tag on the whole": ("!!python/object/new:os.system ['touch {canary}']\n", "the tag"),
    "a tag of one's own": ("seed: !secret x\n", "the tag"),
    "a billion laughs": (LAUGHS, "its aliases expand to more than"),
    "a list that holds itself": ("seed: &a [*a]\n", "contains itself"),
    "a block that holds itself": ("seed: &a {{b: *a}}\n", "contains itself"),
    "an alias of nothing": ("seed: *nothing\n", "undefined alias"),
    "a merge": ("a: &a {{b: 1}}\nc:\n  <<: *a\n", "blocks are not merged by <<"),
    "a list nested without end": ("seed: " + "[" * 200_000 + "\n", "is nested more than 32 levels deep"),
    "blocks nested without end": (
        "".join(f"{' ' * n}a:\n" for n in range(400)),
        "is nested more than 32 levels deep",
    ),
    "a key twice": ("seed: 1\nseed: 2\n", "is written twice"),
    "a key that is a list": ("? [a, b]\n: 1\n", "a key has to be one word"),
    "a key that moves the cursor": ('"\\e[2J": 1\n', "unknown key"),
    "a key that is half a letter": ('"\\ud800": 1\n', "half of a character"),
    "a letter that acts": ("seed: \x07\n", "may not stand in YAML"),
    "a NUL": ("seed: 1\0\n", "may not stand in YAML"),
    "no number": ("training_params: {{ppo: {{gamma: .nan}}}}\n", "training_params.ppo.gamma"),
    "no end": ("training_params: {{ppo: {{learning_rate: .inf}}}}\n", "training_params.ppo.learning_rate"),
    "an integer of a million digits": ("seed: " + "9" * 1_000_000 + "\n", "seed"),
    "an exponent without end": ("training_params: {{ppo: {{learning_rate: 1e999999}}}}\n", "learning_rate"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "a second document starts here"),
    "another file": ("x" * (LARGEST_FILE_BYTES + 1), "is too large"),
    "half a million words": ("seed: [" + "a," * 500_000 + "a]\n", "holds more than 50,000 values"),
    "too many keys": ("".join(f"k{n}: 1\n" for n in range(25_001)), "holds more than 50,000 values"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", [load_plan, load_instruments], ids=["plan", "instruments"])
def test_a_hostile_settings_file_is_refused_with_a_reason(tmp_path, capsys, name, read):
    text, says = HOSTILE[name]
    canary, file = tmp_path / "canary", tmp_path / "hostile.yaml"
    file.write_bytes(text.replace("{canary}", str(canary)).replace("{{", "{").replace("}}", "}").encode())
    begun = time.monotonic()

    def work(_):
        read(file)
        return 0

    # As a command ends: one message without anything a terminal obeys. The signal belongs to the test run.
    on_terminate = signal.getsignal(signal.SIGTERM)
    code = run_command(work, argparse.Namespace())
    signal.signal(signal.SIGTERM, on_terminate)
    assert code == 2
    shown = capsys.readouterr().err
    assert "hostile.yaml" in shown
    if read is load_plan:
        assert says in shown
    assert not set(shown) & {"\x1b", "\x07", "\0"}
    shown.encode()
    assert "Traceback" not in shown
    assert len(shown) < 20_000
    assert not canary.exists()
    assert time.monotonic() - begun < 60.0
    with pytest.raises(ConfigError):
        read(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfeseed: 1", "is not UTF-8"),
        ("sëed: 1".encode("latin-1"), "is not UTF-8"),
        (b"PK\x03\x04\x00", "YAML"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, says):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_yaml(tmp_path / "x.yaml")


def test_what_is_no_file_is_refused_and_a_link_to_one_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name, says in (
        ("pipe.yaml", "is not an ordinary file"),
        ("zero.yaml", "is not an ordinary file"),
        (".", "is not an ordinary file"),
        ("dangling.yaml", "there is no such file"),
        ("a\0b.yaml", "a name no file can have"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_yaml(tmp_path / name)
    (tmp_path / "good.yaml").write_text("seed: 3\n")
    (tmp_path / "mine.yaml").symlink_to("good.yaml")
    assert load_yaml(tmp_path / "mine.yaml").data == {"seed": 3}


@pytest.mark.parametrize(
    "setting",
    [
        "seed=!!python/object/apply:os.system ['touch /tmp/x']",
        "seed=" + "[" * 10_000,
        "seed=&a [*a]",
        "seed=\0",
        "=" * 1000,
        "a" * 100_000 + "=1",
        ".".join("a" * 5_000) + "=1",
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_setting_of_the_command_line_is_refused(tmp_path, setting):
    file = tmp_path / "plan.yaml"
    file.write_text("seed: 1\n")
    with pytest.raises(ConfigError):
        load_plan(file, overrides=(setting,))
    assert apply_overrides(load_yaml(Path(file)), ("seed=2",)).data["seed"] == 2
