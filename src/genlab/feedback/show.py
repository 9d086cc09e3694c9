"""Shows the page of a folder until Ctrl-C, and prints its report."""

from pathlib import Path

from genlab.errors import ConfigError
from genlab.feedback.preferences import export
from genlab.feedback.server import Page
from genlab.feedback.session import Session, drop_torn_line, lock
from genlab.feedback.statistics import lines
from genlab.files.paths import read_path
from genlab.redaction import for_terminal


def go_on(folder: Path, port: int) -> None:
    """Show what is still to be judged. Raises ConfigError: there is no feedback in ``folder``; ResourceError: the port
    is taken; StorageError: another process shows it."""
    Session(folder)  # refused before a lock is left there
    held = lock(folder)
    try:
        drop_torn_line(folder)
        session = Session(folder)
        with Page(session, port) as page:
            print(f"open {page.url}\nCtrl-C ends the program; what is judged is saved.", flush=True)
            try:
                page.serve_forever()
            except KeyboardInterrupt:
                print()
    finally:
        held.release()
    _print(session)


def report(folder: Path, out: str | None) -> None:
    """Print what the judgments of a folder say, and write them to ``out`` as preference data. Raises ConfigError."""
    session = Session(folder)
    if out is not None and Path(out).suffix != ".jsonl":
        raise ConfigError(f"export={out}: preference data go into a .jsonl file. Use export={out}.jsonl")
    _print(session)
    if out is not None:
        rows, ties, unsure = export(session, read_path(out))
        left_out = f"; left out: {ties} ties, {unsure} judged otherwise when shown again" if not session.rate else ""
        print(for_terminal(f"{rows} rows: {out}{left_out}"))


def _print(session: Session) -> None:
    for line in lines(session):
        print(for_terminal(line))
