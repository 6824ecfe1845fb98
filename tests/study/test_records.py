import io

import jax
import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe.storage import files
from steppe.study import records
from steppe.study.history import ROWS, of_training
from steppe.study.history import written as written_rows
from support.properties import cheap

STEPS = st.one_of(st.integers(0, 12), st.text("abk_", min_size=1, max_size=4))
ARRAYS = st.builds(
    lambda shape, dtype: np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape),
    st.sampled_from([(), (2,), (2, 0), (1, 3)]),
    st.sampled_from([np.float32, np.float64, np.int32]),
)
PARAMS = st.recursive(
    st.dictionaries(st.text("abk_", min_size=1, max_size=4), ARRAYS, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.dictionaries(st.integers(0, 12), inner, min_size=1, max_size=3),
        st.dictionaries(st.text("abk_", min_size=1, max_size=4), inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)


def written(arrays):
    stream = io.BytesIO()
    files.array_content(arrays)(stream)
    return stream.getvalue()


@cheap
@given(PARAMS)
def test_parameters_come_back_from_a_file_as_they_went(params):
    back = records.unflattened(files.read_arrays(io.BytesIO(written(records.flattened(params)))))
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "params.npz"
    path.write_bytes(written({"layers/0/kernel": np.arange(6.0).reshape(2, 3), "layers/0/bias": np.zeros(3)}))
    return path, path.read_bytes()


@cheap
@given(st.data())
def test_a_file_of_arrays_that_is_cut_off_is_called_damaged(whole, data):
    path, content = whole
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(files.DamagedFile):
        files.read(path, files.read_arrays)


@cheap
@given(st.binary(max_size=200))
def test_a_file_of_any_bytes_that_are_no_arrays_is_called_damaged(whole, content):
    path, _ = whole
    path.write_bytes(content)
    with pytest.raises(files.DamagedFile):
        files.read(path, files.read_arrays)


def test_rows_of_versions_that_asked_nothing_of_updates_are_read():
    rows = polars.DataFrame([of_training(1, "objective", 0.5)], schema=ROWS)
    older = io.BytesIO(written_rows(rows.drop("update")))
    assert records.rows(older, 1).equals(rows, null_equal=True)
