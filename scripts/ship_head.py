"""Put a trained head into the package: `python scripts/ship_head.py FOLDER [NAME]`.

FOLDER is what `draftsmith train` wrote. Its weights are stored in 8 bits, as a CPU rounds them when
it loads them, beside its recipe and a model card made of it.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from draftsmith.api import load_engine
from draftsmith.drafters.heads.eagle3_kind import Eagle3
from draftsmith.drafters.heads.export import write_speculators
from draftsmith.drafters.heads.layouts import read_eagle3
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.models.shipped import SHIPPED, ShippedHead

_CARD = """---
license: {licence}
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: draftsmith
---

# {name}

Written by `scripts/ship_head.py` from `recipe.json`. A draft head (EAGLE-3, Li et al.,
arXiv:2503.01840) for `{target}`: `draftsmith generate --draft {name}`.
No text depends on it.

**Made by** `draftsmith train` on one NVIDIA H100 in {minutes:g} minutes, prompts and texts
included: {steps} steps over {tokens:,} tokens in {texts:,} texts. Its options, beside
`--max-minutes {minutes:g}`:

```
{options}
```

**Learnt from** {learnt_from}. Of the texts {greedy_share:.0%} were written at temperature 0,
the others at {temperature:g}. None of the shipped workloads and nothing of HumanEval was asked.

**Held-out acceptance**, % by place in the draft, over {num_tokens:,} tokens of the same kind of
text; of other text less is accepted:

| temperature | {places} |
|---|{rule}|
| 0 | {greedy} |
| {temperature:g} | {sampled} |

**Conventions**

{conventions}

**Licence** {licence}, as the target's.
"""


def card(head: ShippedHead, recipe: dict[str, Any]) -> str:
    """The model card that a recipe comes to."""
    options, held_out = recipe["options"], recipe["acceptance"]
    places = range(1, len(held_out["greedy"]) + 1)
    return _CARD.format(
        name=head.name,
        target=head.target,
        licence=head.licence,
        learnt_from=head.learnt_from,
        minutes=recipe["minutes"],
        steps=recipe["steps"],
        tokens=recipe["tokens"],
        texts=recipe["texts"],
        options=json.dumps(options, indent=2),
        greedy_share=options["greedy_share"],
        temperature=options["temperature"],
        num_tokens=held_out["num_tokens"],
        places=" | ".join(map(str, places)),
        rule="|".join("---:" for _ in places),
        greedy=" | ".join(f"{100 * share:.1f}" for share in held_out["greedy"]),
        sampled=" | ".join(f"{100 * share:.1f}" for share in held_out["sampled"]),
        conventions="\n".join(f"- {key}: {value}" for key, value in recipe["conventions"].items()),
    )


def ship(folder: Path, name: str) -> None:
    """Write the package's folder of a head."""
    head = SHIPPED[name]
    target = load_engine(head.target, gamma=0, device="cpu").target
    config, weights = read_eagle3(folder, tables_of(target))
    Eagle3(config, weights).made(target)  # refuses a head for another target
    recipe = (folder / "recipe.json").read_text(encoding="utf-8")
    write_speculators(head.folder, config, weights, torch.int8)
    shutil.copyfile(folder / "recipe.json", head.folder / "recipe.json")
    (head.folder / "README.md").write_text(card(head, json.loads(recipe)), encoding="utf-8")


if __name__ == "__main__":
    ship(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else next(iter(SHIPPED)))
