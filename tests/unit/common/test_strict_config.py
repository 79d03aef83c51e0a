from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, JsonValue

from rl.common.errors import USAGE, ConfigError
from rl.common.strict_config import (
    Finding,
    StrictModel,
    apply_overrides,
    dump_yaml,
    layered,
    load_yaml,
    origins,
    validate,
)


class Update(StrictModel):
    learning_rate: float = 0.1
    epochs: int = 4
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.5
    schedule: Literal["linear", "constant"] = "linear"
    margin: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    clip: float | None = None
    names: tuple[str, ...] = ()
    start: date | None = None

    def problems(self):
        if self.epochs == 13:
            yield Finding(("epochs",), "is unlucky", (("smoothing",),))


class Settings(StrictModel):
    update: Update = Update()
    second: Update | None = None
    enabled: bool = True
    title: str = ""
    markets: dict[str, Update] = Field(default_factory=dict)
    anything: JsonValue = None


WITHOUT_QUOTES = "write 500, without quotes, commas or leading zeros"
NOT_A_PAIR = "is not KEY=VALUE with a dotted key, such as training_params.ppo.learning_rate=0.0003"
NOT_YAML = "the value is not valid YAML; put quotes around text that has any of : # [ ] { } in it"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write a file named plan.yaml in the current folder and load it."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str | bytes):
        Path("plan.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_yaml(Path("plan.yaml"))

    return write_and_load


def refused(call, *arguments, **options) -> list[str]:
    """Return the lines of the ConfigError that a call raises, without the closing count."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    *lines, count = str(caught.value).splitlines()
    expected = (
        "1 problem; nothing was started."
        if len(lines) == 1
        else f"{len(lines)} problems; nothing was started."
    )
    assert count == expected
    assert caught.value.exit_code == USAGE
    return lines


def problem(load, text: str, overrides=()) -> str:
    (line,) = refused(validate, Settings, load(text), overrides=overrides)
    return line


# --- the traps of YAML ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-4", 0.0001),
        ("1E5", 100000.0),
        ("1.e3", 1000.0),
        (".5", 0.5),
        ("-2.5e+1", -25.0),
        ("100_000", 100000.0),
        ("3", 3.0),
    ],
)
def test_every_usual_way_to_write_a_number_is_a_number(load, written, meant):
    loaded = load(f"update: {{learning_rate: {written}}}\n")
    value = loaded.data["update"]["learning_rate"]
    assert value == meant
    assert not isinstance(value, str)
    assert validate(Settings, loaded).update.learning_rate == meant


@pytest.mark.parametrize(
    "written", ["9:15", "yes", "no", "on", "off", "y", "NO", "010", "0x1F", "2024-03-28", "1_0", "="]
)
def test_what_other_readers_turn_into_numbers_booleans_and_dates_stays_text(load, written):
    assert load(f"title: {written}\n").data["title"] == written


def test_pyyaml_alone_would_have_changed_them():
    """The reason for all this: should PyYAML mend its ways, the loader can be made simpler."""
    changed = yaml.safe_load("a: 1e-4\nb: 9:15\nc: no\nd: 010\ne: 1\ne: 2\n")
    assert changed == {"a": "1e-4", "b": 555, "c": False, "d": 8, "e": 2}


def test_keys_are_always_text(load):
    loaded = load("markets:\n  NO: {}\n  600519: {}\n  2024-01-01: {}\n  null: {}\n")
    assert list(loaded.data["markets"]) == ["NO", "600519", "2024-01-01", "null"]


def test_the_words_for_nothing_true_and_false_are_understood(load):
    data = load("a: ~\nb: null\nc:\nd: true\ne: False\nf: 'true'\n").data
    assert data == {"a": None, "b": None, "c": None, "d": True, "e": False, "f": "true"}


def test_a_key_written_twice_is_refused_with_both_lines(load):
    line = problem(load, "update:\n  epochs: 4\n  clip: 0.2\n  epochs: 5\n")
    assert line == "plan.yaml:4:3: update.epochs: is written twice in this block; the first one is on line 2"


def test_the_same_key_in_two_blocks_is_no_duplicate(load):
    validate(Settings, load("update: {epochs: 4}\nsecond: {epochs: 5}\n"))


def test_merge_keys_are_refused_rather_than_half_understood(load):
    text = "update: &base {epochs: 4}\nsecond:\n  <<: *base\n"
    assert problem(load, text) == "plan.yaml:3:3: second.<<: blocks are not merged by <<; write the keys out"


# --- files that cannot be read at all -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "plan.yaml: holds no settings (it is empty or has comments only)"),
        ("# nothing\n", "plan.yaml: holds no settings (it is empty or has comments only)"),
        ("- a\n- b\n", "plan.yaml:1:1: has to hold 'key: value' lines, but holds a list"),
        ("hello\n", "plan.yaml:1:1: has to hold 'key: value' lines, but holds a single value"),
        (
            "update:\n\tepochs: 3\n",
            "plan.yaml:2:1: is not valid YAML: there is a tab character; YAML is indented with spaces",
        ),
        ("a: b: c\n", "plan.yaml:1:5: is not valid YAML: mapping values are not allowed here"),
        (
            "a: 1\n---\nb: 2\n",
            "plan.yaml:2:1: a second document starts here (---); a settings file holds one",
        ),
        (b"a: 1\nb: \xff\n", "plan.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 'x\x07'\n", "plan.yaml:1:6: character 0x0007 may not stand in YAML"),
        (
            "a: !!python/name:os.system\n",
            "plan.yaml:1:4: the tag !!python/name:os.system is not read; write the plain value",
        ),
        ("a: !secret x\n", "plan.yaml:1:4: the tag !secret is not read; write the plain value"),
        ("a: &x [1, *x]\n", "plan.yaml:1:4: a[1] contains itself through an alias"),
    ],
)
def test_an_unreadable_file_is_refused_with_the_place_and_the_reason(load, text, expected):
    assert refused(load, text) == [expected]


def test_an_unclosed_bracket_says_where_it_was_opened(load):
    (line,) = refused(load, "a: [1, 2\nb: 3\n")
    assert line.startswith("plan.yaml:2:")
    assert "starts on line 1" in line


def test_deep_nesting_is_refused_before_it_can_exhaust_the_stack(load):
    (line,) = refused(load, "a: " + "[" * 10_000)
    assert "nested more than 32 levels" in line


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory(load):
    """Nine lines, ten aliases each: a billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]"
        for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    (line,) = refused(load, "\n".join(lines))
    assert "its aliases expand to more than 50,000 values" in line


