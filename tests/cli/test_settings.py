import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe import InputError
from steppe.cli.options import parsed
from support.properties import cheap


@cheap
@given(st.text(max_size=30))
def test_any_words_are_a_setting_or_get_one_sentence(words):
    try:
        path, _ = parsed(words)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert path and path == words.partition("=")[0].strip()


@cheap
@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False)))
def test_a_value_of_toml_is_read_as_one(value):
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    assert parsed(f"train.epochs={text}") == ("train.epochs", value)
    assert type(parsed(f"a={text}")[1]) is type(tomllib.loads(f"a = {text}")["a"])


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000, "sgd", "2 fish", "'", "1979-99-99"])
def test_what_is_no_value_of_toml_is_a_string(text):
    assert parsed(f"a={text}") == ("a", text)


@pytest.mark.parametrize("text", ["[accuracy]", "{name=trace}", "[1, x]"])
def test_a_list_or_table_whose_quotes_the_shell_took_is_refused(text):
    with pytest.raises(InputError, match="Put the whole between single quotes, and texts in it between double ones"):
        parsed(f"measure.names={text}")
