"""A teacher embeds a text once over all runs, and what it made is found again by rows."""

import numpy as np
import pytest

from stfit.data.cache import teacher as taught
from stfit.data.cache.teacher import TeacherEmbeddings, load_embeddings


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A teacher of three dimensions that remembers what it was asked, with windows of four texts."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(taught, "WINDOW", 4)
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.array([[len(text), ord(text[0]), 1] for text in texts], np.float32)

    embed.asked = asked
    return embed


def texts(count):
    return [f"{'abcdefghijkl'[i]}{'x' * i}" for i in range(count)]


def test_texts_are_found_at_their_places_over_all_windows_and_zeros_for_none(teacher):
    embeddings = load_embeddings(texts(10), teacher, "me")
    places = np.array([9, 0, -1, 5, 5])
    expected = np.stack([np.zeros(3) if i < 0 else teacher(texts(10))[i] for i in places])
    assert np.array_equal(embeddings[places], expected)


def test_another_run_asks_for_nothing_and_more_rows_for_their_window_only(teacher):
    load_embeddings(texts(10), teacher, "me")
    teacher.asked.clear()
    assert np.array_equal(load_embeddings(texts(10), teacher, "me")[np.arange(10)][:, 0], np.arange(2, 12) - 1)
    assert teacher.asked == []
    load_embeddings(texts(12), teacher, "me")
    assert teacher.asked == texts(12)[8:]
    teacher.asked.clear()
    load_embeddings(texts(10), teacher, "somebody else")
    assert teacher.asked == texts(10)


@pytest.mark.parametrize("damage", [b"", b"no numpy", None, "flipped"])
def test_a_damaged_window_is_made_again(teacher, tmp_path, damage):
    load_embeddings(texts(8), teacher, "me")
    first = next(path for path in tmp_path.rglob("*.npy"))
    whole = first.read_bytes()
    flipped = whole[:-70] + bytes([whole[-70] ^ 1]) + whole[-69:]
    first.write_bytes({None: whole[:-4], "flipped": flipped}.get(damage, damage))
    teacher.asked.clear()
    embeddings = load_embeddings(texts(8), teacher, "me")
    assert len(teacher.asked) == 4
    assert first.read_bytes() == whole
    assert np.array_equal(embeddings[np.arange(8)], teacher(texts(8)))


def test_a_disk_without_room_costs_the_next_run_its_time(teacher, tmp_path, caplog):
    (tmp_path / "stfit").write_text("a file where the folder should be")
    assert np.array_equal(load_embeddings(texts(5), teacher, "me")[np.arange(5)], teacher(texts(5)))
    assert "can't be cached for the next run" in caplog.text


def test_a_label_of_rows_is_what_the_teacher_makes_of_each_column(teacher):
    embeddings = load_embeddings(texts(6), teacher, "me")
    label = TeacherEmbeddings([(embeddings, np.array([0, 1, 2])), (embeddings, np.array([3, -1, 5]))])
    found = label[np.array([2, 1])]
    assert found.shape == (2, 2, 3)
    assert np.array_equal(found[0], teacher([texts(6)[2], texts(6)[5]]))
    assert not found[1, 1].any()
