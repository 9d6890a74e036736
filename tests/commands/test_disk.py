"""A disk that is full, read-only or gone costs no checkpoint, and is said in one sentence."""

import ctypes
import errno
import os
import sys

import pytest
from processes import needs_mounts, run_in_child

from stfit.commands.train import train
from stfit.events import StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import list_checkpoints
from stfit.training.checkpoint import verify_checkpoint


def on_a_small_disk(folder, size, action):
    """Run `action` in a child that sees a file system of `size` on `folder`; what it printed, and its exit code."""

    def mounted():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x20000) == 0  # CLONE_NEWNS: the mount is seen by the child alone, and ends with it
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
        folder.mkdir()
        assert libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()) == 0
        action(libc)

    output = folder.parent / "output"
    return run_in_child(mounted, output), output.read_text()


@needs_mounts
@pytest.mark.parametrize("room", [1_000, 30_000, 70_000, 150_000])
def test_disk_that_fills_up_keeps_the_last_whole_checkpoint(tmp_path, write, room):
    """So many bytes are free when the third checkpoint is written."""
    recipe, runs = write(train={"save_every_steps": 1, "keep_checkpoints": 1}), tmp_path / "runs"

    def fill(libc):
        try:
            for event in train(load_recipe(recipe), runs):
                if isinstance(event, StepInfo) and event.step == 3:
                    usage = os.statvfs(runs)
                    (runs / "filler").write_bytes(b"0" * max(0, usage.f_bavail * usage.f_frsize - room))
        finally:
            found = list_checkpoints(runs / "tiny" / "checkpoints")
            assert found
            assert [verify_checkpoint(path) for path in found] == [None] * len(found)
            (runs / "filler").unlink()
            list(train(load_recipe(recipe), runs))  # with room again, the same command goes on
            sys.stderr.write("went on to the end")

    code, said = on_a_small_disk(runs, 3_000_000, fill)
    assert code == 9, said
    assert os.strerror(errno.ENOSPC) in said or "No space left" in said
    assert "can't be written" in said
    assert "went on to the end" in said


@needs_mounts
def test_run_that_can_not_fit_is_refused_before_its_first_step(tmp_path, write):
    runs = tmp_path / "runs"
    code, said = on_a_small_disk(runs, 200_000, lambda libc: list(train(load_recipe(write()), runs)))
    assert code == 9, said
    assert "2 checkpoints and the model need" in said
    assert "0 MiB are free" in said
    assert "step 1" not in said


@needs_mounts
@pytest.mark.parametrize("moment", ["before", "between"])
def test_read_only_run_folder_is_an_error_about_the_disk(tmp_path, write, moment):
    recipe, runs = write(), tmp_path / "runs"

    def freeze(libc):
        events = train(load_recipe(recipe), runs)
        if moment == "between":
            while not isinstance(next(events), StepInfo):
                pass
        place = str(runs / "tiny").encode() if moment == "between" else str(runs).encode()
        if moment == "between":  # the lock is open for writing beside it
            assert libc.mount(place, place, None, 0x1000, None) == 0  # MS_BIND
        assert libc.mount(b"none", place, None, 0x21 | 0x1000 * (moment == "between"), None) == 0  # remount, read-only
        list(events if moment == "between" else train(load_recipe(recipe), runs))

    code, said = on_a_small_disk(runs, 3_000_000, freeze)
    assert code == 9, said
    assert "Read-only file system" in said
