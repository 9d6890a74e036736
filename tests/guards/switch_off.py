"""Can the suite fail? Each guard is switched off in turn, in a copy of the package, and its tests have to turn red.

    python tests/guards/switch_off.py [WORD ...]     all guards, or those whose name holds a word

Exits with 1 where a guard is off and its tests are green, or where they are red with all guards on.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Guard(NamedTuple):
    """A piece of the package, what stands in its place when it is off, and tests: a file under tests/ and a -k."""

    name: str
    file: str
    on: str
    off: str
    tests: str
    chosen: str


CHECKPOINT, LOOP, SOUND = "training/test_checkpoint.py", "training/test_loop.py", "encoder/test_sound.py"
SIGNALS, FOLDER, RESUME = "commands/test_signals.py", "commands/test_run_folder.py", "commands/test_resume.py"
GUARDS = [
    Guard(
        "hash of a checkpoint",
        "training/checkpoint.py",
        "if digest(folder / name) != expected:",
        "if False:",
        CHECKPOINT,
        "damaged_newest",
    ),
    Guard(
        "files of a checkpoint",
        "training/checkpoint.py",
        "if {*hashes, MANIFEST} != found or not",
        "if False and not",
        CHECKPOINT,
        "names_other_files",
    ),
    Guard(
        "rotation looks first",
        "training/checkpoint.py",
        "if problem := verify(newest):",
        "if problem := None:",
        CHECKPOINT,
        "rotation",
    ),
    Guard(
        "no checkpoint of NaN",
        "training/checkpoint.py",
        "    require_finite_weights(*learner.modules)\n",
        "",
        CHECKPOINT,
        "become_no_checkpoint",
    ),
    Guard(
        "checkpoint of another model",
        "training/checkpoint.py",
        "except (RuntimeError, ValueError) as error:",
        "except ZeroDivisionError as error:",
        CHECKPOINT,
        "another_model",
    ),
    Guard("room on the disk", "training/checkpoint.py", "if needed > free:", "if False:", CHECKPOINT, "can_not_hold"),
    Guard(
        "every generator",
        "training/checkpoint.py",
        "capture_everything(), ",
        "capture_randomness(), ",
        CHECKPOINT,
        "every_generator",
    ),
    Guard(
        "written beside",
        "training/whole.py",
        "        scratch.mkdir(parents=True)\n            yield scratch",
        "        folder.mkdir(parents=True)\n            yield folder",
        CHECKPOINT,
        "full_disk",
    ),
    Guard(
        "disk errors are named",
        "training/whole.py",
        "except (OSError, SafetensorError) as error:",
        "except ZeroDivisionError as error:",
        CHECKPOINT,
        "full_disk",
    ),
    Guard("leftovers are swept", "training/run_folder.py", "        clear_leftovers(path)\n", "", FOLDER, "is_undone"),
    Guard(
        "lock of a run folder",
        "training/run_folder.py",
        "fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        FOLDER,
        "same_process",
    ),
    Guard(
        "damaged result",
        "training/run_folder.py",
        "    except (OSError, ValueError):\n        return None",
        "    except OSError:\n        return None",
        FOLDER,
        "damaged_result",
    ),
    Guard(
        "lines after the checkpoint",
        "training/run_folder.py",
        'if entry["step"] <= step:',
        "if True:",
        RESUME,
        "logged_once",
    ),
    Guard("--resume refuses what moved", "commands/train.py", "if moved and strict:", "if False:", RESUME, "moved"),
    Guard(
        "a step is finished first", "training/signals.py", "if not self.waits:", "if True:", SIGNALS, "TERM and saving"
    ),
    Guard(
        "second signal",
        "training/signals.py",
        "            os._exit(128 + number)\n",
        "            pass\n",
        SIGNALS,
        "second",
    ),
    Guard(
        "saved at a signal",
        "commands/run.py",
        "            self.save()\n            self.leave_if_asked()\n\n    def",
        "            raise\n\n    def",
        SIGNALS,
        "TERM and evaluation",
    ),
    Guard(
        "evaluation made up for",
        "commands/train.py",
        "yield from under_way.evaluate()  # a signal",
        "pass  # a signal",
        SIGNALS,
        "TERM and evaluation",
    ),
    Guard(
        "no library catches a signal",
        "errors.py",
        "class InterruptedRun(BaseException)",
        "class InterruptedRun(Exception)",
        SIGNALS,
        "no_failure",
    ),
    Guard("embeddings are finite", "training/loop.py", "if len(broken):", "if False:", LOOP, "only_the_rows"),
    Guard(
        "loss and gradient are finite",
        "training/loop.py",
        "if not math.isfinite(value):",
        "if False:",
        LOOP,
        "not_finite or infinite_gradient",
    ),
    Guard(
        "model is finite",
        "commands/run.py",
        "        require_finite_weights(self.encoder)\n",
        "",
        "commands/test_train.py",
        "is_not_written",
    ),
    Guard(
        "learns something",
        "training/health.py",
        "if count == self.patience]",
        "if False]",
        "training/test_health.py",
        "",
    ),
    Guard(
        "zero vectors",
        "encoder/modules.py",
        "norm_r1.masked_fill(norm_r1 < SHORTEST, torch.inf)",
        "norm_r1.clamp(min=SHORTEST)",
        "training/test_health.py",
        "zero_embedding",
    ),
    Guard(
        "missing weights",
        "encoder/sound.py",
        'for name in loading["missing_keys"] if not',
        "for name in [] if not",
        SOUND,
        "missing and by_name",
    ),
    Guard(
        "left-over weights",
        "encoder/sound.py",
        'for name in loading["unexpected_keys"]',
        "for name in []",
        SOUND,
        "left",
    ),
    Guard(
        "weights are finite", "encoder/sound.py", "and not weight.isfinite().all()]", "and False]", SOUND, "nan or inf"
    ),
    Guard("links stay inside", "encoder/sound.py", "if path.is_symlink() and not", "if False and not", SOUND, "linked"),
    Guard(
        "shards stay inside",
        "encoder/sound.py",
        "if outside := sorted(",
        "if outside := [] and sorted(",
        SOUND,
        "shard",
    ),
    Guard(
        "layers have weights",
        "encoder/sound.py",
        "if tensors and layers > tensors:",
        "if False:",
        SOUND,
        "layers and without",
    ),
    Guard(
        "adapters", "encoder/sound.py", 'if (folder / "adapter_config.json").is_file():', "if False:", SOUND, "adapter"
    ),
    Guard(
        "modules stay inside", "encoder/model_json.py", '".." in pure.parts or', "False or", SOUND, "module and above"
    ),
    Guard(
        "bombs",
        "data/files.py",
        "if unpacked > max(LITTLE, MOST_UNPACKED * packed):",
        "if False:",
        "data/test_bombs.py",
        "over or every",
    ),
    Guard(
        "length of a line", "data/files.py", "if len(line) > LONGEST_LINE:", "if False:", "data/test_bombs.py", "100"
    ),
    Guard(
        "saved datasets stay inside", "data/read.py", "    require_inside(folder)\n", "", "data/test_bombs.py", "saved"
    ),
    Guard(
        "tags",
        "recipe/marked_yaml.py",
        "if event.tag is not None:",
        "if False:",
        "recipe/test_marked_yaml.py",
        "must_not_hold",
    ),
    Guard(
        "keys given twice",
        "recipe/marked_yaml.py",
        "elif key.value in entries:",
        "elif False:",
        "recipe/test_marked_yaml.py",
        "must_not_hold",
    ),
]


def run_in_copy(guard: Guard | None, tests: list[str]) -> int:
    """Run tests on a copy of the package with that guard off; pytest's exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        folder = Path(tempfile.mkdtemp())
        package = shutil.copytree(ROOT / "stfit", folder / "stfit")
        if guard is not None:
            file = package / guard.file
            text = file.read_text()
            assert text.count(guard.on) == 1, f"{guard.name}: stands {text.count(guard.on)} times in {guard.file}"
            file.write_text(text.replace(guard.on, guard.off))
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--assert=plain", "-m", "not slow"]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = int(pytest.main([*options, "--rootdir", str(ROOT), *tests]))
        shutil.rmtree(folder)
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
    finally:
        os._exit(code)


def main() -> int:
    """One line a guard."""
    import datasets
    import torch

    assert datasets
    torch.set_num_threads(1)
    words = sys.argv[1:]
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    red = 0
    for guard in chosen:
        tests = [str(ROOT / "tests" / guard.tests), *(["-k", guard.chosen] if guard.chosen else [])]
        on, off = run_in_copy(None, tests), run_in_copy(guard, tests)
        red += (on, off) == (0, 1)
        verdict = "ok" if (on, off) == (0, 1) else f"NOT SEEN: {on} when on, {off} when off (0 green, 1 red)"
        sys.stdout.write(f"{guard.name}: {verdict}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{red} of {len(chosen)} guards turn a test red when they are off\n")
    return 0 if red == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
