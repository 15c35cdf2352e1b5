"""One's own images: a .npy, a .npz, or a folder of image files. Next: mnist.py.

x.npy    images, uint8: (N, H, W) is grey, (N, H, W, 3) colour
x.npz    `images`, and where there are any `labels`, `test_images`, `test_labels`
folder/  image files; or sub-folders of them, which are the classes, numbered by name, if there are several;
         or exactly `train` and `test`, each such a folder
"""

from collections import Counter
from pathlib import Path

import numpy as np

from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.data.progress import progress, say

__all__ = ["read"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def read(path, size=None, fit="crop"):
    """The Data in the file or folder `path`; its name is the absolute path. size, fit: see `load_data`. DataError."""
    path = Path(path).resolve()
    if path.is_dir():
        return _read_folder(path, size, fit)
    if size is not None or path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: must be a .npy or a .npz, both without a size, or a folder of images")
    try:
        arrays = _arrays(path)
        parts = ("", "test_") if "test_images" in arrays else ("",)
        datasets = [Dataset(arrays.pop(f"{part}images"), arrays.pop(f"{part}labels", None)) for part in parts]
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"{path}: {error}") from error
    if arrays:
        raise DataError(f"{path}: {', '.join(arrays)}: may hold images, labels, test_images and test_labels only")
    return Data(str(path), *datasets)


def _arrays(path):
    """The arrays in a .npy, as `images`, or in a .npz. Objects, which would have to be unpickled, are refused."""
    with open(path, "rb") as file:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            return {name: found[name] for name in found.files}
        if file.read(1):
            raise DataError("more follows the array")
        return {"images": found}


# ---- a folder ----


def _read_folder(folder, size, fit):
    if size is not None and (np.shape(size) != (2,) or np.asarray(size).dtype.kind not in "iu" or min(size) < 1):
        raise DataError(f"size must be (H, W), two whole numbers of at least 1, got {size!r}")
    if [entry.name for entry in _visible(folder)] != ["test", "train"]:
        return Data(str(folder), _read_images(folder, size, fit)[0])
    (train, classes), (test, tested) = (_read_images(folder / part, size, fit) for part in ("train", "test"))
    if classes != tested:
        raise DataError(f"{folder}: train holds the classes {classes}, test holds {tested}")
    return Data(str(folder), train, test)


def _visible(folder):
    return sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=lambda entry: entry.name)


def _read_images(folder, size, fit):
    """(Dataset, names of its classes) of the image files in `folder`, or in its sub-folders."""
    places = [folder, *(entry for entry in _visible(folder) if entry.is_dir())]
    folders = {place: k for k, place in enumerate(places)}
    entries = [(entry, k) for place, k in folders.items() for entry in _visible(place) if entry not in folders]
    files = [(entry, k) for entry, k in entries if entry.suffix.lower() in ENDINGS]
    counts = np.bincount([k for _, k in files], minlength=len(folders))
    if (counts[0] > 0) == (len(folders) > 1) or 0 in counts[1:]:
        held = ", ".join(f"{n} in {place}" for place, n in zip(folders, counts, strict=True))
        raise DataError(f"image files must lie in one folder, or some in each of its sub-folders; there are {held}")
    others = [entry.name for entry, _ in entries if entry.suffix.lower() not in ENDINGS]
    if others:
        say(f"{folder}: {len(others)} entries are left out, being no image files, such as {others[0]}")
    images = _stacked(folder, [path for path, _ in files], size, fit)
    if len(folders) < 3:
        return Dataset(images), []
    classes = [place.name for place in places[1:]]
    say(f"{folder}: the classes are " + ", ".join(f"{k} {name}" for k, name in enumerate(classes)))
    return Dataset(images, [k - 1 for _, k in files]), classes


def _stacked(folder, paths, size, fit):
    """The images in these files as one array: of one size, grey if all are."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError("image files are read by Pillow, which is not installed: pip install pillow") from None
    fits = {"crop": ImageOps.fit, "stretch": Image.Image.resize}
    if fit not in fits:
        raise DataError(f"fit must be one of {', '.join(fits)}, got {fit!r}")
    images, found = [], Counter()
    for path in progress(paths, desc=f"reading {folder}"):
        image = _flat(path, Image, ImageOps)
        found[image.height, image.width] += 1
        images.append(image if size is None else fits[fit](image, size[::-1], Image.Resampling.LANCZOS))
    sizes = ", ".join(f"{h}x{w} ({n} images)" for (h, w), n in found.most_common(10))
    if size is not None:
        say(f"{folder}: made {size[0]}x{size[1]} by fit={fit!r} from {sizes}")
    elif len(found) > 1:
        raise DataError(f"{folder}: the images differ in size, so say size=(H, W); their heights x widths are {sizes}")
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    return np.stack([np.asarray(image.convert(mode)) for image in images])


def _flat(path, Image, ImageOps):
    """The image in a file, turned as its EXIF says, in mode L if it is grey and else in RGB."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF" or getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"of mode {image.mode}, not 8 bits a channel, or an animation")
            mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
            image = ImageOps.exif_transpose(image)
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema()[0] < 255:
                    raise ValueError("some pixels are transparent: put it on a background")
            return image.convert(mode)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"{path}: no image that can be used: {error}") from error