def test_a_repeated_block_may_be_written_as_an_alias(load):
    settings = validate(Settings, load("update: &base {epochs: 7}\nsecond: *base\n"))
    assert settings.second.epochs == 7


def test_a_data_file_given_by_mistake_is_refused_by_its_size(load):
    (line,) = refused(load, "1,2,3,4\n" * 200_000)
    assert line.startswith("plan.yaml: is too large: 1600000 bytes, at most 1048576 are read; ")


def test_a_missing_file_is_named_beside_the_nearest_one(load):
    load("title: x\n")
    assert refused(load_yaml, Path("plam.yaml")) == [
        "plam.yaml: there is no such file; did you mean plan.yaml?"
    ]


def test_a_folder_is_not_a_file(tmp_path):
    (line,) = refused(load_yaml, tmp_path)
    assert line.startswith(f"{tmp_path}: is not an ordinary file; ")


def test_a_byte_order_mark_is_not_part_of_the_first_key(load):
    assert load(b"\xef\xbb\xbftitle: x\n").data == {"title": "x"}


# --- problems of single keys ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update: {epochs: eight}", "1:10: update.epochs: must be a whole number (got 'eight')"),
        ("update: {epochs: 2.5}", "1:10: update.epochs: must be a whole number (got 2.5)"),
        ("update: {epochs: 1e3}", "1:10: update.epochs: must be a whole number (got 1000.0)"),
        ("update: {epochs: true}", "1:10: update.epochs: must be a whole number (got true)"),
        ("update: {learning_rate: false}", "1:10: update.learning_rate: must be a number (got false)"),
        ("update: {learning_rate: }", "1:10: update.learning_rate: must be a number (got nothing)"),
        ("update: {learning_rate: [1]}", "1:10: update.learning_rate: must be a number (got a list)"),
        ("update: {learning_rate: .inf}", "1:10: update.learning_rate: must be a finite number (got inf)"),
        ("update: {learning_rate: .nan}", "1:10: update.learning_rate: must be a finite number (got nan)"),
        (
            "update: {epochs: '500'}",
            "1:10: update.epochs: must be a whole number (got the text '500'); " + WITHOUT_QUOTES,
        ),
        (
            "update: {smoothing: 40}",
            "1:10: update.smoothing: must be at most 1 (got 40); 40 % is written 0.40",
        ),
        (
            "update: {smoothing: 2.5}",
            "1:10: update.smoothing: must be at most 1 (got 2.5); 2.5 % is written 0.025",
        ),
        (
            "update: {smoothing: 40%}",
            "1:10: update.smoothing: must be a number (got '40%'); 40 % is written 0.40",
        ),
        ("update: {smoothing: -1}", "1:10: update.smoothing: must be at least 0 (got -1)"),
        (
            "update: {schedule: liner}",
            "1:10: update.schedule: must be one of linear, constant (got 'liner'); did you mean linear?",
        ),
        ("update: {margin: 1.5}", "1:10: update.margin: must be auto or a whole number (got 1.5)"),
        ("update: {names: [a, 3]}", "1:21: update.names[1]: must be text (got 3)"),
        ("update: {names: a}", "1:10: update.names: must be a list (got 'a')"),
        ("update: {start: soon}", "1:10: update.start: must be a date such as 2024-03-28 (got 'soon')"),
        ("update: 3", "1:1: update: must be a block of keys (got 3)"),
        (
            "update:",
            "1:1: update: must be a block of keys (got nothing); leave the key out to keep its defaults",
        ),
        ("enabled: yes", "1:1: enabled: must be true or false (got 'yes')"),
        ("enabled: 1", "1:1: enabled: must be true or false (got 1)"),
        ("title: 3", "1:1: title: must be text (got 3)"),
        ("update: {epoch: 3}", "1:10: update.epoch: unknown key; did you mean epochs?"),
        ("epochs: 3", "1:1: epochs: unknown key here; did you mean update.epochs or second.epochs?"),
        (
            "update: {zzz: 3}",
            "1:10: update.zzz: unknown key; known here: " + ", ".join(Update.model_fields),
        ),
        ("markets: {A: {epoch: 3}}", "1:15: markets.A.epoch: unknown key; did you mean epochs?"),
        ("markets: {BHP.AX: {clip: x}}", "1:20: markets.\"BHP.AX\".clip: must be a number (got 'x')"),
        ("update: {epochs: 13}", "1:10: update.epochs: is unlucky"),
        ("markets: {A: {epochs: 13}}", "1:15: markets.A.epochs: is unlucky"),
    ],
)
def test_a_problem_names_place_key_expectation_and_what_was_found(load, text, expected):
    assert problem(load, text) == f"plan.yaml:{expected}"


