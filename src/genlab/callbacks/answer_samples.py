"""Answers during training: to the same held-out conversations, always from the same random numbers."""

from pytorch_lightning import Trainer

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.periodic_samples import samples_folder, shown_by
from genlab.callbacks.text_samples import TextSamples
from genlab.data.conversation_data import ConversationData
from genlab.model.answering import answers
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.texts import write_texts


class AnswerSamples(TextSamples):
    """Writes ``samples/examples=N.txt`` into the run folder, the first held-out conversations with the answers of the
    model, and to the loggers that show text."""

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ConversationData), "task=answer is for these"
        known = data.known("val")[: self.count]
        prompts = [data.chat.prompt(one.prompt, one.where) for one in known]
        with averaged_weights(trainer, model), in_eval_mode(model):
            found = [*answers(model, prompts, range(len(known)), self.seed, data.chat.end, len(known))]
        if not trainer.is_global_zero:
            return
        said = [data.chat.answer(answer) for batch in found for answer in batch]
        texts = [f"{_shown(one.prompt)}\nassistant: {answer}" for one, answer in zip(known, said, strict=True)]
        write_texts(texts, samples_folder(trainer) / f"examples={model.progress.examples:012d}.txt")
        for logger, step in shown_by(trainer):
            logger.show_text("samples", texts, model.progress.examples, step)


def _shown(messages: tuple[dict[str, str], ...]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
