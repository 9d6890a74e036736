"""An output never takes the place of an input, and one that can't be written is refused before a model is loaded."""

import os
import resource
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from processes import fork, wait

from stfit.cli.console import print_page
from stfit.commands.encode import encode
from stfit.commands.export import export
from stfit.commands.mine import mine
from stfit.commands.report import report
from stfit.data.embeddings.saved_windows import SavedWindows
from stfit.data.embeddings.writers import EmbeddingRows, write_output
from stfit.data.source import Source
from stfit.encoder.build import load_encoder
from stfit.encoder.export.quantization import Ranges, save_ranges
from stfit.encoder.folder.resolve import paths_of_model
from stfit.encoder.folder.save import save_encoder
from stfit.errors import RecipeError, ResourceError
from stfit.io.atomic import temporary_path
from stfit.io.outputs import require_output
from stfit.options import EncodeOptions, MiningOptions
from stfit.recipe.load import load_recipe
from stfit.runtime.run_folder import RunFolder
from stfit.workflows.encode.text_windows import Inputs

NO_MODEL = "./no-such-model"


def encode_to(output, dataset, calibration=None):
    options = EncodeOptions(precision="int8" if calibration else "float32")
    list(encode(NO_MODEL, Inputs(Source(dataset=str(dataset))), output, options, calibration=calibration))


def mine_to(output, recipe, corpus=None):
    source = Source(dataset=str(corpus)) if corpus else None
    loaded = load_recipe(recipe).recipe
    mine(NO_MODEL, loaded, output, MiningOptions(), corpus=source, corpus_column=None, device="cpu")


NAMES = {
    "itself": lambda path: path,
    "another spelling": lambda path: path.parent / "." / "x" / ".." / path.name,
    "a link": lambda path: link(os.symlink, path),
    "a hard link": lambda path: link(os.link, path),
}


def link(make, path):
    other = path.with_name(f"link-{path.name}")
    make(path, other)
    return other


@pytest.mark.parametrize("name", NAMES)
def test_an_output_by_any_name_of_an_input_is_refused_and_the_input_kept(write, tmp_path, name):
    (tmp_path / "x").mkdir()
    recipe, rows = write(), tmp_path / "rows.jsonl"
    before, output = rows.read_bytes(), NAMES[name](tmp_path / "rows.jsonl")
    for action in (
        partial(encode_to, output, rows),
        partial(encode_to, output, tmp_path / "row?.jsonl"),
        partial(mine_to, output, recipe),
        partial(mine_to, output, recipe, corpus=rows),
    ):
        with pytest.raises(RecipeError, match=r"this command reads it"):
            action()
    assert rows.read_bytes() == before


def test_a_folder_that_holds_an_input_is_no_output(tmp_path, tiny_base):
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "train.parquet").write_bytes(b"rows")
    with pytest.raises(RecipeError, match="this command reads it"):
        encode_to(shards, shards)
    with pytest.raises(RecipeError, match="this command reads it"):
        encode_to(shards, shards / "train.parquet")
    assert (shards / "train.parquet").read_bytes() == b"rows"
    model = tmp_path / "model"
    model.mkdir()
    for name in ("modules.json", "config_sentence_transformers.json"):
        (model / name).write_text("{}")
    with pytest.raises(RecipeError, match="this command reads it"):
        export(str(model), "onnx", model, False, None)


def test_what_is_no_folder_takes_no_folder_of_shards_and_stays(tmp_path):
    (tmp_path / "t.txt").write_text("rain\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("kept")
    rows = EmbeddingRows([1], {}, np.ones((1, 3), np.float32))
    for name in ("pipe", "file"):
        with pytest.raises(RecipeError, match=f"{name}: can't be written: it is no folder"):
            encode_to(tmp_path / name, tmp_path / "t.txt")
        with pytest.raises(RecipeError, match=f"{name}: can't be written: it is no folder"):
            write_output([rows], tmp_path / name, 1)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "file").read_text() == "kept"


