"""For users of `transformers`: their `model.generate`, their argument names, our rounds.

```python
model.generate(**inputs, custom_generate=draftsmith.transformers.generate,
               assistant_model=draft, num_assistant_tokens=5)
```

Batches work, of any padding on the left, for decoder-only and encoder-decoder models. Logits
processors and stopping criteria are `transformers`' own, asked with the very prefix that holds at
each drafted position, so every sampling option keeps its meaning. What cannot be honoured exactly
is refused by name; `docs/transformers.md` has the lists.
"""

from draftsmith.transformers.custom import generate
from draftsmith.transformers.law import ProcessorLaw
from draftsmith.transformers.state import stateless
from draftsmith.transformers.statistics import Statistics

__all__ = ["ProcessorLaw", "Statistics", "generate", "stateless"]
