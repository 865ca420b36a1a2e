"""The measuring itself: every arm on every batch, in turn, round after round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from draftsmith.bench.arms import Arm, Cell
from draftsmith.bench.batch import Batch, run_batch
from draftsmith.bench.clock import Clock, ClockedController, ClockedModel
from draftsmith.bench.prompts import encode
from draftsmith.core.params import SamplingParams
from draftsmith.drafters import Drafter, FreeDrafter
from draftsmith.drafters.branching import branching
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.workloads import Workload

__all__ = ["Bench", "CellRun", "OnStep", "Track"]

OnStep = Callable[[Cell, Arm, bool], None]
"""Called before each batch, and each warm-up, with whether it is one."""
_WARM_UP_TOKENS = 16
_DEFAULT_MAX_TOKENS = 128


@dataclass
class Track:
    """One arm in one cell: what it has done so far."""

    arm: Arm
    batches: dict[tuple[int, int], Batch] = field(default_factory=dict[tuple[int, int], Batch])
    clock: Clock = field(default_factory=Clock)
    error: str | None = None
    """Why it stopped, if it did."""


@dataclass
class CellRun:
    """One cell: its prompts, its arms, and whether it came to the end."""

    cell: Cell
    item_ids: list[str]
    tracks: list[Track]
    is_flattened: bool = False
    """Whether conversations were written as plain text, for want of a chat template."""
    is_complete: bool = False

    @property
    def plain(self) -> Track:
        """Plain decoding, always the first."""
        return self.tracks[0]


@dataclass
class Bench:
    """A benchmark of one target.

    Args:
        engine: Loaded; its target and tokenizer are used.
        drafters: By the references that arms name; each is asked for the branches of its arms.
        arms: Plain decoding first.
        params: Of every request, less temperature, seed and length.
        num_rounds: How often everything is run.
        seed: Round r samples with seed + r.
        max_tokens: Of every output; None takes an item's own, else 128.
    """

    engine: Engine
    drafters: Mapping[str, Drafter]
    arms: Sequence[Arm]
    params: SamplingParams
    num_rounds: int
    seed: int
    max_tokens: int | None = None
    cells: list[CellRun] = field(default_factory=list[CellRun])
    """What was measured so far; an interrupted run leaves it as it stands."""

    def num_steps(self, plan: Sequence[tuple[Cell, Workload]]) -> int:
        """How many batches will be measured; before those, each cell warms every arm up once."""
        per_cell = (
            self.num_rounds * -(-len(workload.items) // cell.batch_size) for cell, workload in plan
        )
        return len(self.arms) * sum(per_cell)

    def run(self, plan: Sequence[tuple[Cell, Workload]], on_step: OnStep) -> None:
        """Measure every cell; an arm that fails is left out from there on.

        Raises:
            KeyboardInterrupt: If the user stops it; `cells` keeps what there is.
        """
        for cell, workload in plan:
            self._run_cell(cell, workload, on_step)

    def _run_cell(self, cell: Cell, workload: Workload, on_step: OnStep) -> None:
        tracks = [Track(arm) for arm in self.arms]
        ids = [item.id for item in workload.items]
        prompts, is_flattened = encode(workload, self.engine.tokenizer)
        found = CellRun(cell, ids, tracks, is_flattened)
        self.cells.append(found)
        engines = [self._engine(track, cell) for track in tracks]
        size = cell.batch_size
        batches = [range(len(prompts))[i : i + size] for i in range(0, len(prompts), size)]
        params = [self._params(cell, item.max_tokens) for item in workload.items]
        short = [
            replace(one, max_tokens=min(one.longest_output, _WARM_UP_TOKENS)) for one in params
        ]
        for track, engine in zip(tracks, engines, strict=True):
            on_step(cell, track.arm, True)
            _step(track, engine, prompts, short, batches[0], (-1, 0))
            track.batches.clear()
            track.clock.reset()
        for number, round_, index in self._order(len(batches)):
            # The order turns, so that whatever comes and goes meets every arm alike.
            track, engine = tracks[index], engines[index]
            if number == 0 and isinstance(engine.draft, FreeDrafter):
                # Else it would recall the very texts that it is measured on.
                engine.draft.forget()
            on_step(cell, track.arm, False)
            seeded = [replace(one, seed=self.seed + round_) for one in params]
            if track.error is None:
                _step(track, engine, prompts, seeded, batches[number], (round_, number))
        found.is_complete = all(track.error is None for track in tracks)

    def _order(self, num_batches: int) -> Iterator[tuple[int, int, int]]:
        """(batch, round, arm), all arms next to each other, each time another first."""
        for round_ in range(self.num_rounds):
            for number in range(num_batches):
                for place in range(len(self.arms)):
                    yield number, round_, (place + round_ + number) % len(self.arms)

    def _engine(self, track: Track, cell: Cell) -> Engine:
        """An engine of its own for each arm: a controller learns."""
        arm = track.arm
        draft = None if arm.draft is None else branching(self.drafters[arm.draft], arm.branches)
        draft = draft.fresh() if isinstance(draft, FreeDrafter) else draft
        engine = Engine(
            ClockedModel(self.engine.target, track.clock),
            self.engine.tokenizer,
            draft,
            gamma=arm.gamma,
            max_batch_size=cell.batch_size,
            prefix_caching=False,
        )
        engine.controller = ClockedController(engine.controller, track.clock)
        return engine

    def _params(self, cell: Cell, own_max_tokens: int | None) -> SamplingParams:
        return replace(
            self.params,
            temperature=cell.temperature,
            max_tokens=self.max_tokens or own_max_tokens or _DEFAULT_MAX_TOKENS,
            seed=self.seed,
        )


def _step(
    track: Track,
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    indices: Sequence[int],
    key: tuple[int, int],
) -> None:
    """One batch; what goes wrong ends the arm, and says why."""
    try:
        batch = run_batch(engine, [prompts[i] for i in indices], [params[i] for i in indices], *key)
    except (DraftsmithError, RuntimeError, MemoryError) as error:
        track.error = " ".join(str(error).split()) or type(error).__name__
        return
    track.batches[key] = batch
