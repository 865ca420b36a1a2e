"""What schemathesis runs beside its own checks: told to it by SCHEMATHESIS_HOOKS."""
# schemathesis' annotations are looser than pyright's strict mode asks:
# pyright: basic

import schemathesis
from schemathesis.generation import GenerationMode

_BY_THE_SCHEMA = {
    "invalid_json",
    "invalid_type",
    "missing_required_parameter",
    "unknown_parameter",
}
"""Codes of faults that a schema can tell."""


@schemathesis.check
def what_the_schema_allows_is_refused_by_a_rule_of_several_fields_only(ctx, response, case):
    """`positive_data_acceptance` lets 400 pass: a schema cannot say that `top_logprobs` needs
    `logprobs`, or that a prompt fits the context. No other refusal of a valid body is right."""
    generation = case.meta.generation if case.meta is not None else None
    if generation is None or generation.mode is not GenerationMode.POSITIVE:
        return
    if response.status_code != 400:
        return
    error = response.json()["error"]
    assert error["code"] not in _BY_THE_SCHEMA, error
    assert error["message"], error
