"""The bodies of requests and answers, as pydantic models that know every field or refuse it."""