def test_a_key_that_must_be_given_is_reported_at_its_block(load):
    class Needs(StrictModel):
        inner: Inner

    class Inner(StrictModel):
        size: int

    Needs.model_rebuild(_types_namespace={"Inner": Inner})
    lines = refused(validate, Needs, load("# a comment\ninner: {}\n"))
    assert lines == ["plan.yaml:2:1: inner.size: is missing and has no default"]


def test_all_problems_come_at_once_sorted_by_line(load):
    text = """
update:
  epochs: many
  epoch: 3
  smoothing: 40
second:
  clip: 1
  epochs: 13
  clip: 2
titel: x
"""
    assert refused(validate, Settings, load(text)) == [
        "plan.yaml:3:3: update.epochs: must be a whole number (got 'many')",
        "plan.yaml:4:3: update.epoch: unknown key; did you mean epochs?",
        "plan.yaml:5:3: update.smoothing: must be at most 1 (got 40); 40 % is written 0.40",
        "plan.yaml:8:3: second.epochs: is unlucky",
        "plan.yaml:9:3: second.clip: is written twice in this block; the first one is on line 7",
        "plan.yaml:10:1: titel: unknown key; did you mean title?",
    ]


def test_a_finding_that_depends_on_a_refused_key_is_left_out(load):
    assert refused(validate, Settings, load("update: {epochs: 13, smoothing: 40}")) == [
        "plan.yaml:1:22: update.smoothing: must be at most 1 (got 40); 40 % is written 0.40"
    ]


