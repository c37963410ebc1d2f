"""ProtoMask in a notebook or a service: load a finished model, and ask about images.

```python
from protomask import load

model = load("birds")  # what `protomask export birds` wrote, or the folder of an experiment
answer = model.predict("some.jpg")
print(answer.label, answer.scores, answer.regions)
answer.figure().save("why.png")
```
"""

from protomask.answer import Answer, Match, Region
from protomask.model import Model, load

__all__ = ["Answer", "Match", "Model", "Region", "load"]
