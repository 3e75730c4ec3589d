"""How true dreams are, and what policies achieve: measures, episodes, reports."""

from .fidelity import (
    NO_WEIGHTS,
    Dreamed,
    Locate,
    check_recording,
    dream,
    evaluate_dreams,
    evaluate_ends,
    evaluate_objects,
    evaluate_perception,
    evaluate_sentences,
    held_out_segments,
    last_segments,
    open_questions,
    unseen,
    write_comparison,
)

__all__ = [
    "NO_WEIGHTS",
    "Dreamed",
    "Locate",
    "check_recording",
    "dream",
    "evaluate_dreams",
    "evaluate_ends",
    "evaluate_objects",
    "evaluate_perception",
    "evaluate_sentences",
    "held_out_segments",
    "last_segments",
    "open_questions",
    "unseen",
    "write_comparison",
]
