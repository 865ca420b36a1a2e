"""`/stats`: what the server does now, as JSON for the page."""

from fastapi import APIRouter

from draftsmith.serve.routes.at_hand import AtHand
from draftsmith.serve.schemas.stats import Cache, Ledger, Stats
from draftsmith.serve.service import Service

__all__ = ["router"]

router = APIRouter()


@router.get("/stats")
async def stats(service: AtHand) -> Stats:
    """What `/metrics` tells of speculation, the batch and the cache."""
    engine, worker, counts = service.engine, service.worker, service.worker.counts
    rounds = counts.drafted_lengths
    # The other thread counts on meanwhile: what is counted in the end is never less.
    num_running = worker.num_running
    return Stats(
        model=service.model,
        draft=None if engine.draft is None else engine.draft.name,
        gamma=engine.gamma,
        num_running=num_running,
        num_waiting=max(0, worker.num_held - num_running),
        max_batch_size=engine.max_batch_size,
        max_waiting=worker.max_waiting,
        num_tokens=counts.num_tokens,
        num_rounds=counts.num_rounds,
        rounds_by_gamma=[rounds.get(gamma, 0) for gamma in range(max(rounds, default=-1) + 1)],
        drafted_per_position=counts.drafted_per_position,
        tested_per_position=counts.tested_per_position,
        accepted_per_position=counts.accepted_per_position,
        cache=_cache(service),
        ledger=_ledger(service),
    )


def _cache(service: Service) -> Cache:
    found = service.engine.cache_statistics()
    return Cache(
        num_held=found.num_held,
        num_kept=found.num_kept,
        limit=found.cache_tokens,
        num_prompt_tokens=found.num_prompt_tokens,
        num_recalled=found.num_recalled,
        num_preemptions=found.num_preemptions,
    )


def _ledger(service: Service) -> Ledger | None:
    ledger = service.engine.controller.ledger
    return None if ledger is None else Ledger(spent_s=ledger.spent_s, plain_s=ledger.plain_s)