def test_a_validated_model_cannot_be_changed(load):
    settings = validate(Settings, load("title: x\n"))
    with pytest.raises(ValueError, match="frozen"):
        settings.title = "y"


def test_where_names_line_and_column_of_keys_and_list_items(load):
    loaded = load("update:\n  epochs: 3\n  names:\n    - a\n    - b\n")
    assert loaded.where(("update", "epochs")) == "plan.yaml:2:3"
    assert loaded.where(("update", "names", 1)) == "plan.yaml:5:7"
    assert loaded.where(("update", "absent")) == "plan.yaml:1:1"
    assert loaded.where(("absent",)) == "plan.yaml"


# --- --set ----------------------------------------------------------------------------------------


def test_an_override_wins_over_the_file_and_a_later_one_over_an_earlier(load):
    loaded = load("update: {epochs: 1, clip: 2}\n")
    settings = validate(
        Settings, loaded, overrides=["update.epochs=3", "update.epochs=1_000", "update.learning_rate=1e-4"]
    )
    assert (settings.update.epochs, settings.update.clip, settings.update.learning_rate) == (
        1000,
        2.0,
        0.0001,
    )


def test_an_override_can_set_lists_nothing_and_keys_with_dots(load):
    overrides = ["update.names=[a, b]", "update.clip=null", 'markets."BHP.AX".epochs=2', "title='a: b'"]
    settings = validate(Settings, load("update: {clip: 1, names: [c, d, e]}\n"), overrides=overrides)
    assert settings.update.names == ("a", "b")
    assert settings.update.clip is None
    assert settings.markets["BHP.AX"].epochs == 2
    assert settings.title == "a: b"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("update.epoch=3", "--set update.epoch=3: unknown key; did you mean epochs?"),
        ("updat.epochs=3", "--set updat.epochs=3: updat: unknown key; did you mean update?"),
        ("epochs=3", "--set epochs=3: unknown key here; did you mean update.epochs or second.epochs?"),
        ("update.epochs=x", "--set update.epochs=x: must be a whole number (got 'x')"),
        ("update.epochs=", "--set update.epochs=: must be a whole number (got nothing)"),
        (
            "update.epochs.deep=3",
            "--set update.epochs.deep=3: update.epochs: must be a whole number (got a block of keys)",
        ),
        ("update.names=[1]", "--set update.names=[1]: update.names[0]: must be text (got 1)"),
        ("update", f"--set update: {NOT_A_PAIR}"),
        ("=3", f"--set =3: {NOT_A_PAIR}"),
        ("a..b=3", f"--set a..b=3: {NOT_A_PAIR}"),
        ("title=[a", f"--set title=[a: {NOT_YAML}"),
    ],
)
def test_a_wrong_override_is_reported_as_one(load, override, expected):
    assert problem(load, "title: x\n", [override]) == expected


