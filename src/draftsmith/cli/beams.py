"""`draftsmith generate --num-beams`: the likeliest texts instead of a sampled one."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from draftsmith.cli.options import BEAMS, Whole
from draftsmith.cli.runtime import ModelOptions
from draftsmith.cli.sampling import DEFAULT_SAMPLING, SamplingOptions
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.core.params import SamplingParams
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.beams.search import BeamResult
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.request import Prompt

__all__ = ["BeamOptions", "show"]

_HONOURED = ("max_tokens", "ignore_eos")


@Parameter(name="*", group=BEAMS)
@dataclass(frozen=True, kw_only=True)
class BeamOptions:
    """Search instead of sampling.

    Parameters
    ----------
    num_beams
        Search for the likeliest texts with so many beams; the draft, if there is one, must be a
        model. Prints the best text, or with --num-samples several. 0 samples.
    draft_beams
        Beams of the draft, --num-beams or more; by default twice as many. The texts are the same.
    """

    num_beams: Whole = 0
    draft_beams: Whole | None = None

    def check(self, sampling: SamplingOptions, n: int, others: dict[str, bool]) -> None:
        """Refuse what a search would ignore.

        Args:
            sampling: Only the length may be asked for.
            n: Texts wanted.
            others: Further options by name, and whether each was given.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if not self.num_beams:
            if self.draft_beams is not None:
                raise InvalidRequestError(
                    f"--draft-beams {self.draft_beams} goes with a search: give --num-beams"
                )
            return
        if self.num_beams < 0 or n > self.num_beams:
            raise InvalidRequestError(
                "--num-beams must be 1 or more, and --num-samples at most that, "
                f"got {self.num_beams} and {n}"
            )
        if self.draft_beams is not None and self.draft_beams < self.num_beams:
            raise InvalidRequestError(
                f"draft_beams must be {self.num_beams} (--num-beams) or more, "
                f"got {self.draft_beams}"
            )
        asked = {one.name: getattr(sampling, one.name) for one in fields(sampling)}
        given = {
            name: f", got {value}"
            for name, value in asked.items()
            if name not in _HONOURED and value != getattr(DEFAULT_SAMPLING, name)
        } | {name: "" for name, is_given in others.items() if is_given}
        if given:
            name, value = next(iter(given.items()))
            raise InvalidRequestError(f"{name} does nothing in a beam search{value}: drop it")

    def check_draft(self, draft: str | None) -> None:
        """Refuse beams of a draft that is not there.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.num_beams and self.draft_beams is not None and draft in (None, "none"):
            raise InvalidRequestError(
                f"--draft-beams {self.draft_beams} are a draft model's: give one by --draft"
            )

    def parameters(
        self, engine: "Engine", result: "BeamResult", sampling: SamplingOptions, n: int
    ) -> dict[str, Any]:
        """What fixed the texts, as it held."""
        from draftsmith.cli.provenance import longest_output

        params = SamplingParams(max_tokens=sampling.max_tokens)
        drafted = (self.draft_beams or 2 * self.num_beams) if engine.draft else None
        return {
            "num_beams": self.num_beams,
            "draft_beams": drafted,
            "num_samples": n,
            "max_tokens": longest_output(engine, params, result.num_prompt_tokens),
            "ignore_eos": sampling.ignore_eos,
        }

    def search(self, engine: "Engine", prompt: "Prompt", sampling: SamplingOptions) -> "BeamResult":
        """Run the search."""
        from draftsmith.engine.beams.search import beam_search

        return beam_search(
            engine,
            prompt,
            num_beams=self.num_beams,
            draft_beams=self.draft_beams,
            max_tokens=sampling.max_tokens,
            ignore_eos=sampling.ignore_eos,
        )


def show(
    result: "BeamResult",
    n: int,
    models: ModelOptions,
    engine: "Engine",
    parameters: dict[str, Any],
    *,
    is_json: bool,
) -> None:
    """Print the best texts, and on stderr what the search took."""
    texts = result.texts[:n]
    if is_json:
        from draftsmith.cli.provenance import machinery

        found = _document(replace(result, texts=texts))
        write_json({**found, **machinery(engine, models), "parameters": parameters})
        return
    from draftsmith.cli.messages import notes

    for one in texts:
        if n > 1:
            notes().print(f"score {one.score:.4f}", style="dim")
        write_text(f"{one.text}\n")
    summary = (
        f"{result.num_steps} steps in {result.num_target_passes} target passes · "
        f"{result.steps_per_pass:.2f} steps per pass · score {texts[0].score:.4f}"
    )
    notes().print(summary, style="dim")


def _document(result: "BeamResult") -> dict[str, Any]:
    beams = [
        {"text": one.text, "token_ids": list(one.token_ids), "score": one.score}
        for one in result.texts
    ]
    return {
        **beams[0],
        "beams": beams,
        "num_steps": result.num_steps,
        "num_target_passes": result.num_target_passes,
        "num_target_rows": result.num_target_rows,
        "num_prompt_tokens": result.num_prompt_tokens,
        "elapsed_s": round(result.elapsed_s, 4),
    }
