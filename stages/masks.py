"""artifacts/index/photographs.parquet → artifacts/masks.zarr."""

from pipeline.masks.segment import StoredMasks, fit, named, remarks_on, segment_images
from pipeline.masks.store import MaskStore, write_store
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    image_files = workspace.read_image_files()
    root, cache = workspace.images_root(params), workspace.cache / "masks"
    machine, segmenter = workspace.worker(params), params.segmenter
    if segmenter.learned:
        segmenter = fit(image_files, root, segmenter, cache, workspace.machine(params))
    segmenter = named(image_files, root, segmenter, cache, machine)
    segmented = segment_images(
        image_files,
        root,
        segmenter,
        cache,
        params.runtime.workers,
        machine,
        params.runtime.scheduler,
    )
    masks = StoredMasks(image_files, segmenter, cache)
    remarks = remarks_on(masks, image_files, root, segmenter, machine)
    write_store(workspace.masks, image_files, segmenter, masks)
    images, written = len(image_files), MaskStore(workspace.masks).num_masks().sum()
    print(f"{_counted(segmented, images)}; {written} masks of {images} images in {workspace.masks}")
    for remark in remarks:
        print(remark)


def _counted(segmented: int, total: int) -> str:
    """Says how many images were segmented, and of how many the masks were there."""
    if segmented == 0:
        return f"0 images segmented, since the masks of all {total} were there"
    others = total - segmented
    return f"{segmented} images segmented" + (f", the masks of {others} were there" * bool(others))
