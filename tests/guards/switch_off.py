"""Can the suite fail? Each guard is switched off in turn, in a copy of the package, and its tests have to turn red.

    python tests/guards/switch_off.py [WORD ...]     all guards, or those whose name holds a word

Exits with 1 if a guard is off and its tests are green.
"""

import importlib
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 120
"""Seconds of a processor that the tests of a guard may take: what it guards against may have no end."""
LARGEST = 16 * 2**30
"""Bytes of address space, for the same reason; torch alone reserves some."""


class Guard(NamedTuple):
    """A piece of the package, what stands in its place when it is off, and tests: a file under tests/ and a -k."""

    name: str
    file: str
    on: str
    off: str
    tests: str
    chosen: str


CHECKPOINT, LOOP, VALIDATE = "training/test_checkpoint.py", "training/test_loop.py", "encoder/test_validate.py"
SIGNALS, FOLDER, RESUME = "commands/test_signals.py", "commands/test_run_folder.py", "commands/test_resume.py"
GUARDS = [
    Guard(
        "hash of a checkpoint",
        "training/checkpoint.py",
        "if hash_file(folder / name) != expected:",
        "if False:",
        CHECKPOINT,
        "damaged_newest",
    ),
    Guard(
        "files of a checkpoint",
        "training/checkpoint.py",
        "if {*hashes, MANIFEST} != names or not",
        "if False and not",
        CHECKPOINT,
        "names_other_files",
    ),
    Guard(
        "rotation looks first",
        "training/checkpoint.py",
        "if problem := verify_checkpoint(newest):",
        "if problem := None:",
        CHECKPOINT,
        "rotation",
    ),
    Guard(
        "no checkpoint of NaN",
        "training/checkpoint.py",
        "        require_finite_weights(*modules)\n",
        "",
        CHECKPOINT,
        "become_no_checkpoint",
    ),
    Guard(
        "checkpoint of another model",
        "training/checkpoint.py",
        "except (RuntimeError, ValueError, IndexError) as error:",
        "except ZeroDivisionError as error:",
        CHECKPOINT,
        "another_model",
    ),
    Guard(
        "digest of resolved.yaml",
        "recipe/load.py",
        "    if is_damaged(text):",
        "    if False:",
        "commands/test_kept.py",
        "resolved_recipe_is_refused",
    ),
    Guard(
        "digest of an encoded window",
        "data/embeddings/saved_windows.py",
        'metadata.get("digest") == digest and',
        'metadata.get("digest") == digest or',
        "commands/test_kept.py",
        "window",
    ),
    Guard(
        "a finished run compares its inputs",
        "workflows/train/unchanged.py",
        "    if not training_changes(lock, described):\n        return []\n",
        "    return []\n",
        "commands/test_lock.py",
        "inputs_changed and train.jsonl",
    ),
    Guard(
        "an output is no input",
        "io/outputs.py",
        "        if _is_same(path, given) or (",
        "        if path == given or (",
        "commands/test_outputs.py",
        "any_name",
    ),
    Guard(
        "an output is tried first",
        "io/outputs.py",
        "        trial.write(TRIAL)\n",
        "",
        "commands/test_outputs.py",
        "before_the_model",
    ),
    Guard("room on the disk", "training/checkpoint.py", "if needed > free:", "if False:", CHECKPOINT, "can_not_hold"),
    Guard(
        "every generator",
        "training/checkpoint.py",
        "all_gather_object(capture_all_rng())",
        "all_gather_object(capture_rng())",
        CHECKPOINT,
        "every_generator",
    ),
    Guard(
        "written beside",
        "io/atomic.py",
        "        temporary.mkdir(parents=True)\n            yield temporary",
        "        folder.mkdir(parents=True)\n            yield folder",
        CHECKPOINT,
        "full_disk",
    ),
    Guard(
        "disk errors are named",
        "io/atomic.py",
        "except (OSError, SafetensorError) as error:",
        "except ZeroDivisionError as error:",
        CHECKPOINT,
        "full_disk",
    ),
    Guard("leftovers are swept", "runtime/run_folder.py", "        recover(path)\n", "", FOLDER, "is_undone"),
    Guard(
        "lock of a run folder",
        "runtime/run_folder.py",
        "lock = FileLock(_lock_file(path), timeout=LOCK_PATIENCE)",
        "lock = FileLock(path.with_name(os.urandom(4).hex()), timeout=LOCK_PATIENCE)",
        FOLDER,
        "same_process",
    ),
    Guard(
        "damaged result",
        "io/json_files.py",
        "    except (OSError, ValueError):\n        return None",
        "    except OSError:\n        return None",
        FOLDER,
        "damaged_result",
    ),
    Guard(
        "lines after the checkpoint",
        "runtime/run_folder.py",
        ' if entry["step"] <= step]',
        "]",
        RESUME,
        "logged_once",
    ),
    Guard(
        "tokens of a checkpoint",
        "workflows/train/resume.py",
        'if fingerprint["tokens"] != saved["tokens"]:',
        "if False:",
        RESUME,
        "vocabulary",
    ),
    Guard(
        "--resume refuses changes", "workflows/train/resume.py", "if changes and strict:", "if False:", RESUME, "moved"
    ),
    Guard(
        "a step is finished first", "runtime/signals.py", "if not self.defers:", "if True:", SIGNALS, "TERM and saving"
    ),
    Guard(
        "second signal",
        "runtime/signals.py",
        "            os._exit(128 + number)\n",
        "            pass\n",
        SIGNALS,
        "second",
    ),
    Guard(
        "a long step is given up",
        "runtime/signals.py",
        "time.monotonic() - self.received_at >= SIGNAL_PATIENCE",
        "False",
        SIGNALS,
        "too_long",
    ),
    Guard(
        "saved where a step is given up",
        "workflows/train/session.py",
        "            self.save()\n            self.raise_if_interrupted()\n        except DataError",
        "            raise\n        except DataError",
        SIGNALS,
        "too_long and graph",
    ),
    Guard(
        "what is given up leaves no trace",
        "training/loop.py",
        "        restore_rng(rng_state)\n",
        "",
        SIGNALS,
        "too_long and gradient",
    ),
    Guard(
        "no signal is lost",
        "runtime/signals.py",
        "            yield\n            self.raise_if_received()\n        finally",
        "            yield\n        finally",
        SIGNALS,
        "lost and evaluation",
    ),
    Guard(
        "no signal is lost before the first step",
        "runtime/signals.py",
        "        self.raise_if_received()\n        self.defers = True",
        "        self.defers = True",
        SIGNALS,
        "lost and preparation",
    ),
    Guard(
        "saved at a signal",
        "workflows/train/session.py",
        "            self.save()\n            self.raise_if_interrupted()\n\n    def raise_if_interrupted",
        "            raise\n\n    def raise_if_interrupted",
        SIGNALS,
        "TERM and evaluation",
    ),
    Guard(
        "evaluation made up for",
        "commands/train.py",
        "yield from session.evaluate()  # a signal",
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
        "workflows/train/session.py",
        "            require_finite_weights(encoder)\n",
        "",
        "commands/test_train.py",
        "is_not_written",
    ),
    Guard(
        "learns something",
        "training/diagnostics.py",
        "if count == self.patience]",
        "if False]",
        "training/test_diagnostics.py",
        "test",
    ),
    Guard(
        "zero vectors",
        "similarity.py",
        "norm_r1.masked_fill(norm_r1 < smallest, torch.inf)",
        "norm_r1.clamp(min=EPS)",
        "training/test_diagnostics.py",
        "zero_embedding",
    ),
    Guard(
        "missing weights",
        "encoder/folder/validate.py",
        'for name in loading["missing_keys"] if not',
        "for name in [] if not",
        VALIDATE,
        "missing and by_name",
    ),
    Guard(
        "left-over weights",
        "encoder/folder/validate.py",
        'for name in loading["unexpected_keys"]',
        "for name in []",
        VALIDATE,
        "left",
    ),
    Guard(
        "weights are finite",
        "encoder/folder/files.py",
        "and not _is_finite(weight)]",
        "and False]",
        VALIDATE,
        "nan or inf",
    ),
    Guard(
        "a vector for each token",
        "encoder/folder/validate.py",
        "    elif excess > 0:",
        "    elif False:",
        VALIDATE,
        "no_vector",
    ),
    Guard(
        "code of a repository",
        "encoder/folder/validate.py",
        'if code := config.get("auto_map"):',
        'if code := config.get("nothing"):',
        VALIDATE,
        "code",
    ),
    Guard(
        "links stay inside",
        "encoder/folder/validate.py",
        "if path.is_symlink() and not",
        "if False and not",
        VALIDATE,
        "linked",
    ),
    Guard(
        "shards stay inside",
        "encoder/folder/validate.py",
        "if outside := sorted(",
        "if outside := [] and sorted(",
        VALIDATE,
        "shard",
    ),
    Guard(
        "layers have weights",
        "encoder/folder/validate.py",
        "if tensors and layers > tensors:",
        "if False:",
        VALIDATE,
        "layers and without",
    ),
    Guard(
        "modules stay inside",
        "encoder/folder/st_config.py",
        '".." in pure.parts or',
        "False or",
        VALIDATE,
        "module and above",
    ),
    Guard(
        "bombs",
        "data/reading/packed_file.py",
        "if unpacked > max(MIN_ALLOWANCE, MAX_RATIO * packed):",
        "if False:",
        "data/test_bombs.py",
        "over or every",
    ),
    Guard(
        "folders are no patterns",
        "paths.py",
        "os.path.join(glob.escape(start), written)",
        "os.path.join(start, written)",
        "data/test_paths.py",
        "own_folder",
    ),
    Guard(
        "cells of a parquet file",
        "data/reading/parquet.py",
        "        refuse_bomb(path, MIN_CELL_BYTES * sum(column.num_values for column in columns))\n",
        "",
        "data/test_bombs.py",
        "hundred",
    ),
    Guard(
        "texts of a parquet file",
        "data/reading/parquet.py",
        "            refuse_bomb(path, unpacked)\n\n",
        "            pass\n\n",
        "data/test_bombs.py",
        "lists or every",
    ),
    Guard(
        "length of a line",
        "data/reading/text_lines.py",
        "if len(line) > MAX_LINE:",
        "if False:",
        "data/test_bombs.py",
        "100",
    ),
    Guard(
        "saved datasets stay inside",
        "data/reading/saved_to_disk.py",
        "    _require_inside(folder)\n",
        "",
        "data/test_bombs.py",
        "saved",
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
    Guard(
        "ranges of one text",
        "encoder/export/quantization.py",
        "if constant == dim or (constant and texts < MIN_TEXTS):",
        "if False:",
        "commands/test_encode.py",
        "ranges_of_one",
    ),
    Guard(
        "half of a surrogate pair",
        "encoder/inputs.py",
        "if not is_unicode(text):",
        "if False:",
        "commands/test_python_inputs.py",
        "surrogate",
    ),
    Guard(
        "judgments of what is not there",
        "evaluation/collection.py",
        "is_error = len(lost) > MAX_MISSING * len(row_of)",
        "is_error = False",
        "evaluation/test_retrieval.py",
        "most_of_which",
    ),
    Guard(
        "export whose cosine is no number",
        "commands/export.py",
        'if not (cosine := comparisons[0]["lowest_cosine"]) >= MIN_COSINE:',
        'if (cosine := comparisons[0]["lowest_cosine"]) < MIN_COSINE:',
        "commands/test_export.py",
        "wrong_for_one",
    ),
]


def run_in_copy(guard: Guard) -> int:
    """Run the tests of a guard on a copy of the package in which it is off; pytest's exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        folder = Path(tempfile.mkdtemp())
        package = shutil.copytree(ROOT / "stfit", folder / "stfit")
        switch_off(guard, package)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
        resource.setrlimit(resource.RLIMIT_AS, (LARGEST, resource.RLIM_INFINITY))  # a test may set one of its own
        options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--assert=plain"]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = int(
            pytest.main([*options, "--rootdir", str(ROOT), str(ROOT / "tests" / guard.tests), "-k", guard.chosen])
        )
        shutil.rmtree(folder)
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
    finally:
        os._exit(code)


def switch_off(guard: Guard, package: Path) -> None:
    """Put what stands for the guard when it is off into a copy of the package."""
    file = package / guard.file
    text = file.read_text()
    assert text.count(guard.on) == 1, f"{guard.name}: stands {text.count(guard.on)} times in {guard.file}"
    file.write_text(text.replace(guard.on, guard.off))


def warm_up() -> None:
    """Import what the package imports, but not the package: every child brings its own copy of that."""
    for name in ("stfit.commands.train", "stfit.commands.check", "transformers.models.bert.modeling_bert"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "stfit"]:
        del sys.modules[name]
    sys.modules["torch"].set_num_threads(1)


def say(line: str) -> None:
    """A line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """One line a guard. That its tests are green while it is on, the suite shows."""
    warm_up()
    words = sys.argv[1:]
    guards = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    red = 0
    for guard in guards:
        code = run_in_copy(guard)
        red += code == 1
        say(f"{guard.name}: {'ok' if code == 1 else f'NOT SEEN: pytest ends with {code} (0 green, 1 red)'}")
    say(f"{red} of {len(guards)} guards turn a test red when they are off")
    return 0 if red == len(guards) else 1


if __name__ == "__main__":
    sys.exit(main())