def test_problems_of_overrides_follow_those_of_the_file(load):
    lines = refused(validate, Settings, load("titel: x\n"), overrides=["update.epochs=x", "enabled=no"])
    assert [line.split(": ")[0] for line in lines] == [
        "plan.yaml:1:1",
        "--set update.epochs=x",
        "--set enabled=no",
    ]


# --- layers and origins ---------------------------------------------------------------------------


def test_a_layer_merges_blocks_and_replaces_everything_else(load):
    base = load("update: {epochs: 1, names: [a, b]}\ntitle: x\n")
    Path("over.yaml").write_text("update:\n  names: [c]\n  smoothing: 40\n")
    both = layered(base, load_yaml(Path("over.yaml"), label="--profile over", layer=1))
    assert both.data == {"update": {"epochs": 1, "names": ["c"], "smoothing": 40}, "title": "x"}
    assert base.data["update"]["names"] == ["a", "b"]
    assert both.where(("update", "names", 0)) == "over.yaml:2:11"
    assert ("update", "names", 1) not in both.origins
    assert refused(validate, Settings, both) == [
        "over.yaml:3:3: update.smoothing: must be at most 1 (got 40); 40 % is written 0.40"
    ]


def test_origins_tell_defaults_files_layers_and_overrides_apart(load):
    base = load("update:\n  epochs: 1\n  names: [a]\n")
    Path("over.yaml").write_text("update: {smoothing: 0.25}\n")
    both = layered(base, load_yaml(Path("over.yaml"), label="--profile over", layer=1))
    loaded = apply_overrides(both, ["title=t"])
    listed = origins(validate(Settings, loaded), loaded)
    found = {setting.key: (setting.value, setting.origin) for setting in listed}
    assert found["update.epochs"] == (1, "plan.yaml:2")
    assert found["update.names"] == (["a"], "plan.yaml:3")
    assert found["update.smoothing"] == (0.25, "--profile over")
    assert found["update.learning_rate"] == (0.1, "default")
    assert found["title"] == ("t", "--set")
    assert found["markets"] == ({}, "default")
    kinds = {setting.key: setting.kind for setting in listed}
    assert [kinds[key] for key in ("update.epochs", "update.smoothing", "title", "markets")] == [
        "file",
        "profile",
        "option",
        "default",
    ]


def test_a_block_keeps_the_places_of_its_keys(load):
    block = load("markets:\n  A:\n    epochs: x\n").block(("markets", "A"))
    assert block.data == {"epochs": "x"}
    assert refused(validate, Update, block) == [
        "plan.yaml:3:5: markets.A.epochs: must be a whole number (got 'x')"
    ]


TEXTS = st.one_of(
    st.text(
        alphabet=st.characters(
            codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\u2028\u2029\x85"
        )
    ),
    st.sampled_from(
        [
            "1e-4",
            "1E5",
            "9:15",
            "no",
            "yes",
            "null",
            "~",
            "010",
            "2024-01-01",
            "1_000",
            "- a",
            "{",
            "#",
            "<<",
            "=",
            ".inf",
        ]
    ),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(TEXTS.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1))
def test_what_is_dumped_is_read_back_unchanged(tmp_path_factory, data):
    """A run stores its resolved plan; reading it back must give the same run."""
    file = tmp_path_factory.mktemp("dump") / "dumped.yaml"
    file.write_text(dump_yaml(data), encoding="utf-8")
    read = load_yaml(file)
    assert not read.problems
    assert read.data == data
    assert [type(value) for value in read.data.values()] == [type(value) for value in data.values()]


@given(st.binary(max_size=200) | st.text(alphabet="ab:{}[]&*!-#'\"\n \t%|>?<", max_size=60).map(str.encode))
def test_any_bytes_are_either_settings_or_a_refusal(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"
    file.write_bytes(content)
    try:
        validate(Settings, load_yaml(file))
    except ConfigError as error:
        message = str(error)
        assert message.startswith(str(file)), message
