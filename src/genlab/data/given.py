"""Images that are there, files or arrays, to be compared with each other and to train on never."""

from typing import Literal

from genlab.data.array import Array
from genlab.data.base import Split
from genlab.data.decode import Channels
from genlab.data.image import ImageDataModule, ImageTable
from genlab.data.image_files import SplitsOrClasses
from genlab.data.image_folder import ImageFolder
from genlab.errors import ConfigError, DataError
from genlab.paths import read_path


class GivenImages(ImageDataModule):
    """All images of a folder, or of a .npy or .npz file, as the one split that there is."""

    def __init__(
        self,
        path: str,
        image_size: int | None = None,
        channels: Channels = 3,
        cache_dir: str | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        image_key: str | None = None,
    ):
        """
        Args:
            path: of the folder or file
            image_size: pixels that files are resized to; None: they are squares of one size
            channels: 3: RGB, 1: grey; of files
            cache_dir: None: $GENLAB_CACHE, else ~/.cache/genlab
            on_bad: what becomes of damaged files, as in :class:`ImageFolder`
            image_key: of the images in a .npz; None: images, x or arr_0
        """
        super().__init__()
        self.path = path
        self._source: ImageDataModule
        if read_path(path).suffix in (".npy", ".npz"):
            self._source = Array(path, val_path=path, image_key=image_key, cache_dir=cache_dir)
        elif read_path(path).is_dir():
            self._source = ImageFolder(
                path, path, image_size=image_size, channels=channels, cache_dir=cache_dir, on_bad=on_bad
            )
        else:
            raise DataError(f"there are no images at {path}. Name a folder of images, a .npz or a .npy file.")

    def load(self, split: Split) -> ImageTable:
        """Raises ConfigError for held-out images, DataError or StorageError as the source does."""
        if split == "val":
            raise ConfigError(f"{self.path} has no held-out images, which a metric asks for. Leave it out of "
                              "metrics=[...], or name data with data=... instead of reference=...")  # fmt: skip
        try:
            return self._source.table("train")
        except SplitsOrClasses as error:
            raise DataError(f"the folders in {self.path} seem to be splits. Name one of them: {error.first}") from error
