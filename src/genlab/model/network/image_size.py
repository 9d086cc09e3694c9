"""The error of networks for unsuitable image sizes."""


class ImageSizeError(ValueError):
    """A network cannot take images of this size. ``side``: a size that it can."""

    def __init__(self, message: str, side: int):
        super().__init__(message)
        self.side = side
