"""Images from files or arrays, only for evaluation."""

from typing import Literal

from genlab.data.archive_root import is_archive
from genlab.data.array import Array
from genlab.data.base import Split
from genlab.data.decode import Bits, Channels, Size
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.image_files import SplitsOrClasses
from genlab.data.image_folder import ImageFolder
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path


class GivenImages(ImageDataModule):
    """All images of a folder, or of a .npy or .npz file, as a single split."""

    def __init__(
        self,
        path: str,
        image_size: Size | None = None,
        channels: Channels = 3,
        cache_dir: str | None = None,
        image_key: str | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        bits: Bits = 8,
    ):
        """
        Args:
            path: of the folder, archive or file
            image_size: side, or (height, width), that files are resized to; None: they are squares of one size
            channels: 1: gray, 2: gray + alpha, 3: RGB, 4: RGBA; of files
            cache_dir: None: $GENLAB_CACHE, else ~/.cache/genlab
            image_key: of the images in a .npz; None: images, x or arr_0
            on_bad: a damaged file: stop, or leave out up to 0.1 % of the files
            bits: of a channel, of files
        """
        super().__init__()
        self.path = path
        self._source: ImageDataModule
        if read_path(path).suffix in (".npy", ".npz"):
            self._source = Array(path, val_path=path, image_key=image_key, image_size=image_size, cache_dir=cache_dir)
        elif read_path(path).is_dir() or is_archive(path):
            self._source = ImageFolder(
                path, path, image_size=image_size, channels=channels, bits=bits, on_bad=on_bad, cache_dir=cache_dir
            )
        else:
            raise DataError(
                f"there are no images at {path}. Name a folder of images, a .zip or .tar of one, a .npz or a .npy file."
            )

    def load(self, split: Split) -> ImageTable:
        """Raises ConfigError for held-out images, DataError or StorageError as the source does."""
        if split == "val":
            raise ConfigError(
                f"{self.path} has no held-out images, which a metric needs. Leave it out of "
                "metrics=[...], or name data with data=... instead of reference=..."
            )
        try:
            return self._source.table("train")
        except SplitsOrClasses as error:
            raise DataError(f"the folders in {self.path} seem to be splits. Name one of them: {error.first}") from error
