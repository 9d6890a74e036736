"""What evaluators find, as plain numbers."""

from stfit.evaluation.measure import measure, values_of


def measured(encoder, evaluators, moment, dims=()):
    """`<evaluator>/<metric>` -> value."""
    return values_of(measure(encoder, evaluators, moment, dims))
