"""The cache is bounded: what was not used for the longest time goes, and so does what killed processes left."""

import os
import platform
import subprocess

import numpy as np
import pytest

from stfit.data.cache import tokens
from stfit.data.cache.folder import cache_folder, mark_used, trim_cache
from stfit.errors import RecipeError
from stfit.io.atomic import atomic_cache_entry


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Three entries of 1,000 bytes, each used a minute after the one before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    made = [cache_folder("tokens") / "old", cache_folder("datasets") / "newer", cache_folder("teachers") / "newest"]
    for age, entry in enumerate(reversed(made)):
        file = entry / "rows" if entry.parent.name == "datasets" else entry
        file.parent.mkdir(parents=True)
        file.write_bytes(b"0" * 1000)
        os.utime(entry, (1e9 - 60 * age,) * 2)
    return made


def test_entries_go_in_the_order_of_their_last_use_until_the_rest_fits(entries, monkeypatch):
    old, newer, newest = entries
    trim_cache()
    assert all(entry.exists() for entry in entries)
    mark_used(old)
    monkeypatch.setenv("STFIT_CACHE_GB", "2e-6")
    trim_cache()
    assert [entry.exists() for entry in (newer, newest, old)] == [False, True, True]
    monkeypatch.setenv("STFIT_CACHE_GB", "0")
    trim_cache(kept=old)
    assert [entry.exists() for entry in (newest, old)] == [False, True]


@pytest.mark.parametrize("written", ["much", "-1", "nan"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, written):
    monkeypatch.setenv("STFIT_CACHE_GB", written)
    with pytest.raises(RecipeError, match="STFIT_CACHE_GB"):
        trim_cache()


def test_tokens_larger_than_the_whole_cache_are_not_written(entries, monkeypatch):
    monkeypatch.setattr(tokens, "MIN_CACHED_TEXTS", 1)
    monkeypatch.setenv("STFIT_CACHE_GB", "1e-9")
    tokens.load_tokens(["a", "b"], lambda texts: [np.ones(3, np.int32) for _ in texts], "t")
    assert not list(cache_folder("tokens").glob("*.arrow"))


def test_scratch_of_dead_processes_goes_and_that_of_living_ones_and_of_other_machines_stays(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = platform.node()
    left = [f"a.{dead.pid}@{here}.tmp", f"a.{dead.pid}.tmp"]
    kept = [f"a.{os.getpid()}@{here}.tmp", f"a.{dead.pid}@another-{here}.tmp", "a.tmp", "1.tmp"]
    for name in left + kept:
        (tmp_path / name).write_text("half")
    with atomic_cache_entry(tmp_path / "b") as temporary:
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "b"}