BESIDE = ["corpus.old", "corpus.tmp", "f.npy.tmp", "f.npy.old", "f.npy.7.tmp", "corpus.7@elsewhere.old"]


@pytest.mark.parametrize("output", ["corpus", "f.npy"])
def test_what_the_user_has_beside_an_output_stays(tmp_path, output):
    for name in BESIDE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("kept")
    rows = EmbeddingRows([1], {}, np.ones((1, 3), np.float32))
    for _ in range(2):  # the second replaces the first
        write_output([rows], tmp_path / output, 1)
    assert {path.name for path in tmp_path.iterdir()} == {*BESIDE, output}
    assert all((tmp_path / name / "thesis").read_text() == "kept" for name in BESIDE)


@pytest.mark.parametrize(("output", "suffixes"), [("corpus", [".tmp", ".old"]), ("f.npy", [".tmp"])])
def test_what_a_killed_process_left_beside_an_output_goes(tmp_path, output, suffixes):
    target, rows = tmp_path / output, EmbeddingRows([1], {}, np.ones((1, 3), np.float32))
    assert wait(fork(lambda: [temporary_path(target, suffix).mkdir() for suffix in suffixes])) == 0
    assert len(list(tmp_path.iterdir())) == len(suffixes)
    write_output([rows], target, 1)
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_of_windows_loses_nothing_but_windows(tmp_path):
    windows, other = tmp_path / "z.npy.windows", tmp_path / "t.txt"
    windows.mkdir()
    other.write_text("rain\n")
    (windows / "thesis.docx").write_text("kept")
    with pytest.raises(RecipeError, match=r"z.npy.windows: holds thesis.docx.*move that file"):
        encode_to(tmp_path / "z.npy", other)
    (windows / "thesis.docx").rename(windows / "window-00000.safetensors")
    with pytest.raises(RecipeError, match="this command reads it"):
        encode_to(tmp_path / "z.npy", windows / "window-00000.safetensors")
    (windows / "note").write_text("kept")  # put there while windows were written
    SavedWindows(windows).delete()
    assert [path.name for path in windows.iterdir()] == ["note"]
    (windows / "note").unlink()
    SavedWindows(windows).delete()
    assert not windows.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_a_folder_that_is_read_is_no_output(tmp_path, tiny_base, name):
    (tmp_path / "t.txt").write_text("rain\n")
    model, inputs = tmp_path / "run" / "model", Inputs(Source(dataset=str(tmp_path / "t.txt")))
    save_encoder(load_encoder(str(tiny_base("bert")), "cpu"), model)
    (model / "x").mkdir()
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    for folder in (model, model.parent):
        with pytest.raises(RecipeError, match="this command reads it"):
            list(encode(str(folder), inputs, NAMES[name](weights), EncodeOptions()))
        (model / "link-model.safetensors").unlink(missing_ok=True)
    assert weights.read_bytes() == before
    for _ in range(2):  # beside the model, a run folder may hold embeddings, and they may be written again
        list(encode(str(model.parent), inputs, model.parent / "embeddings.npy", EncodeOptions(), device="cpu"))


def test_what_a_run_wrote_is_no_output_and_other_files_beside_it_are(write, tmp_path):
    run = RunFolder(tmp_path / "runs" / "r")
    (run.path / "model").mkdir(parents=True)
    (run.path / "model" / "modules.json").write_text("[]")
    run.resolved.write_text("")
    (tmp_path / "rows.jsonl").write_text("")
    for model in (run.path, run.path / "model"):
        for path in run.written:
            with pytest.raises(RecipeError, match="this command reads it"):
                require_output(path, paths_of_model(model), is_folder=True)
        require_output(run.path / "mined.jsonl", paths_of_model(model))
    recipe = load_recipe(write()).recipe
    with pytest.raises(RecipeError, match="this command reads it"):
        mine(str(run.path), recipe, run.metrics, MiningOptions(), corpus=None, corpus_column=None, device="cpu")


