"""`draftsmith generate --num-beams`: the likeliest texts instead of a sampled one."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cyclopts import Group, Parameter

from draftsmith.cli.options import SamplingOptions, Whole
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.beam import BeamResult
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.request import Prompt

__all__ = ["BeamOptions", "show"]

_BEAMS = Group("Beam search", sort_key=6)
_HONOURED = ("max_tokens", "ignore_eos")


@Parameter(name="*", group=_BEAMS)
@dataclass(frozen=True, kw_only=True)
class BeamOptions:
    """Search instead of sampling.

    Parameters
    ----------
    num_beams
        Search for the likeliest texts with so many beams; the draft, if there is one, must be a
        model. Prints the best text, or with --n several. 0 samples.
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
                raise InvalidRequestError("--draft-beams goes with a search: give --num-beams")
            return
        if self.num_beams < 0 or n > self.num_beams:
            raise InvalidRequestError(
                f"--num-beams must be 1 or more, and --n at most that, got {self.num_beams} and {n}"
            )
        default = SamplingOptions()
        asked = {field.name for field in fields(sampling)} - set(_HONOURED)
        given = [
            name for name in sorted(asked) if getattr(sampling, name) != getattr(default, name)
        ]
        given += [name for name, is_given in others.items() if is_given]
        if given:
            option = given[0].replace("_", "-")
            raise InvalidRequestError(f"--{option} does nothing in a beam search: drop it")

    def search(self, engine: "Engine", prompt: "Prompt", sampling: SamplingOptions) -> "BeamResult":
        """Run the search."""
        from draftsmith.engine.beam import beam_search

        return beam_search(
            engine,
            prompt,
            num_beams=self.num_beams,
            draft_beams=self.draft_beams,
            max_tokens=256 if sampling.max_tokens is None else sampling.max_tokens,
            ignore_eos=sampling.ignore_eos,
        )


def show(result: "BeamResult", n: int, *, is_json: bool) -> None:
    """Print the best texts, and on stderr what the search took."""
    texts = result.texts[:n]
    if is_json:
        write_json(_document(replace(result, texts=texts)))
        return
    from draftsmith.cli.report import notes

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
        "elapsed_s": round(result.elapsed_s, 4),
    }
