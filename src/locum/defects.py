"""What may be logged of an error that nobody foresaw: its kind and its place, for it is a defect of ours.

Never its text or its variables, which may quote a secret.
"""

from __future__ import annotations


def whereabouts(error: BaseException) -> dict[str, str]:
    """The class of `error`, and file and line where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
    return {"kind": type(error).__name__, "where": where}
