"""Every kind of table that people have is read as it is meant, or refused by name; the page of formats says the same."""

from pathlib import Path

import pytest

from minilima.errors import MinilimaError
from tests.formats.shapes import PAGE, SHAPES, Shape, page


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_is_read_as_it_is_meant(tmp_path: Path, shape: Shape) -> None:
    if shape.refusal is not None:
        with pytest.raises(MinilimaError) as refused:
            shape.read(tmp_path)
        assert shape.refusal in refused.value.what
        return
    imported = shape.read(tmp_path)
    made = [example for example in imported.examples if example.id == "row1"]
    left = [item for item in imported.rejected if item.id == "row1"]
    if shape.reason is not None:
        assert made == [] and [item.reason for item in left] == [shape.reason]
    else:
        (example,) = made
        assert [f"{turn['role']}: {turn['content']}" for turn in example.messages()] == list(shape.said) and left == []


def test_the_page_of_formats_says_what_is_read() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.formats.shapes and commit docs/reference/formats.md"
