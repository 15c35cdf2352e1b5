"""One's own images: a .npy, a .npz, or a folder of image files. Next: mnist.py.

x.npy    images, uint8: (N, H, W) is grey, (N, H, W, 3) colour
x.npz    `images`, and where there are any `labels`, `test_images`, `test_labels`
folder/  image files, all of one size; or sub-folders of them, the classes, if there are several, numbered by name;
         or exactly `train` and `test`, each such a folder
"""

from collections import Counter
from pathlib import Path

import numpy as np

from tinyddpm.data.files import DAMAGE
from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.data.progress import progress, say

__all__ = ["read"]

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
NAMES = ("images", "labels", "test_images", "test_labels")  # in a .npz
FITS = ("crop", "stretch")


def read(path, size=None, fit="crop"):
    """The Data in the file or folder `path`; its name is the absolute path. size, fit: see `load_data`. DataError."""
    path = Path(path).resolve()
    if path.is_dir():
        return _read_folder(path, size, fit)
    if size is not None:
        raise DataError(f"size is for a folder of images, not for {path}")
    if path.suffix.lower() not in (".npy", ".npz"):
        raise DataError(f"{path}: must be a .npy, a .npz or a folder of images")
    try:
        arrays = _read_arrays(path)
        train = Dataset(arrays["images"], arrays.get("labels"))
        test = Dataset(arrays["test_images"], arrays.get("test_labels")) if "test_images" in arrays else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return Data(str(path), train, test)


def _read_arrays(path):
    """The arrays in a .npy or .npz by their NAMES. Objects, which would have to be unpickled, are refused."""
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                found, rest = {"images": found}, file.read(1)
                if rest:
                    raise DataError("more follows the first array")
            else:
                found = {name: found[name] for name in found.files}
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"damaged, cut short, or no array of numbers ({error})") from error
    unknown = found.keys() - set(NAMES)
    if unknown or "images" not in found or "test_labels" in found and "test_images" not in found:
        raise DataError(f"must hold `images`, and may hold {', '.join(NAMES[1:])}; it holds {', '.join(found)}")
    return found


# ---- a folder ----


def _read_folder(folder, size, fit):
    if fit not in FITS:
        raise DataError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    if size is not None and (np.shape(size) != (2,) or np.asarray(size).dtype.kind not in "iu" or min(size) < 1):
        raise DataError(f"size must be (H, W), two whole numbers of at least 1, got {size!r}")
    if [entry.name for entry in _visible(folder)] != ["test", "train"]:
        return Data(str(folder), _read_images(folder, size, fit)[0])
    train, classes = _read_images(folder / "train", size, fit)
    test, tested = _read_images(folder / "test", size, fit)
    if classes != tested:
        raise DataError(f"{folder}: train holds the classes {classes}, test holds {tested}")
    return Data(str(folder), train, test)


def _visible(folder):
    return sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=lambda entry: entry.name)


def _read_images(folder, size, fit):
    """(Dataset, names of its classes) of the image files in `folder`, or in its sub-folders."""
    folders = [entry for entry in _visible(folder) if entry.is_dir()]
    entries = [(entry, k) for k, place in enumerate([folder, *folders]) for entry in _visible(place)]
    files = [(entry, k) for entry, k in entries if entry.suffix.lower() in ENDINGS]
    others = [entry for entry, _ in entries if entry.suffix.lower() not in ENDINGS and entry not in folders]
    counts = np.bincount([k for _, k in files], minlength=1 + len(folders))
    if counts[0] and folders or not counts[1:].all() or not files:
        held = ", ".join(f"{n} in {place}" for place, n in zip([folder, *folders], counts, strict=True))
        raise DataError(f"images must lie in one folder, or some in each of its sub-folders; there are {held}")
    if others:
        say(f"{folder}: {len(others)} entries are left out, being no image files, such as {others[0].name}")
    images = _stacked(folder, [path for path, _ in files], size, fit)
    if len(folders) < 2:
        return Dataset(images), []
    classes = [place.name for place in folders]
    say(f"{folder}: the classes are " + ", ".join(f"{k} {name}" for k, name in enumerate(classes)))
    return Dataset(images, np.array([k - 1 for _, k in files])), classes


def _stacked(folder, paths, size, fit):
    """The images in these files, of one size, grey if all are, as one array."""
    from PIL import Image, ImageOps

    found = Counter()  # sizes
    arrays = []
    for path in progress(paths, desc=f"reading {folder}"):
        image = _flat(path)
        found[image.height, image.width] += 1
        if size is not None and fit == "crop":
            image = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS)
        elif size is not None:
            image = image.resize(size[::-1], Image.Resampling.LANCZOS)
        arrays.append(np.asarray(image))
    sizes = ", ".join(f"{h}x{w} ({n} images)" for (h, w), n in found.most_common(10))
    if size is None and len(found) > 1:
        raise DataError(f"{folder}: the images differ in size, so say size=(H, W); their heights x widths are {sizes}")
    if size is not None:
        say(f"{folder}: made {size[0]}x{size[1]} by fit={fit!r} from {sizes}")
    if len({array.ndim for array in arrays}) > 1:  # grey ones among coloured ones
        arrays = [array if array.ndim == 3 else np.stack([array] * 3, axis=-1) for array in arrays]
    return np.stack(arrays)


def _flat(path):
    """The image in a file, turned as its EXIF says, in mode L if it is grey and else in RGB."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError("image files are read by Pillow, which is not installed: pip install pillow") from None
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
