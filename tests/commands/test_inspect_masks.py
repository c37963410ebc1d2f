"""`protomask masks info`, `show` and `verify`."""

import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from commands import inspect_masks
from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenters.patches import Patches
from pipeline.masks.store import MaskStore, write_store
from stages import scan
from stages.workspace import Workspace

workspace = Workspace()

STORE = workspace.masks


def test_info_says_what_made_the_store_and_what_is_in_it(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_masks.info(STORE)
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    size = sum(path.stat().st_size for path in STORE.rglob("*") if path.is_file())
    for line in (
        "data set folder, 24 images",
        "segmenter patches",
        "grid 2",
        "masks 96",
        "levels 96 of level 0",
        "foreground 96 masks",
        "masks an image 4 at least, 4 median, 4.0 mean, 4 at most",
        f"on disk {size / 1e6:.2f} MB in 5 files, {size / 24:.0f} bytes an image",
        "10–30 % 96 ████████████████████████████████",
        "30–100 % 0",
    ):
        assert line in lines
    assert "images' ids 'class 0/000.png', 'class 0/001.png'," in " ".join(said.split())


def test_shares_are_counted_between_their_bounds() -> None:
    shares = np.array([0.0005, 0.001, 0.0011, 0.25, 0.3, 0.31, 1.0])
    assert inspect_masks.count_shares(shares).tolist() == [2, 1, 0, 0, 0, 2, 2]


def test_areas_are_shares_of_their_own_image(run_folder: Path) -> None:
    assert inspect_masks.area_shares(MaskStore(STORE)) == pytest.approx(np.full(96, 0.25))


def test_show_lists_the_masks_and_draws_them(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = MaskStore(STORE).ids[5]
    inspect_masks.show(workspace, image, STORE, Path("out/a.png"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["mask", "x0", "y0", "x1", "y1", "area", "level", "score", "shows"]
    assert lines[1] == ["0", "0", "0", "30", "20", "25.00", "%", "0", "1"]
    assert lines[4] == ["3", "30", "20", "60", "40", "25.00", "%", "0", "1"]
    with Image.open("out/a.png") as picture:
        assert picture.size == (960, 640)
        assert (np.asarray(picture)[100:200, 100:200] != inspect_masks.GREY).any()


def test_an_image_is_found_by_id_by_path_and_by_file(run_folder: Path) -> None:
    store = MaskStore(STORE)
    path = workspace.read_image_files().table["path"][7]
    for name in (store.ids[7], path, f"photographs/{path}", str(run_folder / "photographs" / path)):
        inspect_masks.show(workspace, name, STORE, None)
        picture = Path(store.ids[7].replace("/", "-") + ".masks.png")
        assert picture.is_file()
        picture.unlink()


@pytest.mark.parametrize("name", ["CLASS 1/003.PNG", "class%201/003.png"])
def test_an_image_is_found_by_another_spelling(run_folder: Path, name: str) -> None:
    inspect_masks.show(workspace, name, STORE, Path("a.png"))
    assert Path("a.png").is_file()


def test_an_unknown_image_is_refused_with_what_was_meant(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"did you mean .*class 1/003\.png"):
        inspect_masks.show(workspace, "clas 1/003.png", STORE, None)
    with pytest.raises(ProtoMaskError, match=r"there are 'class 0/000.png', .* and 21 more$"):
        inspect_masks.show(workspace, "crested-barwing-of-the-readme", STORE, None)


def test_a_folder_is_no_picture(run_folder: Path) -> None:
    with pytest.raises(ProtoMaskError, match="is a folder"):
        inspect_masks.show(workspace, MaskStore(STORE).ids[0], STORE, run_folder)


def test_a_photograph_is_not_written_over(run_folder: Path) -> None:
    image = MaskStore(STORE).ids[0]
    table = workspace.read_image_files().table.set_index("id")
    photograph = workspace.images_root(workspace.read_params()) / table["path"][image]
    before = photograph.read_bytes()
    with pytest.raises(ProtoMaskError, match="is the photograph itself"):
        inspect_masks.show(workspace, image, STORE, photograph)
    assert photograph.read_bytes() == before


def test_without_the_photograph_masks_are_drawn_over_grey(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = MaskStore(STORE).ids[0]
    for gone in (run_folder / "photographs", workspace.index_folder, workspace.params_file):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        inspect_masks.show(workspace, image, STORE, Path("a.png"))
        assert "over grey" in capsys.readouterr().out
    with Image.open("a.png") as picture:
        assert picture.getpixel((100, 100)) == (inspect_masks.GREY,) * 3


def test_an_undamaged_store_is_ok(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_masks.verify(workspace, STORE)
    said = capsys.readouterr().out
    assert said.startswith(f"OK: 5 files in {STORE} are as they were written\n")
    assert "photographs are those that were segmented" in said.splitlines()[1]


def test_a_photograph_that_changed_or_went_is_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same name and size, other bytes; and one that is gone."""
    first, second = sorted(Path("photographs").rglob("*.png"))[:2]
    changed = bytearray(first.read_bytes())
    changed[-1] ^= 1
    first.write_bytes(changed)
    second.unlink()
    with pytest.raises(ProtoMaskError, match=r"2 photographs are not those.*dvc repro masks"):
        inspect_masks.verify(workspace, STORE)
    said = capsys.readouterr().out
    assert f"{first} has changed since it was segmented" in said
    assert "the photograph is no longer there" in said


def test_the_advice_helps_where_a_change_leaves_no_trace(run_folder: Path) -> None:
    """Some file systems keep no change time: what is remembered has to be forgotten."""
    shutil.rmtree(workspace.cache / "listings")  # of the folder that this one is a copy of
    scan.run(workspace)
    (cache,) = (workspace.cache / "listings").iterdir()
    photograph = min(Path("photographs").rglob("*.png"))
    photograph.write_bytes(photograph.read_bytes()[:-1] + b"!")
    remembered, status = pd.read_parquet(cache), photograph.stat()
    row = remembered.index[remembered["path"] == photograph.relative_to("photographs").as_posix()]
    remembered.loc[row, ["mtime", "ctime"]] = [status.st_mtime_ns, status.st_ctime_ns]
    remembered.to_parquet(cache)
    before = workspace.listing.read_bytes()
    scan.run(workspace)
    assert workspace.listing.read_bytes() == before
    with pytest.raises(ProtoMaskError, match=r"remove .*/\.protomask/listings, so that"):
        inspect_masks.verify(workspace, STORE)
    shutil.rmtree(workspace.cache / "listings")
    scan.run(workspace)
    assert workspace.listing.read_bytes() != before


def test_a_store_from_elsewhere_is_verified_without_its_photographs(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.image_files.unlink()
    inspect_masks.verify(workspace, STORE)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_flipped_bit_anywhere_is_found(run_folder: Path) -> None:
    drawn = random.Random(0)
    for path in [path for path in STORE.rglob("*") if path.is_file()]:
        good = path.read_bytes()
        for place in drawn.sample(range(len(good)), min(60, len(good))):
            bad = bytearray(good)
            bad[place] ^= 1 << drawn.randrange(8)
            path.write_bytes(bad)
            with pytest.raises(ProtoMaskError):
                inspect_masks.verify(workspace, STORE)
        path.write_bytes(good)
    inspect_masks.verify(workspace, STORE)


@pytest.mark.parametrize("file", ["zarr.json", "counts/zarr.json", "counts/c/0", "regions/c/0/0"])
def test_a_truncated_or_missing_file_is_found(run_folder: Path, file: str) -> None:
    path = STORE / file
    good = path.read_bytes()
    for length in (len(good) - 1, len(good) // 2, 0):
        path.write_bytes(good[:length])
        with pytest.raises(ProtoMaskError, match=str(STORE)):
            inspect_masks.verify(workspace, STORE)
    path.unlink()
    with pytest.raises(ProtoMaskError, match=str(STORE)):
        inspect_masks.verify(workspace, STORE)


@pytest.mark.parametrize("text", ["[]", '{"zarr_format": 3}', "{", "null", '{"attributes": 3}'])
def test_a_zarr_json_that_says_something_else_is_found(run_folder: Path, text: str) -> None:
    (STORE / "zarr.json").write_text(text)
    with pytest.raises(ProtoMaskError, match=str(STORE)):
        inspect_masks.verify(workspace, STORE)


def test_a_damaged_file_is_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (STORE / "counts" / "c" / "0").write_bytes(b"damaged")
    (STORE / "stray").write_text("")
    with pytest.raises(ProtoMaskError, match="dvc repro masks"):
        inspect_masks.verify(workspace, STORE)
    said = capsys.readouterr().out
    assert "counts/c/0: damaged" in said and "stray: not part of the store" in said


def test_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    for look in (inspect_masks.info, partial(inspect_masks.verify, workspace)):
        with pytest.raises(ProtoMaskError, match="no mask store"):
            look(tmp_path / "nothing.zarr")


class NamedParts(Patches):
    @property
    def part_names(self) -> dict[int, str]:
        return {7: "left wing"}


@pytest.fixture
def parts(run_folder: Path) -> MaskStore:
    """A store in which two masks of each image are known parts, and two background."""
    store = MaskStore(STORE)
    known = {
        "parts": np.array([7, 8, 7, -1], np.int32),
        "levels": np.array([0, 1, 2, 2], np.int32),
        "foreground": np.array([True, True, False, False]),
    }
    masks = [replace(store.masks(image), **known) for image in range(len(store))]
    write_store(STORE, workspace.read_image_files(), NamedParts(version=1, grid=2), masks)
    return MaskStore(STORE)


def test_info_counts_levels_and_foreground(
    parts: MaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_masks.info(STORE)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "levels 24 of level 0, 24 of level 1, 48 of level 2" in lines
    assert "parts 2, which parts.yaml names by `codebook: patches`" in lines
    assert "foreground 48 masks" in lines


class LongCodebook(NamedParts):
    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "codebook": "3fa2" * 16}


def test_no_hash_is_folded_in_a_pipe(parts: MaskStore, capsys: pytest.CaptureFixture[str]) -> None:
    masks = [parts.masks(image) for image in range(len(parts))]
    write_store(STORE, workspace.read_image_files(), LongCodebook(version=1, grid=2), masks)
    inspect_masks.info(STORE)
    assert f"parts.yaml names by `codebook: {'3fa2' * 16}`" in capsys.readouterr().out


def test_show_names_parts_and_background(
    parts: MaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect_masks.show(workspace, parts.ids[0], STORE, Path("a.png"))
    lines = [line.split("%")[1].split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert lines == [
        ["0", "1", "left", "wing"],
        ["1", "1", "part", "8"],
        ["2", "1", "left", "wing,", "background"],
        ["2", "1", "background"],
    ]


def test_show_uses_the_names_that_people_gave(
    parts: MaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.part_names.write_text("codebook: patches\n8: tail\n")
    inspect_masks.show(workspace, parts.ids[0], STORE, Path("a.png"))
    said = capsys.readouterr().out
    assert "tail" in said and "left wing" in said and "part 8" not in said
    workspace.part_names.write_text("codebook: 3fa2\n8: tail\n")
    inspect_masks.show(workspace, parts.ids[0], STORE, Path("a.png"))
    said = capsys.readouterr().out
    assert "part 8" in said and "of the codebook 3fa2, and the parts of patches" in said


def test_a_photograph_that_has_changed_is_not_drawn_on(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = MaskStore(STORE).ids[0]
    photograph = run_folder / "photographs" / image
    with Image.open(photograph) as before:
        Image.new("RGB", before.size, "white").save(photograph)
    inspect_masks.show(workspace, image, STORE, Path("a.png"))
    assert "has changed; its masks are drawn over grey" in capsys.readouterr().out


def test_brackets_in_a_part_s_name_are_shown(
    parts: MaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.part_names.write_text("codebook: patches\n8: '[/tail]'\n")
    inspect_masks.show(workspace, parts.ids[0], STORE, Path("a.png"))
    assert "[/tail]" in capsys.readouterr().out
