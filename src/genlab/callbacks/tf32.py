"""TensorFloat-32 on an NVIDIA GPU, for the time of training."""

from contextlib import ExitStack

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.model.float32 import float32_of


class TF32(Callback):
    """Whether float32 is multiplied in TensorFloat-32 while a GPU trains (``trainer.tf32``); samples and evaluations
    are exact either way (:func:`genlab.model.float32.exact_float32`). On other devices nothing changes."""

    def __init__(self, tf32: bool):
        self.tf32 = tf32
        self._training = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training.enter_context(float32_of(pl_module.device, self.tf32))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._training.close()
