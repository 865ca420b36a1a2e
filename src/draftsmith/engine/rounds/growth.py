"""Trees that a drafter grows step by step: which nodes are read next, and what follows them.

As in EAGLE-2 (Li et al., arXiv:2406.16858) the likeliest nodes that were not read yet are read
together, each gets children, and what counts is the chance that a node is kept: the product of the
confidences on its way. What becomes of it depends on how the tokens are checked.

- Where the draft is certain (temperature 0), or shares the target's noise (`coupled`), the text
  cannot depend on the tree. Every node that is read gets as many children as it may have, and in
  the end the likeliest gamma nodes are kept, whatever was looked at.
- Where tokens are drawn for `rejection` and `block`, every token that was drawn is checked. How
  many children a node gets is settled by the laws and by what was drawn before, before any of them
  is drawn; so is which nodes are read.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.sampling_table import LogitRows
from draftsmith.core.tree_verify import without
from draftsmith.drafters.draft import Draft
from draftsmith.drafters.trees import Tip
from draftsmith.engine.control.contract import Pace
from draftsmith.engine.rounds.children import certain_children, coupled_children
from draftsmith.engine.rounds.draft_laws import fitted, law_with_mass
from draftsmith.engine.rounds.tree import Child, Tree, kept_chance
from draftsmith.engine.rounds.turn import Turn
from draftsmith.errors import DraftError
from draftsmith.kernels.cpu.sampling import has_mass, laws

__all__ = ["TreeGrowth"]


class TreeGrowth:
    """The trees of one round.

    Args:
        turns: The batch.
        vocab_size: The target's.
        device: Where the draft is wanted.
        wanting: Those of some sequences whose drafts go on, by their places.
        rows: Sequences that are drafted for.
        branches: Children of a node at most.
        pace: Who says which nodes are worth checking, if anybody does.
        depth: Tokens of a path at most; None for no bound.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        vocab_size: int,
        device: torch.device,
        wanting: Callable[[Sequence[int]], list[int]],
        rows: Sequence[int],
        branches: int,
        pace: Pace | None = None,
        depth: int | None = None,
    ) -> None:
        self._turns, self._vocab_size, self._device = turns, vocab_size, device
        self._wanting, self._live, self._branches = wanting, list(rows), branches
        self._pace = pace
        self._trees = [Tree(turn.view.gamma, depth, is_drawn=_is_drawn(turn)) for turn in turns]
        self._tips: list[Tip] = []

    def tips(self) -> list[Tip]:
        """The nodes to read next; none when the trees are grown."""
        found = {row: self._trees[row].tips(row, self._branches) for row in self._live}
        self._live = self._wanting([row for row, tips in found.items() if tips])
        self._tips = [tip for row in self._live for tip in found[row]]
        return self._tips

    def token(self, tip: Tip, node: int) -> int:
        """The id of a node of a tip's sequence."""
        return self._trees[tip.row].tokens[node]

    def branch(self, logits: Float[Tensor, "tips some_vocab"]) -> None:
        """Give children to the nodes that `tips` named, from the drafter's logits behind each."""
        if len(logits) != len(self._tips):
            raise DraftError(f"a drafter gave {len(logits)} rows for {len(self._tips)} nodes")
        logits = logits.to(self._device)
        kinds: defaultdict[str, list[int]] = defaultdict(list)
        for place, tip in enumerate(self._tips):
            turn = self._turns[tip.row]
            kind = "certain" if turn.draft_law.is_greedy else "coupled"
            kinds["drawn" if _is_drawn(turn) else kind].append(place)
        for place in kinds["certain"]:
            line = fitted(logits[place : place + 1].float(), self._vocab_size)
            drafted = self._path_tokens(place)
            turn = self._turns[self._tips[place].row]
            self._add(place, certain_children(turn, line, drafted, self._branches))
        self._branch_coupled(kinds["coupled"], logits)
        self._branch_drawn(kinds["drawn"], logits)
        for row in self._live:
            self._turns[row].confidences.append(self._trees[row].end_step())

    def draft(self) -> Draft:
        """The trees, as they are to be checked."""
        trees = [tree.finished() for tree in self._trees]
        tokens, parents = [one.tokens for one in trees], [one.parents for one in trees]
        sure = [one.sure for one in trees]
        has_laws = any(one.laws for one in trees)
        for turn, one in zip(self._turns, sure, strict=True):
            turn.confidences = one if has_laws else []
        draft = Draft.certain(tokens, self._device, sure, parents)
        if not has_laws:
            return draft
        probs = draft.dense_probs(self._vocab_size)
        for row, one in enumerate(trees):
            for node, law in enumerate(one.laws):
                probs[row, node] = law
            probs[row, len(one.tokens) :] = 0.0
        return Draft(draft.tokens, draft.num_drafted, probs, parents)

    def _add(self, place: int, children: Sequence[Child]) -> None:
        tip = self._tips[place]
        for child in children:
            self._trees[tip.row].add(tip.node, child)

    def _path_tokens(self, place: int) -> list[int]:
        tip = self._tips[place]
        return [self.token(tip, node) for node in tip.path]

    def _branch_coupled(self, places: Sequence[int], logits: Tensor) -> None:
        if not places:
            return
        found = self._laws(places, logits)
        turns = [self._turns[self._tips[place].row] for place in places]
        depths = [len(self._tips[place].path) for place in places]
        children = coupled_children(turns, torch.stack(found), depths, self._branches)
        for place, some in zip(places, children, strict=True):
            self._add(place, some)

    def _branch_drawn(self, places: Sequence[int], logits: Tensor) -> None:
        """Draw where it is worth the most first; nothing is looked at that is drawn later."""
        own: defaultdict[int, dict[int, Tensor]] = defaultdict(dict)
        for place, law in zip(places, self._laws(places, logits), strict=True):
            tip = self._tips[place]
            own[tip.row][tip.node] = law
        sure = {
            row: {node: float(law.max()) for node, law in found.items()}
            for row, found in own.items()
        }
        places_of = {
            row: list(self._trees[row].places_to_draw(found, self._branches))
            for row, found in sure.items()
        }
        for row, nodes in self._worth_drawing(places_of, sure).items():
            for node in nodes:
                self._draw_child(row, node, own[row][node], sure[row][node])

    def _worth_drawing(
        self, places_of: Mapping[int, list[int]], sure: Mapping[int, Mapping[int, float]]
    ) -> Mapping[int, list[int]]:
        """Those of the places that a pace would have checked, before anything is drawn there."""
        if self._pace is None or not places_of:
            return places_of
        drafts = [tree.finished() for tree in self._trees]
        counts = [len(draft.tokens) for draft in drafts]
        for row, nodes in places_of.items():
            tree, draft = self._trees[row], drafts[row]
            for place, node in enumerate(nodes):
                number = len(tree.children_of(node)) + nodes[:place].count(node)
                draft.parents.append(node)
                draft.sure.append(kept_chance(sure[row][node], number))
        taken = self._pace.nodes(
            [draft.sure for draft in drafts], [draft.parents for draft in drafts]
        )
        return {
            row: [node for place, node in enumerate(nodes) if counts[row] + place in taken[row]]
            for row, nodes in places_of.items()
        }

    def _draw_child(self, row: int, node: int, law: Float[Tensor, " vocab"], sure: float) -> None:
        turn, tree = self._turns[row], self._trees[row]
        elder = tree.children_of(node)
        left = without(law, [tree.tokens[one] for one in elder])
        if left is None:
            return
        # The sync is the draft's own: its next pass needs the token.
        token = int(turn.verifier.draw(left.unsqueeze(0), turn.noise, len(tree.tokens)))
        tree.add(node, Child(token, kept_chance(sure, len(elder)), left))

    def _laws(self, places: Sequence[int], logits: Tensor) -> list[Float[Tensor, " vocab"]]:
        """The draft's laws behind some nodes; those that no prefix changes are made together."""
        found: dict[int, Tensor] = {}
        together = [p for p in places if self._turns[self._tips[p].row].draft_law.cuts is not None]
        if together:
            turns = [self._turns[self._tips[place].row] for place in together]
            cuts = [one for turn in turns if (one := turn.draft_law.cuts) is not None]
            rows = LogitRows(logits.unsqueeze(1), [(p, 0) for p in together], self._vocab_size)
            made = laws(rows, cuts)
            good = has_mass(made).tolist()
            found = {p: law for p, law, is_one in zip(together, made, good, strict=True) if is_one}
        for place in places:
            if place not in found:
                line = fitted(logits[place : place + 1].float(), self._vocab_size)
                turn = self._turns[self._tips[place].row]
                found[place] = law_with_mass(turn, line, self._path_tokens(place))[0]
        return [found[place] for place in places]


def _is_drawn(turn: Turn) -> bool:
    """Whether the drafted tokens are drawn from a law that the check asks for."""
    return turn.verifier.needs_draft_probs and not turn.draft_law.is_greedy