def test_ranges_are_not_written_over_the_output(write, tmp_path):
    write()
    output = tmp_path / "out.jsonl"
    with pytest.raises(RecipeError, match=r"this command reads it"):
        encode_to(output, tmp_path / "rows.jsonl", calibration=output)


def test_a_report_takes_no_file_of_a_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("kept")
    with pytest.raises(RecipeError, match="this command reads it"):
        report([tmp_path], tmp_path / "metrics.jsonl")
    with pytest.raises(RecipeError, match=r"its name ends with \.html"):
        report([tmp_path], tmp_path.parent / "recipe.yaml")


def test_data_in_the_run_folder_of_its_own_recipe_is_refused_before_it_is_put_aside(write, run, tmp_path):
    rows = tmp_path / "runs" / "tiny" / "rows.jsonl"
    recipe = write(data={"dataset": "./runs/tiny/rows.jsonl"})
    rows.parent.mkdir(parents=True)
    (tmp_path / "rows.jsonl").rename(rows)
    with pytest.raises(RecipeError, match=r"data\.dataset is in .*choose another `name`"):
        run(recipe)
    assert rows.is_file()


def test_an_output_that_can_not_be_written_is_refused_before_the_model_is_loaded(write, tmp_path):
    recipe, rows = write(), tmp_path / "rows.jsonl"
    missing = tmp_path / "nowhere" / "out.jsonl"
    for action in (
        partial(encode_to, missing, rows),
        partial(encode_to, tmp_path / "out.jsonl", rows, calibration=tmp_path / "nowhere" / "ranges.json"),
        partial(mine_to, missing, recipe),
        partial(print_page, "page", missing),
    ):
        with pytest.raises(ResourceError, match=r"nowhere.*the folder .* does not exist"):
            action()
    with pytest.raises(ResourceError, match=r"full|File too large"):
        full(lambda: require_output(tmp_path / "out.jsonl", []), room=100)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "tiny.yaml"}


def full(action, room):
    """Run `action` where no file can be larger than `room`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        action()
    except OSError as error:
        raise ResourceError(f"full: {error}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["out.npy", "out.safetensors", "out.parquet", "out.jsonl", "shards"])
def test_an_output_that_fills_the_disk_leaves_the_earlier_one_and_nothing_torn(tmp_path, name):
    rows = EmbeddingRows([1, 2], {}, np.ones((2, 3), np.float32))
    write_output([rows], tmp_path / name, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    many = EmbeddingRows(list(range(5000)), {}, np.random.default_rng(0).random((5000, 3), np.float32))
    with pytest.raises(ResourceError):
        full(lambda: write_output([many], tmp_path / name, 5000), room=20_000)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_ranges_and_windows_that_do_not_fit_are_errors_about_the_disk_and_leave_nothing(tmp_path):
    ranges = Ranges(np.zeros(900, np.float32), np.ones(900, np.float32))
    rows = EmbeddingRows([1], {}, np.ones((1, 900), np.float32))
    for write in (
        lambda: save_ranges(ranges, tmp_path / "ranges.json", {}),
        lambda: SavedWindows(tmp_path).write(0, "", rows),
    ):
        with pytest.raises(ResourceError):
            full(write, room=100)
    assert list(tmp_path.iterdir()) == []


def test_space_for_windows_and_output_is_asked_for_when_the_rows_are_counted(tmp_path):
    SavedWindows(tmp_path).require_space(1)
    with pytest.raises(ResourceError, match=r"the windows and the output made of them need [\d.]+ MiB, but only"):
        SavedWindows(tmp_path).require_space(2**60)


def test_an_output_keeps_the_place_of_a_link_and_a_device_is_written_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.npy").symlink_to(tmp_path / "disk" / "real.npy")
    write_output([EmbeddingRows([1], {}, np.ones((1, 3), np.float32))], tmp_path / "out.npy", 1)
    assert (tmp_path / "out.npy").is_symlink()
    assert np.load(tmp_path / "disk" / "real.npy").tolist() == [[1, 1, 1]]
    print_page("page", Path(os.devnull))
